// Chooses one of the models that are here, and opens it.

import { element, replace } from "./dom.js";

// A list of models. name: the one chosen, or ""; model: what the server says of it when it is open, else null;
// isReady: whether it can be asked. about: an element with what is to be known of it. changed() after each change.
export class ModelChoice {
  constructor(studio, label, isOptional, changed) {
    Object.assign(this, { studio, isOptional, changed, models: [], model: null, name: "" });
    this.select = element("select", { onchange: () => this.choose(this.select.value) });
    this.element = element("label", { class: "field choice" }, element("span", null, label), this.select);
    this.about = element("p", { class: "detail", "aria-live": "polite", hidden: true });
  }

  get isReady() { return this.model !== null && this.model.writes; }

  // Ask the server again which models there are; the first that is open is taken where none was chosen.
  async reload() {
    this.models = await this.studio.models();
    const open = this.models.find((model) => model.state === "open" && model.writes);
    this.#list();
    if (!this.name && !this.isOptional && open) await this.choose(open.name);
  }

  async choose(name) {
    this.name = name;
    this.model = null;
    this.#say(name ? `Opening ${name} …` : null);
    this.#list();
    this.changed();
    if (!name) return;
    try {
      const model = await this.studio.openModel(name);
      if (this.name !== name) return;  // another one was chosen meanwhile
      this.model = model;
      this.#tell();
    } catch (error) {
      if (this.name !== name) return;
      this.#say(error.message, true);
    }
    this.changed();
    this.models = await this.studio.models();
    this.#list();
  }

  async #close() {
    const { name } = this;
    await this.studio.post("/studio/api/models/close", { name });
    await this.choose("");
    await this.reload();
  }

  #tell() {
    const { model } = this;
    if (!model.writes) return this.#say(`${model.name} writes no texts: choose another model.`, true);
    const context = model.context === null ? "" : `, a context of ${this.studio.format.number(model.context)} tokens`;
    const close = element("button", { type: "button", class: "plain", onclick: () => this.#close(), title: "Free its memory" }, "Close");
    return this.#say([`${model.name} is open${context}. ${model.notes.map((note) => `${note}. `).join("")}`, close]);
  }

  #say(content, isBad = false) {
    this.about.hidden = content === null;
    this.about.classList.toggle("bad", isBad);
    replace(this.about, content);
  }

  #list() {
    const groups = { Open: [], "In the folder": [], "In the cache": [] };
    for (const model of this.models) {
      if (model.writes === false) continue;
      const group = model.state === "open" ? "Open" : model.kind === "in the cache" ? "In the cache" : "In the folder";
      groups[group].push(element("option", { value: model.name }, model.name));
    }
    const none = element("option", { value: "" }, this.isOptional ? "none" : "choose …");
    const parts = Object.entries(groups).filter(([, options]) => options.length);
    replace(this.select, none, parts.map(([label, options]) => element("optgroup", { label }, options)));
    if (this.name && ![...this.select.options].some((option) => option.value === this.name)) {
      this.select.append(element("option", { value: this.name }, this.name));
    }
    this.select.value = this.name;
  }
}
