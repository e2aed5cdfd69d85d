// The tab Rate.

export const title = "Rate";

// Fills the tab, once. element: the tab's own; studio: see studio.js.
export function mount(element, studio) {
}
