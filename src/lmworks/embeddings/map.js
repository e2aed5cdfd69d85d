// A group of the legend, pressed, dims all other points; pressed again, none.
const buttons = [...document.querySelectorAll(".groups button")];
buttons.forEach((button) => button.addEventListener("click", () => {
  const chosen = button.getAttribute("aria-pressed") === "true" ? null : button.dataset.group;
  buttons.forEach((other) => other.setAttribute("aria-pressed", String(other.dataset.group === chosen)));
  document.querySelectorAll(".map circle").forEach((point) => {
    point.classList.toggle("dim", chosen !== null && point.dataset.group !== chosen);
  });
}));
