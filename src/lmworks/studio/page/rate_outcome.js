// What a blind test came to: warnings, strengths, win rates, scores, agreement; preference pairs.

const API = "/studio/api/rate";
const WIDEST = 560, LINE = 34, LEFT = 10, RIGHT = 10;

// Gives open(name), which shows the results of a test.
export function mountOutcome(place, studio) {
  return async (name) => {
    const test = { test: name };
    const result = await studio.post(`${API}/outcome`, test);
    draw(place, studio, name, result);
  };
}

function draw(place, studio, name, result) {
  const { element } = studio;
  const said = element("span", { class: "detail", "aria-live": "polite" });
  const write = async () => {
    try {
      const { file, pairs } = await studio.post(`${API}/pairs`, { test: name });
      said.textContent = `${pairs} ${pairs === 1 ? "pair" : "pairs"} in ${file}`;
    } catch (error) {
      studio.notice(error);
    }
  };
  studio.replace(
    place,
    element("h1", null, name),
    element("p", { class: "soft" }, summary(result)),
    warnings(studio, result),
    strengths(studio, place, result),
    winRates(studio, result),
    scores(studio, result),
    agreement(studio, result),
    element(
      "div",
      { class: "row" },
      element("button", { type: "button", onclick: () => studio.show("rate", `blind/${name}`) }, "Go on rating"),
      element("button", { type: "button", onclick: write }, "Write preference pairs"),
      element("button", { type: "button", class: "plain", onclick: () => studio.show("rate") }, "All tests"),
      said,
    ),
  );
}

function summary({ progress, raters, first_shown }) {
  const by = Object.entries(raters).map(([rater, count]) => `${rater} ${count}`);
  const rest = [
    progress.skipped ? `${progress.skipped} skipped` : "",
    progress.identical ? `${progress.identical} with identical answers, which count as ties` : "",
    first_shown ? `the answer shown first was chosen ${first_shown.chosen} of ${first_shown.ratings} times` : "",
  ];
  return [`${progress.rated} of ${progress.prompts} prompts rated`, by.join(", "), ...rest].filter(Boolean).join(" · ");
}

function warnings(studio, { warnings }) {
  if (!warnings.length) return null;
  const { element } = studio;
  return element("section", { class: "card warning" }, element("h2", null, "Before you conclude"), element("ul", null, warnings.map((text) => element("li", null, text))));
}

const span = (low, high, digits = 2) => `${signed(low, digits)} … ${signed(high, digits)}`;
const signed = (value, digits = 2) => `${value < 0 && Number(value.toFixed(digits)) ? "−" : ""}${Math.abs(value).toFixed(digits)}`;
const rate = (value) => (value === null ? "–" : `${Math.round(value * 100)} %`);
const chance = (value) => (value < 0.001 ? "< 0.001" : value.toFixed(3));

function strengths(studio, place, { strengths }) {
  if (!strengths) return null;
  const { element } = studio;
  const rows = strengths.map(({ name, value, low, high }) => [name, signed(value), span(low, high)]);
  return section(
    studio,
    "Strengths",
    "Bradley-Terry: of two models the one that is stronger by 1 is preferred in 73 % of cases. 95 % intervals; a prompt counts once.",
    intervals(studio, strengths, Math.min(place.clientWidth - 44, WIDEST)),
    table(studio, ["Model", "Strength", "95 % interval"], rows),
  );
}

// Points with their intervals, one line each.
function intervals(studio, lines, width) {
  const { svg } = studio;
  const low = Math.min(0, ...lines.map((line) => line.low)), high = Math.max(0, ...lines.map((line) => line.high));
  const x = (value) => LEFT + ((value - low) / (high - low || 1)) * (width - LEFT - RIGHT);
  const height = lines.length * LINE + 6;
  const drawn = lines.map((line, number) => {
    const y = number * LINE + 24, kind = `series-${number % 10}`;
    const anchor = x(line.value) < width / 2 ? { x: x(line.low), "text-anchor": "start" } : { x: x(line.high), "text-anchor": "end" };
    return [
      svg("text", { ...anchor, y: y - 9 }, line.name),
      svg("path", { class: kind, d: `M${x(line.low).toFixed(1)} ${y}L${x(line.high).toFixed(1)} ${y}` }),
      svg("circle", { class: kind, cx: x(line.value), cy: y, r: 4.5 }),
    ];
  });
  const zero = svg("line", { class: "mark", x1: x(0), x2: x(0), y1: 0, y2: height });
  const label = lines.map((line) => `${line.name} ${signed(line.value)}`).join(", ");
  return svg("svg", { class: "chart intervals", viewBox: `0 0 ${width} ${height}`, width, height, role: "img" }, svg("title", null, label), zero, drawn);
}

function winRates(studio, { pairs }) {
  const decided = pairs.filter((pair) => pair.wins + pair.losses + pair.ties);
  if (!decided.length) return null;
  const rows = decided.map((pair) => [
    `${pair.first} against ${pair.second}`,
    `${pair.wins} : ${pair.losses}`,
    String(pair.ties),
    rate(pair.rate),
    pair.rate === null ? "–" : `${rate(pair.low)} … ${rate(pair.high)}`,
    chance(pair.adjusted_p_value),
  ]);
  const heads = ["Models", "Prompts won", "Ties", "Win rate", "95 % interval", "p"];
  const note = "Clopper-Pearson intervals and exact binomial tests against one half, ties left out; p after Holm's correction.";
  return section(studio, "Win rates", note, table(studio, heads, rows));
}

function scores(studio, { scores }) {
  const criteria = Object.entries(scores);
  if (!criteria.length) return null;
  const rows = criteria.flatMap(([criterion, contenders]) =>
    contenders.map((line, number) => [
      number ? "" : criterion,
      line.name,
      line.value.toFixed(2),
      span(...line.interval),
      line.adjusted_p_value === null ? "best" : chance(line.adjusted_p_value),
    ]),
  );
  const note = "Means from 1 to 5 over prompts; 95 % intervals by bootstrap; p: paired test beside the best, after Holm's correction.";
  return section(studio, "Scores", note, table(studio, ["Criterion", "Model", "Mean", "95 % interval", "p"], rows, 2));
}

function agreement(studio, { agreement }) {
  const known = Object.entries(agreement).filter(([, alpha]) => alpha !== null);
  if (!known.length) return null;
  const rows = known.map(([name, alpha]) => [name, signed(alpha.alpha), span(alpha.low, alpha.high), String(alpha.units)]);
  const note = "Krippendorff's alpha: 1 all agree, 0 as by chance; from 0.8 reliable, below 0.667 not.";
  return section(studio, "Agreement of raters", note, table(studio, ["Rated", "Alpha", "95 % interval", "Units"], rows));
}

function section(studio, name, note, ...parts) {
  const { element } = studio;
  return element("section", { class: "card" }, element("h2", null, name), element("p", { class: "detail" }, note), parts);
}

function table(studio, heads, rows, names = 1) {
  const { element } = studio;
  const kind = (place) => (place < names ? null : "figure");
  const head = heads.map((text, place) => element("th", { scope: "col", class: kind(place) }, text));
  const body = rows.map((row) => element("tr", null, row.map((text, place) => element("td", { class: kind(place) }, text))));
  return element("div", { class: "scroll" }, element("table", null, element("thead", null, element("tr", null, head)), element("tbody", null, body)));
}
