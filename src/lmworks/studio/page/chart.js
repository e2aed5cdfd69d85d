// Small line charts, drawn as SVG; the same shapes as the curves of the reports.

import { element, replace, svg } from "./dom.js";
import { number } from "./format.js";

const HEIGHT = 240, LEFT = 54, RIGHT = 14, TOP = 12, BOTTOM = 34;

// Draws lines into an element, in place of what is there; call it again when there are more points or the width is
// another one.
// series: [{ name, points: [[x, y], …], faint: true for a thin line, dots: true to mark each point }]
// options: { x: name of the horizontal axis, y: name of the vertical one, label: what a screen reader says }
export function chart(place, series, options = {}) {
  const shown = series.map((line, index) => ({ ...line, index, points: line.points.filter(isDrawn) }));
  const points = shown.flatMap((line) => line.points);
  if (!points.length) {
    replace(place, element("p", { class: "soft" }, "No points yet."));
    return;
  }
  const width = Math.max(place.clientWidth || 640, 240);
  const scale = scaleOf(points, width);
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", tabindex: "0", class: "chart" },
    svg("title", null, options.label ?? shown.map((line) => line.name).join(", ")),
    axes(scale, width, options),
    shown.map((line) => drawLine(line, scale)),
  );
  const legend = shown.map((line) =>
    element("li", null, element("span", { class: `key series-${line.index % 10}${line.faint ? " faint" : ""}` }), line.name),
  );
  const say = element("p", { class: "say soft", "aria-live": "polite" }, summary(shown));
  replace(place, element("figure", null, drawing, element("ul", { class: "legend" }, legend), say));
  readPoints(drawing, shown, scale, say, options);
}

const isDrawn = ([x, y]) => Number.isFinite(x) && Number.isFinite(y);

function scaleOf(points, width) {
  const range = (values) => {
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    return low === high ? [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05] : [low, high];
  };
  const [x0, x1] = range(points.map(([x]) => x)), [y0, y1] = range(points.map(([, y]) => y));
  return {
    x0, x1, y0, y1,
    x: (value) => LEFT + ((value - x0) / (x1 - x0)) * (width - LEFT - RIGHT),
    y: (value) => HEIGHT - BOTTOM - ((value - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM),
  };
}

// Round numbers between two others.
export function ticks(low, high, most = 5) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((part) => part * power).find((part) => part >= rough);
  const made = [];
  for (let count = Math.ceil(low / step); count * step <= high + step * 1e-9; count += 1) made.push(count * step);
  return made;
}

function axes(scale, width, options) {
  const lines = ticks(scale.y0, scale.y1).map((value) => [
    svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: scale.y(value), y2: scale.y(value) }),
    svg("text", { x: LEFT - 8, y: scale.y(value) + 4, "text-anchor": "end" }, number(Number(value.toPrecision(12)))),
  ]);
  const below = ticks(scale.x0, scale.x1, width < 420 ? 3 : 6).map((value) =>
    svg("text", { x: scale.x(value), y: HEIGHT - BOTTOM + 17, "text-anchor": "middle" }, number(Number(value.toPrecision(12)))),
  );
  const names = [
    options.x ? svg("text", { x: width - RIGHT, y: HEIGHT - 3, "text-anchor": "end" }, options.x) : null,
    options.y ? svg("text", { x: LEFT, y: HEIGHT - 3 }, options.y) : null,
  ];
  return [lines, below, names];
}

function drawLine(line, scale) {
  const kind = `series-${line.index % 10}${line.faint ? " faint" : ""}`;
  const path = line.points.map(([x, y], at) => `${at ? "L" : "M"}${scale.x(x).toFixed(1)} ${scale.y(y).toFixed(1)}`).join("");
  const dots = line.dots || line.points.length === 1 ? line.points : [];
  return [
    svg("path", { class: kind, d: path }),
    dots.map(([x, y]) => svg("circle", { class: kind, cx: scale.x(x), cy: scale.y(y), r: 3.5 })),
  ];
}

function summary(lines) {
  return lines.filter((line) => line.points.length).map((line) => `${line.name} ${number(line.points.at(-1)[1])}`).join(" · ");
}

// Says the values under the pointer, or, by the arrow keys, those of one x after the other.
function readPoints(drawing, lines, scale, say, options) {
  const xs = [...new Set(lines.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b);
  const mark = svg("line", { class: "mark", y1: TOP, y2: HEIGHT - BOTTOM, x1: LEFT, x2: LEFT, visibility: "hidden" });
  drawing.append(mark);
  let at = xs.length - 1;
  const tell = () => {
    const x = xs[at], here = lines.map((line) => [line.name, line.points.find((point) => point[0] === x)]);
    const values = here.filter(([, point]) => point).map(([name, point]) => `${name} ${number(point[1])}`);
    for (const end of ["x1", "x2"]) mark.setAttribute(end, scale.x(x));
    mark.setAttribute("visibility", "visible");
    say.textContent = `${options.x ?? "x"} ${number(x)}: ${values.join(" · ")}`;
  };
  const rest = () => { mark.setAttribute("visibility", "hidden"); say.textContent = summary(lines); };
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect(), x = ((event.clientX - box.x) / box.width) * drawing.viewBox.baseVal.width;
    at = xs.reduce((best, value, index) => (Math.abs(scale.x(value) - x) < Math.abs(scale.x(xs[best]) - x) ? index : best), 0);
    tell();
  });
  drawing.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -xs.length, End: xs.length };
    if (!(event.key in moves)) return;
    event.preventDefault();
    at = Math.min(Math.max(at + moves[event.key], 0), xs.length - 1);
    tell();
  });
  drawing.addEventListener("pointerleave", rest);
  drawing.addEventListener("blur", rest);
}
