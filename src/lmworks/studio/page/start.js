// The tab Start: a form for tune, pretrain and compare, the plan, and the runs that go on; a run is followed in watch.js.

import { choice, field, nameInput, settingFields } from "./fields.js";
import { Watch } from "./watch.js";

export const title = "Start";

const VERBS = { tune: "Adapt a model", pretrain: "Train a new model", compare: "Compare ways to adapt" };
const OFTEN = new Set(["train.epochs", "train.max_time", "train.learning_rate", "train.batch_size", "train.memory", "data.held_out", "budget", "seeds", "rates", "ngram.order", "tfidf.C", "model.num_hidden_layers", "model.hidden_size", "tokenizer.vocab_size"]);
const ORDER = ["often", "train", "data", "task", "evaluate"];  // of groups, before all others
const TITLES = { often: "Often used", train: "Training", data: "Data", task: "Settings of the task", evaluate: "Evaluation", model: "The new model", tokenizer: "Its tokenizer", "": "More" };
const REFRESH = 3000;  // milliseconds, while a run of the list is running

// Fills the tab, once. "#start" is the form, "#start/RUN" a run.
export function mount(place, studio) {
  const tab = new Start(place, studio);
  place.addEventListener("show", (event) => tab.show(event.detail));
}

class Start {
  constructor(place, studio) {
    Object.assign(this, { place, studio, verb: "tune", offered: null, planning: null, asked: 0 });
    const { element } = studio, changed = () => this.#changed();
    this.model = nameInput(studio, { placeholder: "smollm2-135m-instruct", onchange: () => this.#reform() });
    this.preset = choice(studio, null, () => this.#reform());
    this.data = nameInput(studio, { placeholder: "a file, or python-help", onchange: changed });
    this.name = element("input", { type: "text", placeholder: "by time and model", autocomplete: "off", spellcheck: "false", onchange: changed });
    this.method = choice(studio, null, () => { this.#showGroups(); this.#changed(); });
    this.contenders = element("div", { class: "contenders" });
    this.task = choice(studio, "what suits rows and model", changed);
    this.settings = settingFields(studio, TITLES);
    this.settings.onchange = changed;
    this.plan = element("div", { class: "plan", "aria-live": "polite" });
    this.runs = element("div", { class: "started" });
    this.form = element("div", null, this.#form(), this.plan, this.runs);
    this.watch = new Watch(studio);
  }

  async show(run) {
    this.watch.leave();
    if (run) {
      this.studio.replace(this.place, this.watch.node);
      await this.watch.enter(run);
      return;
    }
    this.studio.replace(this.place, heading(this.studio), this.form);
    if (!this.offered) {
      this.offered = await this.studio.get("/studio/api/start/choices");
      this.#offer();
      await this.#reform();
    } else {  // files may have come, by the tab Data for one
      this.offered = await this.studio.get("/studio/api/start/choices");
      this.#offer();
    }
    await this.#list();
  }

  #offer() {
    const { models, new_models: fresh, data } = this.offered;
    this.model.offer(models);
    this.preset.offer(fresh);
    this.data.offer(data);
    if (!this.model.input.value && models.length) this.model.input.value = models[0].name;
  }

  #form() {
    const { element } = this.studio;
    const radio = ([verb, text]) => element("label", null, element("input", { type: "radio", name: "verb", value: verb, checked: verb === this.verb, onchange: () => { this.verb = verb; this.#reform(); } }), element("span", null, text));
    this.places = {
      model: field(this.studio, "Model", [this.model.input, this.model.list]),
      preset: field(this.studio, "New model", this.preset.select),
      method: field(this.studio, "Method", this.method.select),
      contenders: element("details", { class: "which" }, element("summary", null, "Contenders: "), this.contenders),
    };
    this.about = element("p", { class: "detail about" });
    this.command = element("p", { class: "command" });
    this.planButton = element("button", { type: "button", onclick: () => this.#plan() }, "Plan");
    this.startButton = element("button", { type: "submit", class: "primary" }, "Start");
    return element("form", { class: "card", onsubmit: (event) => { event.preventDefault(); this.#begin(); } },
      element("fieldset", { class: "verbs row" }, element("legend", { class: "hidden-text" }, "What to do"), Object.entries(VERBS).map(radio)),
      element("div", { class: "asked" }, this.places.model, this.places.preset, field(this.studio, "Data", [this.data.input, this.data.list]),
        this.places.method, field(this.studio, "Task", this.task.select), field(this.studio, "Name of its folder", this.name)),
      this.about, this.places.contenders, this.settings.node, this.command, element("div", { class: "row end" }, this.planButton, this.startButton));
  }

  // The form of another verb or model.
  async #reform() {
    const { element, replace, get } = this.studio, { verb, places } = this, number = (this.reformed = (this.reformed ?? 0) + 1);
    places.model.hidden = verb === "pretrain";
    places.preset.hidden = verb !== "pretrain";
    places.contenders.hidden = verb !== "compare";
    const form = await get(`/studio/api/start/form?verb=${verb}&model=${encodeURIComponent(this.#model())}`);
    if (number !== this.reformed) return;
    places.method.hidden = verb === "compare" || !form.methods.length;
    this.task.offer(form.tasks);
    this.planButton.hidden = !form.plans;
    this.methods = form.methods;
    if (verb === "compare") {
      const box = ({ name, about }) => element("label", { title: about }, element("input", { type: "checkbox", value: name, onchange: () => { this.#tellContenders(); this.#changed(); } }), name);
      if (!this.contenders.childElementCount) replace(this.contenders, form.methods.map(box));
      this.#tellContenders();
    } else this.method.offer(form.methods);
    this.settings.offer(regrouped(form.groups));
    this.#showGroups();
    this.#changed();
  }

  #model() {
    return this.verb === "pretrain" ? this.preset.select.value : this.model.input.value.trim();
  }

  #chosen() {
    return [...this.contenders.querySelectorAll("input:checked")].map((box) => box.value);
  }

  #tellContenders() {
    const chosen = this.#chosen();
    this.places.contenders.querySelector("summary").textContent = `Contenders: ${chosen.length ? chosen.join(", ") : "all that suit the rows"}`;
  }

  // Only the chosen method's own settings are seen.
  #showGroups() {
    const method = this.method.select.value;
    this.settings.show((group) => !group.method || (this.verb !== "compare" && group.name === method));
    const about = (list, name) => list?.find((each) => each.name === name)?.about;
    const lines = this.verb === "pretrain" ? [about(this.offered?.new_models, this.#model())] : [];
    if (this.verb !== "compare" && method) lines.push(about(this.methods, method) && `${method}: ${about(this.methods, method)}`);
    this.about.textContent = lines.filter(Boolean).join(" · ");
  }

  #body() {
    const method = this.verb === "compare" ? this.#chosen().join(",") : this.places.method.hidden || this.method.select.selectedIndex === 0 ? "" : this.method.select.value;
    return { verb: this.verb, model: this.#model(), data: this.data.input.value, name: this.name.value, method, task: this.task.select.value, settings: this.settings.values() };
  }

  // The command line of the form, or what is wrong with it.
  async #changed() {
    this.#endPlan();
    const body = this.#body(), number = (this.asked += 1), { element, replace, post } = this.studio;
    if (!body.model || !body.data) {
      replace(this.command);
      return;
    }
    let said;
    try {
      const { command } = await post("/studio/api/start/command", body);
      said = element("code", { tabindex: "0", "aria-label": "Command line" }, command);
    } catch (error) {
      if (error.status === 0) throw error;
      said = element("span", { class: "bad" }, error.message);
    }
    if (number === this.asked) replace(this.command, said);
  }

  #endPlan() {
    this.planning?.stop();
    this.planning = null;
    this.studio.replace(this.plan);
  }

  async #plan() {
    this.#endPlan();
    const { element, replace, events, notice } = this.studio;
    const lines = element("pre", { class: "said" }, "");
    const stop = element("button", { type: "button", onclick: () => this.#endPlan() }, "Cancel");
    replace(this.plan, element("section", { class: "card" }, element("div", { class: "row spread" }, element("h2", null, "Planning …"), stop), lines));
    const planning = events("/studio/api/start/plan", this.#body(), (event) => {
      if (this.planning !== planning) return;
      if (event.line !== undefined) lines.append(`${event.line}\n`);
      else replace(this.plan, this.#planned(event));
    });
    this.planning = planning;
    try {
      await planning.done;
      notice(null);
    } catch (error) {
      if (this.planning === planning) replace(this.plan);
      throw error;
    }
  }

  #planned({ rows, notes, failure }) {
    const { element } = this.studio;
    if (failure !== undefined) return element("section", { class: "card warning" }, element("h2", null, "It would be refused"), element("p", { class: "failure" }, failure));
    const facts = rows.map(([name, text]) => {
      const { head, rest } = splitFact(text);
      return [element("dt", null, name), element("dd", null, element("b", null, head), rest && element("div", { class: "detail" }, rest))];
    });
    const listed = notes.length ? element("ul", { class: "notes" }, notes.map((note) => element("li", null, note))) : null;
    return element("section", { class: "card" }, element("h2", null, "The plan"), element("dl", { class: "facts" }, facts), listed);
  }

  async #begin() {
    const body = this.#body();
    this.startButton.disabled = true;
    try {
      const { run } = await this.studio.post("/studio/api/start/begin", body);
      this.#endPlan();
      this.name.value = "";
      this.studio.notice(null);
      this.studio.show("start", run);
    } finally {
      this.startButton.disabled = false;
    }
  }

  async #list() {
    const { element, replace, get } = this.studio;
    const { runs } = await get("/studio/api/start/runs");
    const none = element("p", { class: "soft" }, "None yet. Runs that are started here go on when this page or the server ends.");
    replace(this.runs, element("h2", null, "Started here, or going on"), runs.length ? runs.map((run) => this.#run(run)) : none);
    clearTimeout(this.timer);
    if (runs.some((run) => run.state === "running")) this.timer = setTimeout(() => { if (this.runs.isConnected && !this.place.hidden) this.#list(); }, REFRESH);
  }

  #run(run) {
    const { element, post, format } = this.studio, { model, data, method, step, steps } = run.about;
    const about = [model && `${short(model)} on ${short(data)}`, method, format.date(run.started)].filter(Boolean).join(" · ");
    const bar = run.state === "running" && steps ? element("progress", { max: steps, "aria-label": "progress" }) : null;
    if (bar) bar.value = step ?? 0;
    const act = (name) => async () => { await post(`/studio/api/start/${name}`, { run: run.run }); await this.#list(); };
    const button = (name, text) => element("button", { type: "button", onclick: act(name), "aria-label": `${text} ${run.run}` }, text);
    const buttons = [
      run.is_ours && button("stop", run.stops ? "Stop at once" : "Stop"),
      run.state === "stopped" && button("resume", "Resume"),
      run.command && !run.is_ours && run.state !== "running" && button("forget", "Take off the list"),
    ];
    const address = `#start/${run.run.split("/").map(encodeURIComponent).join("/")}`;
    return element("section", { class: "card run" },
      element("div", { class: "row spread" }, element("a", { href: address, class: "name" }, run.run), element("span", { class: `verdict ${run.state}` }, run.stops ? "stopping" : run.state)),
      element("p", { class: "detail" }, about), bar, run.failure && element("p", { class: "bad failure" }, run.failure), element("div", { class: "row end" }, buttons));
  }
}

const heading = (studio) => studio.element("h1", { class: "hidden-text" }, "Start");

const short = (source) => String(source ?? "").replace(/\/+$/, "").split("/").at(-1);

// Groups with the settings that are used most in one of their own, open, and the others in an order that suits people.
function regrouped(groups) {
  const often = groups.flatMap(({ fields }) => fields.filter(({ name }) => OFTEN.has(name)));
  const others = groups.map((group) => ({ ...group, fields: group.fields.filter(({ name }) => !OFTEN.has(name)) })).filter(({ fields }) => fields.length);
  const place = ({ name, method }) => (method ? 1 : ORDER.includes(name) ? ORDER.indexOf(name) + (name === "often" ? 0 : 1) : ORDER.length + 1);
  return [{ name: "often", method: false, open: true, fields: often }, ...others].filter(({ fields }) => fields.length).sort((a, b) => place(a) - place(b));
}

// "9 min: training 8 min, …" and "1.2 GB (weights …)" in what counts and what explains it.
function splitFact(text) {
  const at = text.search(/: | \(/);
  if (at < 0) return { head: text, rest: "" };
  return { head: text.slice(0, at), rest: text.slice(at).replace(/^: | ?\((?=.*\)$)/, "").replace(/\)$/, (end) => (text[at] === " " ? "" : end)) };
}
