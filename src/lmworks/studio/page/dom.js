// Elements are built here and nowhere from HTML: what a model wrote or a file holds stays text.

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "open", "readOnly", "selected", "indeterminate"]);

// A new element. attributes: { class, id, type, ... }; onclick and the like are functions; style is an object of
// CSS properties; data is an object of data-* attributes; what is null, undefined or false is left out.
// children: elements, texts, numbers, arrays of those; null, undefined and false are left out.
export function element(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// The same for a drawing.
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// Puts other children into an element.
export function replace(parent, ...children) {
  parent.replaceChildren(...nodes(children));
  return parent;
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function" && name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) made[name] = value;
    else if (name === "style") for (const [key, part] of Object.entries(value)) made.style.setProperty(key, part);
    else if (name === "data") Object.assign(made.dataset, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...nodes(children));
  return made;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}
