// The tab Chat: one model, or two beside each other.

import { ask, AnswerView, newAnswer } from "./answer.js";
import { addAnswer, Conversation, shownAnswer } from "./conversation.js";
import { ModelChoice } from "./model_choice.js";
import { samplingForm } from "./sampling.js";

export const title = "Chat";

const KEPT = "conversation";

// Fills the tab, once. "#chat/NAME" opens a model.
export function mount(element, studio) {
  new Chat(element, studio);
}

class Chat {
  constructor(place, studio) {
    this.studio = studio;
    this.views = new WeakMap();  // of answers
    this.writing = new Map();  // answer -> how to stop it
    this.asTokens = false;
    this.conversation = this.#restored();
    this.sampling = samplingForm();
    const changed = () => this.#modelChanged();
    this.choices = [new ModelChoice(studio, "Model", false, changed), new ModelChoice(studio, "Beside it", true, changed)];
    this.#build(place);
    place.addEventListener("show", (event) => {
      for (const choice of this.choices) choice.reload();
      if (event.detail) this.choices[0].choose(event.detail);
      if (matchMedia("(hover: hover)").matches) this.input.focus({ preventScroll: true });  // a phone would show its keyboard
    });
    this.#draw();
  }

  #build(place) {
    const { element, replace } = this.studio;
    const plain = (text, onclick, attributes) => element("button", { type: "button", onclick, ...attributes }, text);
    this.tokensButton = plain("Tokens", () => this.#toggleTokens(), { "aria-pressed": "false", title: "Show each token with its probability" });
    this.settings = element("details", { class: "settings" }, element("summary", null, "Sampling"), this.sampling.form);
    const bar = element("section", { class: "card toolbar" },
      element("div", { class: "row" }, this.choices.map((choice) => choice.element)),
      this.choices.map((choice) => choice.about), this.settings);
    this.transcript = element("div", { class: "transcript", role: "log", "aria-label": "Conversation", "aria-live": "off" });
    this.input = element("textarea", { rows: 2, "aria-label": "Message", placeholder: "Write a message. Enter sends it, Shift+Enter begins a line.",
      onkeydown: (event) => this.#key(event), oninput: () => fit(this.input) });
    this.send = element("button", { type: "submit", class: "primary" }, "Send");
    this.stop = plain("Stop", () => this.#stopAll(), { title: "Escape does the same", data: { key: "stop" } });
    const composer = element("form", { class: "composer", onsubmit: (event) => { event.preventDefault(); this.#submit(); } },
      this.input, element("div", { class: "row" }, plain("New chat", () => this.#begin()), this.tokensButton, element("span", { class: "grow" }), this.stop, this.send));
    replace(place, element("h1", { class: "hidden-text" }, "Chat"), bar, this.transcript, composer);
    place.addEventListener("keydown", (event) => { if (event.key === "Escape" && this.writing.size) this.#stopAll(); });
  }

  get lanes() { return this.choices[1].name ? 2 : 1; }

  // Draws the conversation anew; views of answers stay as they are.
  #draw() {
    const { element, replace } = this.studio, focused = document.activeElement?.dataset?.key;
    const turns = this.conversation.path(), hidden = this.conversation.hidden();
    this.transcript.classList.toggle("beside", this.lanes > 1);
    const more = hidden ? element("p", { class: "detail" }, "Ask something else here, or ",
      element("button", { type: "button", class: "plain", onclick: () => { this.conversation.goOn(); this.#draw(); } }, "go on as before")) : null;
    const empty = turns.length ? null : element("p", { class: "soft empty" }, this.#hint());
    replace(this.transcript, empty, turns.map((turn, at) => this.#turn(turn, at)), more);
    this.stop.hidden = !this.writing.size;
    this.send.disabled = this.writing.size > 0 || !this.choices[0].isReady || !this.choices.at(this.lanes - 1).isReady;
    if (focused) this.transcript.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  #hint() {
    const { reads } = this.choices[0].model ?? {};
    if (reads === "text") return "This model was not trained to chat: it continues what you write.";
    if (reads === "message") return "This model reads one message at a time, in the words of its run.";
    return reads ? "Ask the model something." : "Choose a model.";
  }

  #turn(turn, at) {
    const { element } = this.studio, lanes = Array.from({ length: this.lanes }, (_, lane) => lane);
    const text = element("div", { class: "text" }, turn.text);
    const place = this.conversation.place(turn), busy = this.writing.size > 0;
    const edit = this.#button("Edit", `edit-${at}`, busy, () => this.#editTurn(turn, at));
    const steps = this.#steps(place, `turn-${at}`, busy, (step) => this.conversation.move(turn, step), "message");
    const asked = element("div", { class: "asked", id: `turn-${at}` }, text, element("div", { class: "row actions" }, steps, edit));
    return element("article", { class: "turn" }, asked, element("div", { class: "answers" }, lanes.map((lane) => this.#answer(turn, at, lane))));
  }

  #answer(turn, at, lane) {
    const { element } = this.studio, answer = shownAnswer(turn, lane), place = turn.lanes[lane];
    if (!place || !answer) return element("section", { class: "card detail" }, "Asked later: from the next message on it has read what is beside.");
    const view = this.#view(answer), busy = this.writing.size > 0, key = `${at}-${lane}`;
    const actions = answer.state === "writing" ? [] : [
      this.#steps({ at: place.at, of: place.versions.length }, `answer-${key}`, busy, (step) => { place.at += step; }, "answer"),
      this.#button("Again", `again-${key}`, busy, () => this.#again(turn, lane), "Let the model answer once more; this answer stays as a branch"),
      this.#button("Edit", `edit-answer-${key}`, busy, () => this.#editAnswer(turn, at, lane), "Write it otherwise; the model reads it so from then on"),
      this.#button("Branch", `branch-${key}`, busy, () => this.#branch(turn), "Ask something else after this answer"),
    ];
    const head = element("div", { class: "row spread" }, element("h2", null, answer.model), element("div", { class: "row actions" }, actions));
    return element("section", { class: "card", "aria-label": `Answer of ${answer.model}` }, head, view.element);
  }

  #view(answer) {
    if (!this.views.has(answer)) {
      const view = new AnswerView(answer);
      view.showTokens(this.asTokens);
      this.views.set(answer, view);
    }
    return this.views.get(answer);
  }

  #button(text, key, disabled, onclick, help) {
    return this.studio.element("button", { type: "button", class: "plain", onclick, disabled, title: help, data: { key } }, text);
  }

  // ‹ 2/3 ›: among the branches at a place.
  #steps({ at, of }, key, busy, move, what) {
    if (of < 2) return null;
    const go = (step) => () => { move(step); this.#keep(); this.#draw(); };
    const arrow = (sign, step, word) => this.studio.element("button", { type: "button", class: "plain", "aria-label": `${word} ${what}`,
      disabled: busy || at + step < 0 || at + step >= of, onclick: go(step), data: { key: `${key}${sign}` } }, sign);
    return this.studio.element("span", { class: "steps" }, arrow("‹", -1, "Previous"), `${at + 1}/${of}`, arrow("›", 1, "Next"));
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    const text = this.input.value;  // as it is: a model that continues it reads its last space, too
    if (!text.trim() || this.send.disabled || !this.#settings()) return;
    this.input.value = "";
    fit(this.input);
    this.#write(this.conversation.add(text, this.lanes));
  }

  // The settings of sampling; null where one is no number that is allowed, which the form then says.
  #settings() {
    if (this.sampling.form.checkValidity()) return this.sampling.values();
    this.settings.open = true;
    this.sampling.form.reportValidity();
    return null;
  }

  // Lets all lanes answer a turn, or some.
  async #write(turn, lanes = Array.from({ length: this.lanes }, (_, lane) => lane)) {
    const settings = this.#settings();
    if (!settings) return;
    this.studio.notice(null);
    const asked = lanes.map((lane) => this.#ask(turn, lane, settings));
    this.#draw();
    this.#toEnd(true);
    await Promise.all(asked);
    this.#keep();
    this.#draw();
    this.#toEnd();
  }

  async #ask(turn, lane, { system, body }) {
    const model = this.choices[lane].model, answer = newAnswer(model.name);
    const messages = this.conversation.messages(turn, lane, system);
    addAnswer(turn, lane, answer);
    const view = this.#view(answer);
    const stream = ask(answer, model, messages, body, (tokens) => { view.update(tokens); this.#toEnd(); });
    this.writing.set(answer, stream.stop);
    await stream.done;
    this.writing.delete(answer);
    view.draw();
    if (answer.param && this.sampling.fault(answer.param, answer.error)) this.settings.open = true;
  }

  #stopAll() {
    for (const stop of this.writing.values()) stop();
    this.input.focus();
  }

  #again(turn, lane) {
    if (this.choices[lane].isReady) this.#write(turn, [lane]);
    else this.studio.notice("Choose a model first.");
  }

  #branch(turn) {
    this.conversation.endAt(turn);
    this.#draw();
    this.input.focus();
  }

  #editTurn(turn, at) {
    this.#editor(this.transcript.querySelector(`#turn-${at}`), turn.text, "Send", (text) => this.#write(this.conversation.edit(turn, text, this.lanes)));
  }

  #editAnswer(turn, at, lane) {
    const answer = shownAnswer(turn, lane);
    this.#editor(this.#view(answer).body, answer.text, "Keep", (text) => {
      addAnswer(turn, lane, { ...newAnswer(answer.model), text, state: "edited" });
      this.#keep();
      this.#draw();
    });
  }

  // A field with a text in place of what an element holds. use(text) where the person changed it.
  #editor(place, text, word, use) {
    const { element, replace } = this.studio;
    const back = () => { for (const turn of this.conversation.path()) turn.lanes.forEach((_, lane) => shownAnswer(turn, lane) && this.#view(shownAnswer(turn, lane)).draw()); this.#draw(); this.input.focus(); };
    const input = element("textarea", { value: text, "aria-label": "Edit", onkeydown: (event) => {
      if (event.key === "Escape") { event.stopPropagation(); back(); }
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); done(); }
    }, oninput: () => fit(input) });
    const done = () => { const changed = input.value; back(); if (changed.trim()) use(changed); };
    replace(place, element("div", { class: "editor" }, input, element("div", { class: "row end" },
      element("button", { type: "button", onclick: back }, "Cancel"), element("button", { type: "button", class: "primary", onclick: done }, word))));
    fit(input);
    input.focus();
  }

  #toggleTokens() {
    this.asTokens = !this.asTokens;
    this.tokensButton.setAttribute("aria-pressed", String(this.asTokens));
    for (const turn of this.conversation.path()) turn.lanes.forEach((_, lane) => shownAnswer(turn, lane) && this.#view(shownAnswer(turn, lane)).showTokens(this.asTokens));
  }

  #begin() {
    this.#stopAll();
    this.conversation = new Conversation();
    this.#keep();
    this.#draw();
  }

  #modelChanged() {
    this.sampling.advise(this.choices[0].model?.advised);
    this.#draw();
  }

  #toEnd(always = false) {
    const page = document.documentElement;
    if (always || page.scrollHeight - page.clientHeight - page.scrollTop < 160) page.scrollTop = page.scrollHeight;
  }

  // The conversation stays over a reload, in this tab of the browser.
  #keep() {
    for (const without of [[], ["top"], ["tokens"]]) {
      try {
        sessionStorage.setItem(KEPT, this.conversation.write(without));
        return;
      } catch {  // too long for the browser
      }
    }
    sessionStorage.removeItem(KEPT);
    this.studio.notice("This conversation is too long to be kept when the page is loaded again.");
  }

  #restored() {
    try {
      const text = sessionStorage.getItem(KEPT);
      return text ? Conversation.read(text) : new Conversation();
    } catch {  // of another version of the page
      return new Conversation();
    }
  }
}

// As many lines as the text has, to a limit.
function fit(input) {
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight + 2, 260)}px`;
}
