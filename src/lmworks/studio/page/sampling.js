// How answers are sampled: a form whose values the chat sends.

import { element } from "./dom.js";

const FIELDS = [
  // name, label, value at first, attributes of the input, what it does
  ["temperature", "Temperature", 0.7, { min: 0, max: 2, step: 0.01 }, "0: always the likeliest token; 1: as the model's probabilities are."],
  ["top_p", "Top p", 1, { min: 0, max: 1, step: 0.01 }, "Draw from the fewest tokens whose probabilities reach p."],
  ["top_k", "Top k", 0, { min: 0, step: 1 }, "Draw from the k likeliest tokens; 0: from all."],
  ["min_p", "Min p", 0, { min: 0, max: 1, step: 0.01 }, "Drop tokens less likely than this share of the likeliest."],
  ["repetition_penalty", "Repetition penalty", 1, { min: 0.01, max: 5, step: 0.01 }, "Above 1: tokens that are in the text already become less likely."],
  ["presence_penalty", "Presence penalty", 0, { min: -2, max: 2, step: 0.01 }, "Above 0: tokens that the answer has already become less likely."],
  ["frequency_penalty", "Frequency penalty", 0, { min: -2, max: 2, step: 0.01 }, "The same for each time that it has them."],
  ["max_tokens", "Longest answer", 512, { min: 1, step: 1 }, "In tokens."],
  ["seed", "Seed", "", { step: 1, placeholder: "random" }, "The same seed draws the same answer."],
];
const KEPT = "chat-sampling";

// A form with values() → { system, body }, advise(advised) and fault(name, message).
export function samplingForm() {
  const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
  const inputs = Object.fromEntries(FIELDS.map(([name, , value, attributes]) => [
    name, element("input", { type: "number", name, value: kept[name] ?? value, required: name !== "seed", ...attributes }),
  ]));
  const system = element("textarea", { name: "system", rows: 2, value: kept.system ?? "", placeholder: "what the model is told before the conversation" });
  const stop = element("textarea", { name: "stop", rows: 2, value: kept.stop ?? "", placeholder: "one a line" });
  const advice = element("p", { class: "detail", hidden: true });
  const fields = FIELDS.map(([name, label, , , help]) => field(label, inputs[name], help));
  const form = element("form", { class: "sampling", onsubmit: (event) => event.preventDefault(), onchange: keep },
    field("System message", system), element("div", { class: "grid" }, fields), field("Stop texts", stop, "The answer ends before any of them."), advice);

  function keep() {
    const values = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
    localStorage.setItem(KEPT, JSON.stringify({ ...values, system: system.value, stop: stop.value }));
    for (const mark of form.querySelectorAll(".wrong")) clear(mark);
  }

  function values() {
    const body = {};
    for (const [name, input] of Object.entries(inputs)) if (input.value !== "") body[name] = Number(input.value);
    const stops = stop.value.split("\n").filter(Boolean);
    if (stops.length) body.stop = stops;
    return { system: system.value.trim(), body };
  }

  function advise(advised) {
    const names = Object.keys(advised ?? {}).filter((name) => name in inputs);
    advice.hidden = !names.length;
    const use = () => { for (const name of names) inputs[name].value = advised[name]; keep(); };
    advice.replaceChildren(`The model's publisher advises ${names.map((name) => `${name} ${advised[name]}`).join(", ")}. `,
      element("button", { type: "button", class: "plain", onclick: use }, "Use these"));
  }

  function fault(name, message) {
    const place = form.elements[name]?.closest(".field");
    if (!place) return false;
    place.classList.add("wrong");
    place.append(element("span", { class: "fault", role: "alert" }, message));
    return true;
  }

  return { form, values, advise, fault };
}

function clear(place) {
  place.classList.remove("wrong");
  for (const fault of place.querySelectorAll(".fault")) fault.remove();
}

function field(label, input, help) {
  return element("label", { class: "field", title: help }, element("span", null, label), input);
}
