// The tab Data.

export const title = "Data";

// Fills the tab, once. element: the tab's own; studio: see studio.js.
export function mount(element, studio) {
}
