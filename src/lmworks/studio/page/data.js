// The tab Data: a file as a model sees it, token by token; what carries loss, what is cut; problems by row.

import { choice, field, nameInput, settingFields } from "./fields.js";

export const title = "Data";

const PAGE = 3;  // examples that are shown at a time
const STATES = {
  given: "read, without loss", loss: "carries loss", masked: "hidden by a mask", replaced: "hidden by another token",
  left: "hidden, but left as it is", tag: "its tag is learned", answer: "a part of the answer",
};
const TITLES = { data: "Reading and writing rows", task: "Settings of the task" };

// Fills the tab, once. "#data/NAME" shows the file NAME.
export function mount(place, studio) {
  const tab = new Data(place, studio);
  place.addEventListener("show", (event) => tab.show(event.detail));
}

class Data {
  constructor(place, studio) {
    Object.assign(this, { place, studio, first: 0, seed: 0, asked: 0, isListed: false });
    const { element, replace } = studio;
    this.data = nameInput(studio, { placeholder: "a file, or python-help", required: true });
    this.model = nameInput(studio, { placeholder: "smollm2-135m-instruct", required: true });
    this.task = choice(studio, "what suits rows and model", () => {});
    this.settings = settingFields(studio, TITLES);
    this.result = element("div", { class: "result" });
    this.button = element("button", { type: "submit", class: "primary" }, "Show");
    replace(place, element("h1", { class: "hidden-text" }, "Data"), this.#form(), this.result);
  }

  async show(name) {
    if (!this.isListed) await this.#list();
    if (name && name !== this.data.input.value) {
      this.data.input.value = name;
      if (this.model.input.value) await this.#ask(0);
    }
  }

  async #list() {
    const { data, models, tasks, groups } = await this.studio.get("/studio/api/data/choices");
    this.data.offer(data);
    this.model.offer(models);
    this.task.offer(tasks);
    if (!this.isListed) this.settings.offer(groups);
    if (!this.model.input.value && models.length) this.model.input.value = models[0].name;
    this.isListed = true;
  }

