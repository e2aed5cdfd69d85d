// A run that is followed: its curves as they grow, how far it is, what it says; stop, resume, its report.

const PAUSE = 1000, LONG_PAUSE = 5000;  // milliseconds between two looks; the long one where the server does not answer
const MOST_DRAWN = 600, MOST_SAID = 200_000;  // points of a drawn line; characters of the output that are kept

export class Watch {
  constructor(studio) {
    Object.assign(this, { studio, run: null, timer: null });
    const { element } = studio;
    this.node = element("div", { class: "watch" });
  }

  async enter(run) {
    const { element, replace } = this.studio;
    this.run = run;
    this.begin();
    this.head = element("div", { class: "row spread above" });
    this.fault = element("p", { class: "bad failure", hidden: true });
    this.bar = element("progress", { "aria-label": "progress", hidden: true });
    this.stage = element("p", { class: "soft stage", "aria-live": "polite" }, "Reading …");
    this.table = element("div", null);
    this.losses = element("div", { class: "losses" });
    this.rates = element("div", { class: "rates" });
    this.ratesPart = element("details", { class: "card", ontoggle: () => this.#drawRates() }, element("summary", null, "Learning rate"), this.rates);
    this.curves = element("section", { class: "card", hidden: true }, (this.curvesTitle = element("h2", null, "Loss")), this.losses);
    this.said = element("pre", { class: "said", tabindex: "0", "aria-label": "Output" });
    this.command = element("p", { class: "command" });
    this.output = element("details", { class: "card", open: true }, element("summary", null, "Output"), this.said, this.command);
    this.report = element("div", null);
    replace(this.node, this.head, this.fault, this.bar, this.stage, this.table, this.curves, this.ratesPart, this.report, this.output);
    await this.#look();
  }

  leave() {
    clearTimeout(this.timer);
    this.run = null;
  }

  begin() {
    Object.assign(this, { journal: 0, place: 0, trial: "", points: { loss: [], held_out: [], after: [], learning_rate: [] }, progress: {}, shown: null });
  }

  async #look() {
    const { run, studio } = this;
    clearTimeout(this.timer);
    const query = new URLSearchParams({ run, journal: this.journal, output: this.place, trial: this.trial });
    let news;
    try {
      news = await studio.get(`/studio/api/start/watch?${query}`);
    } catch (error) {
      if (this.run !== run) return;
      if (error.status === 0) this.timer = setTimeout(() => this.#look(), LONG_PAUSE);
      throw error;
    }
    if (this.run !== run) return;
    this.#take(news);
    if (news.state === "running") this.timer = setTimeout(() => this.#wait(), PAUSE);
  }

  // Looks again, once the page is seen.
  #wait() {
    if (document.hidden || !this.node.isConnected || this.node.closest("[hidden]")) this.timer = setTimeout(() => this.#wait(), PAUSE);
    else this.#look();
  }

  #take(news) {
    if (news.is_new) {
      this.points = { loss: [], held_out: [], after: [], learning_rate: [] };
      this.progress = {};
    }
    let grew = news.is_new;
    for (const [name, points] of Object.entries(news.points)) {
      this.points[name].push(...points);
      grew ||= points.length > 0;
    }
    Object.assign(this, { trial: news.trial, journal: news.journal, place: news.output, progress: { ...this.progress, ...news.progress } });
    this.#drawHead(news);
    this.#drawProgress(news);
    this.#drawTable(news.table);
    if (grew) this.#drawCurves();
    this.#drawOutput(news);
  }

  #drawHead(news) {
    const key = JSON.stringify([news.state, news.is_ours, news.stops]);
    if (key === this.shown) return;
    this.shown = key;
    const { element, replace, post, show } = this.studio;
    const act = (name) => async () => { await post(`/studio/api/start/${name}`, { run: this.run }); await this.#look(); };
    const buttons = [
      news.is_ours && element("button", { type: "button", onclick: act("stop") }, news.stops ? "Stop at once" : "Stop"),
      news.state === "stopped" && element("button", { type: "button", class: "primary", onclick: act("resume") }, "Resume"),
      news.state !== "failed" && element("button", { type: "button", "aria-expanded": "false", onclick: (event) => this.#toggleReport(event.target, news.kind) }, news.kind === "comparison" ? "Comparison page" : "Report card"),
      news.state === "finished" && news.kind === "run" && element("button", { type: "button", onclick: () => show("chat", this.run) }, "Chat with it"),
    ];
    const word = news.state === "running" && news.stops ? "stopping" : news.state;
    replace(this.head, element("a", { href: "#start" }, "← New run"), element("h1", { class: "name" }, this.run, " ", element("span", { class: `verdict ${news.state}` }, word)), element("div", { class: "row" }, buttons));
    if (this.report.childElementCount && news.state !== "running") this.#showReport(news.kind);
  }

  #drawProgress(news) {
    const { step, steps, stage } = this.progress, { format } = this.studio;
    const isComparison = news.kind === "comparison", total = isComparison ? news.about.steps : steps, done = isComparison ? news.about.step : step;
    this.bar.hidden = !total || news.state === "finished";
    if (total) Object.assign(this.bar, { max: total, value: done ?? 0 });
    const parts = [];
    if (total) parts.push(`${format.number(done ?? 0)} of ${format.number(total)} ${isComparison ? "contenders" : "steps"}`);
    if (isComparison && this.trial && news.state === "running") parts.push(this.trial);
    if (news.state === "running") parts.push(stage ?? "opening model and data");
    const { model, data, method, task } = news.about;
    if (model) parts.unshift(`${model} on ${data}`, ...[method, task].filter(Boolean));
    this.stage.textContent = parts.join(" · ");
    this.fault.hidden = !news.failure;
    this.fault.textContent = news.failure;
  }

  #drawTable(table) {
    const { element, replace } = this.studio;
    if (!table) return;
    const head = element("tr", null, table.heads.map((name, at) => element("th", { scope: "col", class: at ? "figure" : null }, name)));
    const rows = table.rows.map(([name, ...cells]) => element("tr", null, element("th", { scope: "row" }, name), cells.map((cell) => element("td", { class: "figure" }, cell))));
    const said = table.recommendation.map((line) => element("p", null, line));
    replace(this.table, element("section", { class: "card" }, element("h2", null, "Contenders so far"), said, element("div", { class: "scroll", tabindex: "0" }, element("table", null, element("thead", null, head), element("tbody", null, rows)))));
  }

  #drawCurves() {
    const { loss, held_out: during, after } = this.points;
    this.curves.hidden = !loss.length && !during.length;
    this.curvesTitle.textContent = this.trial ? `Loss of ${this.trial}` : "Loss";
    this.ratesPart.hidden = !this.points.learning_rate.length;
    if (this.curves.hidden) return;
    const mean = means(loss), heldOut = during.some(([step]) => step > 0) ? during : [...during, ...after];
    const series = [{ name: "each step", points: thinned(loss), faint: true }, { name: `mean of ${mean.width} steps`, points: thinned(mean.points) }, { name: "held out", points: heldOut, dots: true }];
    this.studio.chart(this.losses, series.filter(({ points }) => points.length), { x: "step", y: "loss", label: "Training and held-out loss by step" });
    this.#drawRates();
  }

  #drawRates() {
    if (!this.ratesPart.open || !this.points.learning_rate.length) return;
    this.studio.chart(this.rates, [{ name: "learning rate", points: thinned(this.points.learning_rate) }], { x: "step", label: "Learning rate by step" });
  }

