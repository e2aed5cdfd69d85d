// The tab Rate: blind tests. #rate lists them, #rate/blind/NAME rates, #rate/results/NAME counts.

import { mountBlind } from "./rate_blind.js";
import { mountOutcome } from "./rate_outcome.js";

export const title = "Rate";

const API = "/studio/api/rate";

// Fills the tab, once. element: the tab's own; studio: see studio.js.
export function mount(element, studio) {
  const views = { list: mountList, blind: mountBlind, results: mountOutcome };
  const shown = Object.fromEntries(
    Object.entries(views).map(([word, view]) => {
      const place = studio.element("div", { hidden: true });
      element.append(place);
      return [word, { place, open: view(place, studio) }];
    }),
  );
  element.addEventListener("show", (event) => {
    const [first, ...rest] = event.detail.split("/");
    const word = first in shown && rest.length ? first : "list";
    for (const [other, { place }] of Object.entries(shown)) place.hidden = other !== word;
    shown[word].open(rest.join("/")).catch(studio.notice);
  });
}

function mountList(place, studio) {
  const { element } = studio;
  const tests = element("div", null);
  const form = newTest(studio);
  place.append(
    element("h1", null, "Blind tests"),
    element("p", { class: "soft" }, "Compare answers of models to the same prompts, without their names and in random order."),
    tests,
    form.card,
  );
  return async () => {
    const [list, models] = await Promise.all([studio.get(`${API}/tests`), studio.models()]);
    studio.replace(tests, list.tests.map((test) => card(test, studio)), list.faults.map((fault) => element("p", { class: "bad" }, fault)));
    form.fill(list, models);
  };
}

function card(test, studio) {
  const { element } = studio, { progress, settings } = test;
  const waits = progress.missing ? `${studio.format.number(progress.missing)} answers to be made · ` : "";
  const raters = `${test.raters} ${test.raters === 1 ? "rater" : "raters"}`;
  return element(
    "section",
    { class: "card spread row", data: { test: test.name } },
    element(
      "div",
      { class: "about" },
      element("h2", null, test.name),
      element("p", null, settings.models.join(" · ")),
      element("p", { class: "detail" }, `${waits}${progress.rated} of ${progress.prompts} prompts rated · ${raters} · by ${settings.by}`),
    ),
    element(
      "div",
      { class: "row" },
      element("button", { type: "button", class: "primary", onclick: () => studio.show("rate", `blind/${test.name}`) }, "Rate"),
      element("button", { type: "button", onclick: () => studio.show("rate", `results/${test.name}`) }, "Results"),
    ),
  );
}

// The form of a new test. Gives { card, fill(list, models) }.
function newTest(studio) {
  const { element } = studio;
  const field = (name, input, hint) =>
    element("label", { class: "field" }, element("span", null, name), input, hint ? element("span", { class: "detail" }, hint) : null);
  const files = element("datalist", { id: "rate-files" });
  const inputs = {
    name: element("input", { name: "name", required: true, maxlength: 64, autocomplete: "off" }),
    file: element("input", { name: "file", list: "rate-files", autocomplete: "off" }),
    prompts: element("textarea", { name: "prompts", rows: 3 }),
    by: element("select", { name: "by" }, element("option", { value: "choice" }, "choosing the best"), element("option", { value: "scores" }, "scoring each answer")),
    criteria: element("input", { name: "criteria" }),
    limit: element("input", { name: "limit", type: "number", min: 1, inputmode: "numeric" }),
    max_tokens: element("input", { name: "max_tokens", type: "number", min: 1, value: 256, inputmode: "numeric" }),
    temperature: element("input", { name: "temperature", type: "number", min: 0, max: 2, step: 0.1, value: 0, inputmode: "decimal" }),
    seed: element("input", { name: "seed", type: "number", min: 0, value: 0, inputmode: "numeric" }),
  };
  const models = element("div", { class: "choices" });
  const criteria = field("Criteria, separated by commas", inputs.criteria);
  criteria.hidden = true;
  inputs.by.addEventListener("change", () => { criteria.hidden = inputs.by.value !== "scores"; });
  const button = element("button", { type: "submit", class: "primary" }, "Make the test");
  const form = element(
    "form",
    { class: "new", onsubmit: (event) => { event.preventDefault(); make(); } },
    field("Name", inputs.name),
    element("fieldset", null, element("legend", null, "Models, two to nine"), models),
    field("File of prompts", inputs.file, "a prompt in each line, or a column prompt or messages"),
    field("or prompts, one in each line", inputs.prompts),
    field("Rated by", inputs.by),
    criteria,
    element(
      "div",
      { class: "numbers" },
      field("Prompts at most", inputs.limit),
      field("Tokens of an answer at most", inputs.max_tokens),
      field("Temperature", inputs.temperature),
      field("Seed", inputs.seed),
    ),
    files,
    element("div", { class: "row end" }, button),
  );

  async function make() {
    button.disabled = true;
    try {
      studio.notice(null);
      const { test } = await studio.post(`${API}/tests`, body());
      form.reset();
      criteria.hidden = true;
      studio.show("rate", `blind/${test}`);
    } catch (error) {
      studio.notice(error);
    } finally {
      button.disabled = false;
    }
  }

  function body() {
    const lines = (text, by) => text.split(by).map((part) => part.trim()).filter(Boolean);
    const chosen = [...models.querySelectorAll("input:checked")].map((box) => box.value);
    const settings = { models: chosen, by: inputs.by.value };
    for (const name of ["max_tokens", "temperature", "seed"]) settings[name] = Number(inputs[name].value);
    if (inputs.by.value === "scores") settings.criteria = lines(inputs.criteria.value, ",");
    const typed = lines(inputs.prompts.value, "\n"), file = inputs.file.value.trim();
    return {
      name: inputs.name.value.trim(),
      file: file || null,
      prompts: typed.length ? typed : null,
      limit: inputs.limit.value ? Number(inputs.limit.value) : null,
      settings,
    };
  }

  function fill(list, known) {
    const chosen = new Set([...models.querySelectorAll("input:checked")].map((box) => box.value));
    const box = (name) =>
      element("label", null, element("input", { type: "checkbox", value: name, checked: chosen.has(name) }), name);
    const none = element("p", { class: "soft" }, "There is no model here so far.");
    studio.replace(models, known.length ? known.filter((model) => model.writes !== false).map((model) => box(model.name)) : none);
    studio.replace(files, list.files.map((name) => element("option", { value: name })));
    inputs.criteria.value ||= list.criteria.join(", ");
  }

  return { card: element("section", { class: "card" }, element("h2", null, "New blind test"), form), fill };
}