  #form() {
    const { element } = this.studio;
    const file = element("input", { type: "file", class: "hidden-text", onchange: () => { this.#upload([...file.files]); file.value = ""; } });
    this.said = element("span", { class: "soft", "aria-live": "polite" }, "Drop a file here: it is copied into the folder data.");
    const drop = element("div", { class: "drop row" }, element("label", { class: "choose" }, file, element("span", { class: "button" }, "Choose a file")), this.said);
    for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
    for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => { event.preventDefault(); this.#upload([...event.dataTransfer.files]); });
    const fields = element("div", { class: "asked" }, field(this.studio, "Data", [this.data.input, this.data.list]),
      field(this.studio, "Model, whose tokenizer reads it", [this.model.input, this.model.list]), field(this.studio, "Task", this.task.select));
    const more = element("details", { class: "more" }, element("summary", null, "Settings"), this.settings.node);
    return element("form", { class: "card", onsubmit: (event) => { event.preventDefault(); this.#ask(0); } }, drop, fields, more, element("div", { class: "row end" }, this.button));
  }

  // Sends a dropped file, and shows it.
  async #upload(files) {
    if (files.length !== 1) {
      this.studio.notice(files.length ? "Drop one file at a time." : "There was no file in what was dropped.");
      return;
    }
    this.said.textContent = `Sending ${files[0].name}, ${this.studio.format.bytes(files[0].size)} …`;
    try {
      const { name, bytes } = await this.studio.post(`/studio/api/data/upload?name=${encodeURIComponent(files[0].name)}`, files[0]);
      this.said.textContent = `${name}, ${this.studio.format.bytes(bytes)}`;
      this.data.input.value = name;
      this.studio.notice(null);
      await this.#list();
    } catch (error) {
      this.said.textContent = `${files[0].name} was not taken.`;
      throw error;
    }
    if (this.model.input.value) await this.#ask(0);
  }

  async #ask(first) {
    const body = { model: this.model.input.value, data: this.data.input.value, task: this.task.select.value, settings: this.settings.values(), first, count: PAGE, seed: this.seed };
    const { element, replace, notice } = this.studio, number = (this.asked += 1);
    this.button.disabled = true;
    if (!this.result.childElementCount) replace(this.result, element("p", { class: "soft" }, "Reading …"));
    try {
      const shown = await this.studio.post("/studio/api/data/show", body);
      if (number !== this.asked) return;
      notice(null);
      this.first = shown.first;
      this.#draw(shown);
    } catch (error) {
      if (number === this.asked) replace(this.result);
      throw error;
    } finally {
      this.button.disabled = false;
    }
  }

  #draw(shown) {
    const { element, replace } = this.studio;
    const refusal = shown.refusal && element("section", { class: "card warning refusal" }, element("h2", null, "Training on this would be refused"), element("p", null, shown.refusal));
    replace(this.result, this.#counts(shown), refusal, this.#problems(shown), this.#notes(shown), this.#examples(shown));
  }

  #counts({ task, kind, template, counts, unusual }) {
    const { element, format } = this.studio;
    const share = counts.tokens ? format.percent(counts.loss_tokens / counts.tokens) : format.UNKNOWN;
    const tiles = [["rows", counts.rows, `of kind ${kind}`], ["examples", counts.examples, template], ["tokens", counts.tokens, `the longest has ${format.number(counts.longest)}`], ["with loss", counts.loss_tokens, share]];
    const tile = ([name, value, below]) => element("section", { class: "card tile" }, element("h2", null, name), element("div", { class: "value" }, format.number(value)), element("div", { class: "detail" }, below));
    const odd = unusual.map(([name, value]) => [element("dt", null, name), element("dd", null, format.number(value))]);
    return [
      element("p", { class: "task" }, element("b", null, task.name), ` ${task.learns}`),
      element("div", { class: "tiles" }, tiles.map(tile)),
      odd.length ? element("section", { class: "card" }, element("h2", null, "To look at"), element("dl", null, odd)) : null,
    ];
  }

  #problems({ problems, problem_count: all }) {
    if (!all) return null;
    const { element, format } = this.studio;
    const row = ({ place, text, example }) => element("tr", null, element("th", { scope: "row", class: "mono" }, place), element("td", null, text),
      element("td", { class: "figure" }, example === null ? null : element("button", { type: "button", class: "plain", onclick: () => this.#ask(example) }, "show")));
    const head = element("thead", null, element("tr", null, ["row", "problem", ""].map((name) => element("th", { scope: "col" }, name))));
    const more = all > problems.length ? element("p", { class: "detail" }, `the first ${format.number(problems.length)} of ${format.number(all)}`) : null;
    return element("section", { class: "card problems" }, element("h2", null, `Problems by row (${format.number(all)})`),
      element("div", { class: "scroll list", tabindex: "0" }, element("table", null, head, element("tbody", null, problems.map(row)))), more);
  }

  #notes({ notes, columns }) {
    const { element } = this.studio;
    const used = Object.entries(columns).map(([name, column]) => `${name}: ${column}`);
    const lines = [...(used.length ? [`columns: ${used.join(", ")}`] : []), ...notes];
    return lines.length ? element("section", { class: "card" }, element("h2", null, "How it was read"), element("ul", { class: "notes" }, lines.map((line) => element("li", null, line)))) : null;
  }

  #examples(shown) {
    const { element, format } = this.studio, { first, counts, task } = shown, last = Math.min(first + PAGE, counts.examples);
    const go = (to) => this.#ask(Math.max(0, Math.min(to, counts.examples - 1)));
    const number = element("input", { type: "number", min: 1, max: counts.examples, value: first + 1, class: "number", "aria-label": "First example", onchange: () => go(Number(number.value) - 1 || 0) });
    const button = (text, label, to, isOff) => element("button", { type: "button", "aria-label": label, disabled: isOff, onclick: () => go(to) }, text);
    const again = task.random ? element("button", { type: "button", onclick: () => { this.seed += 1; this.#ask(first); } }, "Sample again") : null;
    const pager = element("div", { class: "row pager" }, button("←", "Examples before", first - PAGE, first === 0), number,
      element("span", { class: "soft" }, `to ${format.number(last)} of ${format.number(counts.examples)}`), button("→", "Examples after", first + PAGE, last >= counts.examples), again);
    const states = new Set(shown.examples.flatMap(({ texts }) => texts.flatMap(({ tokens }) => tokens.map((token) => token[2]))));
    const legend = element("ul", { class: "legend" }, Object.entries(STATES).filter(([state]) => states.has(state)).map(([state, about]) => element("li", null, element("span", { class: `token ${state}` }, "token"), ` ${about}`)));
    if (!counts.examples) return null;
    return element("section", { class: "card examples" }, element("h2", null, "Examples, token by token"), pager, legend, shown.examples.map((example) => this.#example(example)));
  }

  #example({ index, place, size, dropped, labels, texts }) {
    const { element, format } = this.studio;
    const say = element("p", { class: "say soft", "aria-live": "polite" }, "");
    const facts = labels.map(([head, said]) => element("p", { class: "label" }, element("span", { class: "soft" }, `${head}: `), said));
    return element("article", null, element("h3", null, `${index + 1} `, element("span", { class: "soft" }, `${place} · ${size}`)), facts, texts.map((text) => this.#text(text, say)),
      dropped ? element("p", { class: "cut" }, `✂ ${format.number(dropped)} tokens more are cut off: the model does not see them`) : null, say);
  }

  // A text whose tokens tell what they are, under the pointer or one after the other by the arrow keys.
  #text({ title: name, tokens, more }, say) {
    const { element, format } = this.studio;
    const drawn = tokens.map(([, piece, state, target], at) => element("span", { class: `token ${state}`, data: { at } }, visible(piece), target === undefined ? null : element("span", { class: "target" }, `→${target}`)));
    let marked = -1;
    const tell = (at) => {
      drawn[marked]?.classList.remove("here");
      marked = at;
      drawn[at].classList.add("here");
      const [id, piece, state, target] = tokens[at];
      say.textContent = `${name ? `${name}, ` : ""}token ${at + 1}: ${JSON.stringify(piece)}, id ${format.number(id)}, ${STATES[state]}${target === undefined ? "" : `: ${target}`}`;
    };
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -tokens.length, End: tokens.length };
    const text = element("div", {
      class: "tokens", tabindex: "0", role: "group", "aria-label": `${name || "text"}: tokens, by the arrow keys`,
      onpointerover: (event) => { const span = event.target.closest(".token"); if (span) tell(Number(span.dataset.at)); },
      onkeydown: (event) => {
        if (!(event.key in moves) || !tokens.length) return;
        event.preventDefault();
        tell(Math.max(0, Math.min(marked + moves[event.key], tokens.length - 1)));
        drawn[marked].scrollIntoView({ block: "nearest" });
      },
    }, drawn);
    return [name ? element("h4", null, name) : null, text, more ? element("p", { class: "detail" }, `… and ${format.number(more)} more tokens`) : null];
  }
}

// A token with signs for what would not be seen.
function visible(piece) {
  return piece.replace(/\r/g, "␍").replace(/\n/g, "⏎\n").replace(/\t/g, "⇥") || "∅";
}