  #drawOutput(news) {
    const { element, replace } = this.studio;
    if (news.text) {
      const atEnd = this.said.scrollTop + this.said.clientHeight >= this.said.scrollHeight - 20;
      const text = this.said.textContent + news.text;
      this.said.textContent = text.length > MOST_SAID ? text.slice(-MOST_SAID) : text;
      if (atEnd) this.said.scrollTop = this.said.scrollHeight;
    }
    this.output.hidden = !this.said.textContent && !news.command;
    replace(this.command, news.command && element("code", { tabindex: "0", "aria-label": "Command line" }, news.command));
  }

  #toggleReport(button, kind) {
    const isShown = this.report.childElementCount > 0;
    button.setAttribute("aria-expanded", String(!isShown));
    if (isShown) this.studio.replace(this.report);
    else this.#showReport(kind);
  }

  // The report or comparison as it stands now, in a frame that can run its own script and reach nothing.
  #showReport(kind) {
    const { element, replace } = this.studio, source = `/studio/api/runs/page?name=${encodeURIComponent(this.run)}`;
    const frame = element("iframe", { src: source, title: `${kind === "comparison" ? "Comparison" : "Report card"} of ${this.run}`, sandbox: "allow-scripts" });
    replace(this.report, frame);
    frame.scrollIntoView({ block: "start" });
  }
}

// Some points at equal distances, the last among them.
function thinned(points) {
  const every = Math.ceil(points.length / MOST_DRAWN) || 1;
  return points.filter((_, at) => (points.length - 1 - at) % every === 0);
}

// The running mean of a noisy curve, of about a twentieth of its points; none of a few points.
function means(points) {
  const reach = Math.max(Math.floor(points.length / 40), 1), sums = [0];
  for (const [, value] of points) sums.push(sums.at(-1) + value);
  const mean = ([step], at) => {
    const begin = Math.max(at - reach, 0), end = Math.min(at + reach + 1, points.length);
    return [step, (sums[end] - sums[begin]) / (end - begin)];
  };
  return { width: 2 * reach + 1, points: points.length > 2 * reach + 1 ? points.map(mean) : [] };
}
