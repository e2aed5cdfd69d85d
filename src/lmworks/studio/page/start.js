// The tab Start.

export const title = "Start";

// Fills the tab, once. element: the tab's own; studio: see studio.js.
export function mount(element, studio) {
}
