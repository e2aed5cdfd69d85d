// An answer token by token: how likely the model held each, and what it held likely instead.

import { element, replace, svg } from "./dom.js";
import { percent } from "./format.js";

const STEPS = [0.9, 0.5, 0.2, 0.05];

// The tokens of a chunk's logprobs, of chats ({ content: […] }) or of completions (columns), as
// { text, logprob, top: [{ text, logprob }] }. decoder: a TextDecoder of the answer; characters may have several tokens.
export function tokensOf(logprobs, decoder) {
  if (logprobs?.content) {
    return logprobs.content.map((entry) => ({
      text: decoder.decode(new Uint8Array(entry.bytes ?? []), { stream: true }),
      logprob: entry.logprob,
      top: entry.top_logprobs.map((other) => ({ text: other.token, logprob: other.logprob })),
    }));
  }
  return (logprobs?.tokens ?? []).map((text, at) => ({
    text,
    logprob: logprobs.token_logprobs[at],
    top: Object.entries(logprobs.top_logprobs[at] ?? {}).map(([other, logprob]) => ({ text: other, logprob })),
  }));
}

// Spaces and line ends as signs.
export function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "·";
}

// An element with the tokens of an answer: pointer, focus and touch show what one was chosen from. The arrow keys move.
export class TokenView {
  constructor() {
    this.element = element("div", {
      class: "tokens", role: "group", dir: "auto", "aria-label": "Tokens: the arrow keys move, Escape closes",
      onkeydown: (event) => this.#move(event),
      onpointerover: (event) => this.#show(event.target),
      onpointerleave: () => hideTip(),
      onfocusin: (event) => this.#show(event.target),
      onfocusout: () => hideTip(),
      onclick: (event) => event.target.closest(".token")?.focus(),
    });
    this.tokens = [];
  }

  // Show further tokens.
  add(tokens) {
    for (const token of tokens) {
      const share = Math.exp(token.logprob), step = STEPS.findIndex((least) => share >= least);
      const node = element("span", { class: `token p${step < 0 ? STEPS.length : step}`, tabindex: this.tokens.length ? "-1" : "0",
        data: { at: String(this.tokens.length) }, "aria-label": `${visible(token.text)} ${percent(share, 2)}` }, token.text || "·");
      this.tokens.push(token);
      this.element.append(node);
    }
  }

  #show(node) {
    const place = node.closest?.(".token");
    if (place) showTip(place, this.tokens[Number(place.dataset.at)]);
  }

  #move(event) {
    const nodes = this.element.children, now = event.target.closest(".token");
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") hideTip();
    if (!now || !(event.key in moves)) return;
    event.preventDefault();
    const at = Math.min(Math.max(Number(now.dataset.at) + moves[event.key], 0), nodes.length - 1);
    now.tabIndex = -1;
    nodes[at].tabIndex = 0;
    nodes[at].focus();
  }
}

let tip = null;

function hideTip() {
  if (tip) tip.hidden = true;
}

// Beside a token: its probability and the likeliest others.
function showTip(place, token) {
  tip ??= document.body.appendChild(element("div", { class: "tip", role: "status" }));
  const own = { text: token.text, logprob: token.logprob, isChosen: true };
  const others = (token.top ?? []).filter((other) => Math.abs(other.logprob - own.logprob) > 1e-9 || !sameText(other.text, own.text));
  const rows = [own, ...others].sort((a, b) => b.logprob - a.logprob);
  replace(tip, element("table", null, element("caption", { class: "hidden-text" }, "Likeliest tokens here"), rows.map(row)));
  tip.hidden = false;
  const box = place.getBoundingClientRect(), width = tip.offsetWidth, height = tip.offsetHeight;
  const left = Math.min(Math.max(box.left, 8), Math.max(document.documentElement.clientWidth - width - 8, 8));
  const isBelow = box.bottom + height + 14 < window.innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${isBelow ? box.bottom + 6 : Math.max(box.top - height - 6, 4)}px`;
}

// A token that ends a character of several has that character as its text, and only its own bytes among the likeliest.
const sameText = (one, other) => one === other || one.includes("\ufffd") || other.includes("\ufffd") || other.startsWith("bytes:");

function row({ text, logprob, isChosen }) {
  const share = Math.exp(logprob);
  const bar = svg("svg", { class: "share", viewBox: "0 0 60 8", width: 60, height: 8, "aria-hidden": "true" },
    svg("rect", { class: "whole", width: 60, height: 8, rx: 4 }), svg("rect", { width: Math.max(60 * share, 1), height: 8, rx: 4 }));
  return element("tr", { class: isChosen ? "chosen" : null }, element("th", { scope: "row" }, visible(text)),
    element("td", null, bar), element("td", { class: "figure" }, percent(share, 2)),
    element("td", null, isChosen ? element("span", { class: "hidden-text" }, "written") : null));
}
