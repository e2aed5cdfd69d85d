// The tab Chat.

export const title = "Chat";

// Fills the tab, once. element: the tab's own; studio: see studio.js.
export function mount(element, studio) {
}
