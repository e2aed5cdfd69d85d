// The tab Runs: the list, cards beside each other with the difference of their recipes, and the pages in a frame.

export const title = "Runs";

const MOST_BESIDE = 6, REFRESH = 5000;  // cards; milliseconds while a run is going

// Fills the tab, once. "#runs" is the list, "#runs/page/NAME" the page of a run or comparison, "#runs/beside/NAMES" cards.
export function mount(element, studio) {
  const tab = new Runs(element, studio);
  element.addEventListener("show", (event) => tab.show(event.detail));
}

class Runs {
  constructor(place, studio) {
    Object.assign(this, { place, studio, listed: { runs: [], groups: [], faults: [] }, chosen: new Set(), words: "", state: "", address: null });
  }

  async show(address) {
    this.address = address;
    document.documentElement.scrollTop = 0;
    const [kind, ...rest] = address.split("/"), name = rest.join("/");
    if (kind === "page") this.#page(name);
    else if (kind === "beside") await this.#beside(name.split(",").map(decodeURIComponent));
    else await this.#list();
  }

  async #list() {
    const { element, replace } = this.studio;
    this.table = element("div", { class: "scroll" });
    this.count = element("p", { class: "detail", "aria-live": "polite" });
    this.compare = element("button", { type: "button", class: "primary", onclick: () => this.#goBeside() });
    const words = element("input", { type: "search", value: this.words, placeholder: "model, data, method, name …", oninput: () => { this.words = words.value; this.#draw(); } });
    const states = ["", "finished", "running", "resumable", "interrupted"].map((state) => element("option", { value: state, selected: state === this.state }, state || "all"));
    const state = element("select", { onchange: () => { this.state = state.value; this.#draw(); } }, states);
    replace(this.place, element("h1", { class: "hidden-text" }, "Runs"),
      element("section", { class: "card row" }, element("label", { class: "field grow" }, element("span", null, "Filter"), words),
        element("label", { class: "field" }, element("span", null, "State"), state), this.compare),
      this.count, this.table);
    await this.#reload();
  }

  // Asks the server again, and does so as long as a run is going and the list is shown.
  async #reload() {
    const { address } = this;
    this.listed = await this.studio.get("/studio/api/runs");
    if (this.address !== address) return;
    for (const name of this.chosen) if (!this.listed.runs.some((run) => run.name === name)) this.chosen.delete(name);
    this.#draw();
    clearTimeout(this.timer);
    if (this.listed.runs.some((run) => run.state === "running")) this.timer = setTimeout(() => { if (this.#isShown(address)) this.#reload(); }, REFRESH);
  }

  #isShown(address) { return this.address === address && !this.place.hidden && this.table.isConnected; }

  #draw() {
    const { element, replace } = this.studio, { groups, faults } = this.listed;
    const runs = this.listed.runs.filter((run) => this.#fits(run)), all = this.listed.runs.length;
    const heads = ["", "run", "started", "model", "data", "method, task", "state", "before → after", "size"];
    const head = element("tr", null, heads.map((name) => element("th", { scope: "col" }, name || element("span", { class: "hidden-text" }, "compare"))));
    const table = runs.length ? element("table", { class: "runs" }, element("thead", null, head), element("tbody", null, runs.map((run) => this.#row(run)))) : null;
    const none = all ? "No run fits the filter." : "No runs here yet: begin one in the tab Start, or with lmworks tune.";
    const shown = groups.filter((group) => this.#holds([group.name, group.title, group.kind]));
    const comparisons = shown.length && !this.state ? element("section", { class: "groups" }, element("h2", null, "Comparisons and ladders"), element("ul", null, shown.map((group) => this.#group(group)))) : null;
    const unread = faults.length ? element("section", { class: "card warning" }, element("h2", null, "Cannot be read"), element("ul", null, faults.map((fault) => element("li", null, fault)))) : null;
    replace(this.table, table ?? element("p", { class: "soft empty" }, none), comparisons, unread);
    this.count.textContent = runs.length === all ? `${all} run${all === 1 ? "" : "s"}` : `${runs.length} of ${all} runs`;
    this.#drawCompare();
  }

  #drawCompare() {
    const count = this.chosen.size;
    this.compare.textContent = count > 1 ? `Side by side (${count})` : "Side by side";
    this.compare.disabled = count < 2 || count > MOST_BESIDE;
    this.compare.title = count > MOST_BESIDE ? `At most ${MOST_BESIDE}` : "Choose two runs or more";
  }

  #holds(texts) {
    const all = texts.join(" ").toLowerCase();
    return this.words.toLowerCase().split(/\s+/).every((word) => all.includes(word));
  }

  #fits(run) {
    if (this.state && run.state !== this.state) return false;
    return this.#holds([run.name, run.model, run.data, run.method, run.task, run.state]);
  }

  #row(run) {
    const { element, format } = this.studio, cell = (label, ...content) => element("td", { data: { label } }, ...content);
    const box = element("input", { type: "checkbox", checked: this.chosen.has(run.name), "aria-label": `Compare ${run.name}`,
      onchange: () => { if (box.checked) this.chosen.add(run.name); else this.chosen.delete(run.name); this.#drawCompare(); } });
    const state = [run.state, run.progress].filter(Boolean).join(", ");
    return element("tr", null, element("td", { class: "box" }, box),
      element("th", { scope: "row" }, this.#link(`page/${run.name}`, run.name)),
      cell("started", format.date(run.started)), cell("model", short(run.model)), cell("data", short(run.data)),
      cell("method, task", [run.method, run.task].filter(Boolean).join(", ")),
      cell("state", element("span", { class: `verdict ${run.state}` }, state)),
      cell("before → after", this.#headline(run.headline)), cell("size", format.bytes(run.bytes)));
  }

  #headline(headline) {
    const { element, format } = this.studio;
    if (!headline) return format.UNKNOWN;
    const figures = `${headline.name} ${format.number(headline.before)} → ${format.number(headline.after)} `;
    const { verdict } = headline;
    return [figures, ["better", "worse"].includes(verdict) ? element("span", { class: `verdict ${verdict}` }, verdict) : null];
  }

  #group(group) {
    const { element } = this.studio;
    return element("li", null, this.#link(`page/${group.name}`, group.name), ` ${group.kind} ${group.kind === "ladder" ? "" : "of "}${group.title}`);
  }

  #link(rest, text) {
    return this.studio.element("a", { href: `#runs/${rest.split("/").map(encodeURIComponent).join("/")}` }, text);
  }

  #back() {
    return this.#link("", "← All runs");
  }

  // The page of a run, comparison or ladder, in a frame that can run its own script and reach nothing.
  #page(name) {
    const { element, replace, show } = this.studio;
    const source = `/studio/api/runs/page?name=${encodeURIComponent(name)}`;
    const frame = element("iframe", { src: source, title: `Report of ${name}`, sandbox: "allow-scripts" });
    const talk = element("button", { type: "button", onclick: () => show("chat", name) }, "Chat with it");
    replace(this.place, element("div", { class: "row spread above" }, this.#back(), element("h1", { class: "name" }, name), talk), frame);
  }

  #goBeside() {
    this.studio.show("runs", `beside/${[...this.chosen].map(encodeURIComponent).join(",")}`);
  }

  async #beside(names) {
    const { element, replace, get } = this.studio;
    replace(this.place, this.#back(), element("p", { class: "soft" }, "Reading …"));
    const { cards, differences } = await get(`/studio/api/runs/cards?${names.map((name) => `name=${encodeURIComponent(name)}`).join("&")}`);
    const curves = element("section", { class: "card" });
    replace(this.place, this.#back(), element("h1", { class: "name" }, `${cards.length} runs side by side`),
      this.#differences(cards, differences), this.#measures(cards), curves, this.#facts(cards));
    this.#curves(curves, cards);
  }

  #heads(first, cards) {
    const { element } = this.studio;
    const names = cards.map((card, at) => element("th", { scope: "col" }, element("span", { class: `key series-${at}` }), this.#link(`page/${card.name}`, card.name)));
    return element("thead", null, element("tr", null, element("th", { scope: "col" }, first), names));
  }

  #section(heading, cards, first, rows, none) {
    const { element } = this.studio;
    const table = element("div", { class: "scroll", tabindex: "0" }, element("table", { class: "besides" }, this.#heads(first, cards), element("tbody", null, rows)));
    return element("section", { class: "card" }, element("h2", null, heading), rows.length ? table : element("p", { class: "soft" }, none));
  }

  #differences(cards, differences) {
    const { element, format } = this.studio;
    const rows = differences.map(({ setting, values }) => element("tr", null, element("th", { scope: "row", class: "mono" }, setting),
      values.map((value) => element("td", { class: "mono" }, value ?? format.UNKNOWN))));
    return this.#section("What their recipes differ in", cards, "setting", rows, "Their recipes are the same.");
  }

  #measures(cards) {
    const { element, format } = this.studio, measures = new Map();
    for (const card of cards) for (const measure of card.measures) if (!measures.has(measure.key)) measures.set(measure.key, measure);
    const rows = [...measures.values()].map((measure) => {
      const own = cards.map((card) => card.measures.find((other) => other.key === measure.key));
      const after = own.map((other) => other?.after?.value).filter((value) => typeof value === "number");
      const best = measure.better === "lower" ? Math.min(...after) : Math.max(...after);
      const cells = own.map((other) => this.#figure(other, other?.after?.value === best && new Set(after).size > 1));
      return element("tr", null, element("th", { scope: "row" }, measure.title, measure.unit ? element("span", { class: "soft" }, `, ${measure.unit}`) : null), cells);
    });
    const note = rows.length ? element("p", { class: "detail" }, "Before → after; bold: the best of the row. Only figures of the same rows can be compared: see held-out rows below. Whether a difference is more than chance: lmworks compare.") : null;
    const section = this.#section("Figures", cards, "measure", rows, `None of them has figures yet (${format.UNKNOWN}).`);
    if (note) section.append(note);
    return section;
  }

  #figure(measure, isBest) {
    const { element, format } = this.studio;
    if (!measure) return element("td", null, format.UNKNOWN);
    const before = measure.before?.value, after = format.number(measure.after?.value);
    const shown = isBest ? element("b", null, after) : after;
    const verdict = ["better", "worse"].includes(measure.verdict) ? element("span", { class: `verdict ${measure.verdict}` }, measure.verdict) : null;
    return element("td", null, typeof before === "number" ? `${format.number(before)} → ` : null, shown, " ", verdict);
  }

  #facts(cards) {
    const { element, format } = this.studio, names = new Set(cards.flatMap((card) => card.facts.map(([name]) => name)));
    const rows = [...names].map((name) => element("tr", null, element("th", { scope: "row" }, name),
      cards.map((card) => element("td", null, card.facts.find(([other]) => other === name)?.[1] ?? format.UNKNOWN))));
    return this.#section("Facts", cards, "", rows, "");
  }

  #curves(place, cards) {
    const { element, chart } = this.studio, heldOut = cards.some((card) => card.curves.held_out.length > 1);
    const kind = heldOut ? "held_out" : "training", name = heldOut ? "held-out loss" : "training loss";
    const drawing = element("div");
    place.append(element("h2", null, heldOut ? "Held-out loss" : "Training loss"), drawing);
    chart(drawing, cards.map((card) => ({ name: card.name, points: card.curves[kind], dots: heldOut })), { x: "step", y: name, label: `${name} by step` });
  }
}

// Of a path its last part.
const short = (source) => (source ? String(source).replace(/[\\/]+$/, "").split(/[\\/]/).pop() : "–");
