// One answer of a model: asking for it, and showing it while it comes.

import { events } from "./api.js";
import { element, replace } from "./dom.js";
import { number, seconds } from "./format.js";
import { markdown } from "./markdown.js";
import { TokenView, tokensOf } from "./tokens.js";

const ALTERNATIVES = 5;
const ENDS = { length: "cut: the longest answer or the end of the context was reached" };

// An answer that has not begun. state: writing, done, stopped, failed, edited.
export const newAnswer = (model) => ({ model, text: "", tokens: [], state: "writing", reason: null, error: null, first: null, all: null });

// Lets a model write an answer, event by event. model: as the server describes it; messages: what was said so far;
// body: settings of sampling. onChange(tokens) is called with what is new. Gives { done, stop }.
export function ask(answer, model, messages, body, onChange) {
  const begin = performance.now(), decoder = new TextDecoder();
  const { path, fields, textOf } = request(model, messages);
  const stream = events(path, { model: model.name, stream: true, ...fields, ...body }, (event) => {
    const choice = event.choices?.[0];
    if (!choice) return;
    const tokens = tokensOf(choice.logprobs, decoder), text = textOf(choice);
    const now = (performance.now() - begin) / 1000;
    if (tokens.length || text) {
      answer.first ??= now;
      answer.all = now;
    }
    answer.text += text;
    answer.tokens.push(...tokens);
    answer.reason = choice.finish_reason ?? answer.reason;
    onChange(tokens);
  });
  const done = stream.done.then(
    (isWhole) => { answer.state = isWhole ? "done" : "stopped"; },
    (error) => { answer.state = "failed"; answer.error = error.message; answer.param = error.param ?? null; },
  );
  return { done: done.then(() => onChange([])), stop: stream.stop };
}

// A model that was trained to chat reads all messages, one of a run the last alone, any other continues the text.
function request(model, messages) {
  if (model.reads === "text") {
    const texts = messages.filter((message) => message.role !== "system").map((message) => message.content);
    return { path: "/v1/completions", fields: { prompt: texts.join(""), logprobs: ALTERNATIVES }, textOf: (choice) => choice.text ?? "" };
  }
  const read = model.reads === "message" ? messages.slice(-1) : messages;
  const fields = { messages: read, logprobs: true, top_logprobs: ALTERNATIVES };
  return { path: "/v1/chat/completions", fields, textOf: (choice) => choice.delta?.content ?? "" };
}

// Shows an answer. update(tokens) after each change; showTokens(true) shows it token by token.
export class AnswerView {
  constructor(answer) {
    this.answer = answer;
    this.body = element("div", { class: "body" });
    this.foot = element("p", { class: "detail foot" });
    this.element = element("div", { class: "answer" }, this.body, this.foot);
    this.tokenView = new TokenView();
    this.tokenView.add(answer.tokens);
    this.asTokens = false;
    this.isDrawn = true;
    this.draw();
  }

  update(tokens) {
    this.tokenView.add(tokens);
    if (this.asTokens && this.answer.state === "writing") { this.drawFoot(); return; }
    if (!this.isDrawn) return;
    this.isDrawn = false;  // several tokens of one frame are drawn together
    requestAnimationFrame(() => { this.isDrawn = true; this.draw(); });
  }

  showTokens(asTokens) {
    this.asTokens = asTokens;
    this.draw();
  }

  draw() {
    const { answer } = this, isWriting = answer.state === "writing";
    this.element.setAttribute("aria-busy", String(isWriting));
    if (this.asTokens && answer.tokens.length) replace(this.body, this.tokenView.element);
    else replace(this.body, markdown(answer.text), isWriting ? element("span", { class: "caret", "aria-hidden": "true" }) : null);
    this.drawFoot();
  }

  drawFoot() {
    const { answer } = this, count = answer.tokens.length;
    if (answer.state === "failed") {
      replace(this.foot, element("span", { class: "bad", role: "alert" }, answer.error));
      return;
    }
    const speed = count > 1 && answer.all > answer.first ? (count - 1) / (answer.all - answer.first) : null;
    const parts = [
      count ? `${number(count)} token${count > 1 ? "s" : ""}` : null,
      speed ? `${number(speed)} tokens/s` : null,
      answer.first !== null ? `first token after ${seconds(answer.first)}` : null,
      answer.state === "stopped" ? "stopped" : null,
      answer.state === "edited" ? "edited" : null,
      answer.state === "done" ? ENDS[answer.reason] : null,
    ];
    const said = parts.filter(Boolean).join(" · ").replace(/(\d) (?=\w)/g, "$1\u00a0");  // units stay with their numbers
    replace(this.foot, answer.state === "writing" && !count ? "reading the prompt …" : said);
  }
}
