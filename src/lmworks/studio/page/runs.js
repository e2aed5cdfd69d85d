// The tab Runs.

export const title = "Runs";

// Fills the tab, once. element: the tab's own; studio: see studio.js.
export function mount(element, studio) {
}
