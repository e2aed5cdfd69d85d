// Rating: the answers to one prompt side by side, without names. By keys: 1 to 9 the best, t (or 0) a tie, s skip, u undo;
// where answers are scored: 1 to 5 score the marked line and go on, arrows move the mark, Enter keeps the scores.

const API = "/studio/api/rate";
const RATER = "rater", SCORES = [1, 2, 3, 4, 5];

// Gives open(name), which shows a test.
export function mountBlind(place, studio) {
  const state = { name: null, test: null, item: null, since: 0, isBusy: false, timer: null };
  const parts = layout(place, studio, state, { act, rateAs });

  async function open(name) {
    Object.assign(state, { name, test: null, item: null, isBusy: false });
    studio.replace(parts.title, name);
    parts.rater.value ||= localStorage.getItem(RATER) ?? "";
    await refresh();
    if (rater()) await act("next");
    else waitForName();
  }

  const rater = () => parts.rater.value.trim();

  function rateAs() {
    localStorage.setItem(RATER, rater());
    return rater() ? act("next") : waitForName();
  }

  function waitForName() {
    state.item = null;
    draw(parts, studio, state);
    parts.rater.focus();
  }

  // what the models have answered so far; asked again while answers are made
  async function refresh() {
    clearTimeout(state.timer);
    state.test = await studio.post(`${API}/test`, { test: state.name });
    drawAnswering(parts, studio, state, { start: () => switchAnswering("answer"), stop: () => switchAnswering("stop") });
    if (state.test.is_answering) {
      const name = state.name;
      state.timer = setTimeout(async () => {
        if (place.hidden || name !== state.name) return;
        await refresh();
        if (rater() && !state.isBusy && state.item?.prompt === null) await act("next");
      }, 1000);
    }
  }

  async function switchAnswering(word) {
    await studio.post(`${API}/${word}`, { test: state.name });
    await refresh();
  }

  // a request of the rater, whose answer is what to show next
  async function act(word, values = {}) {
    if (state.isBusy) return;
    state.isBusy = true;
    const { name } = state;
    try {
      const item = await studio.post(`${API}/${word}`, { test: name, rater: rater(), ...values });
      if (name !== state.name) return;
      studio.notice(null);
      Object.assign(state, { item, since: performance.now() });
      draw(parts, studio, state);
    } catch (error) {
      studio.notice(error);
    } finally {
      if (name === state.name) state.isBusy = false;
    }
  }

  return open;
}

function layout(place, studio, state, { act, rateAs }) {
  const { element } = studio;
  const isScored = () => state.test?.settings.by === "scores";
  const hasItem = () => state.item !== null && state.item.prompt !== null;
  const seconds = () => Math.round((performance.now() - state.since) / 100) / 10;
  const keep = (values) => hasItem() && act("rating", { prompt: state.item.prompt, seconds: seconds(), ...values });
  const parts = {
    title: element("h1", null),
    rater: element("input", {
      name: "rater",
      maxlength: 64,
      placeholder: "your name or initials",
      autocomplete: "off",
      onchange: rateAs,
      onkeydown: (event) => event.key === "Enter" && event.target.blur(),
    }),
    progress: element("p", { class: "soft progress", "aria-live": "polite" }),
    answering: element("div", null),
    prompt: element("div", null),
    answers: element("div", { class: "answers" }),
    bar: element("div", { class: "keys", role: "group", "aria-label": "Your rating" }),
    choose: (number) => !isScored() && number < state.item.answers.length && keep({ best: [number] }),
    tie: () => !isScored() && keep({ best: state.item.answers.map((_, number) => number) }),
    skip: () => keep({}),
    undo: () => state.item !== null && act("undo"),
    score: () => isScored() && readScores(parts, state) && keep({ scores: readScores(parts, state) }),
  };
  place.append(
    element("div", { class: "row spread" }, parts.title, element("label", { class: "field who" }, element("span", null, "Rater"), parts.rater)),
    parts.progress,
    parts.answering,
    parts.prompt,
    parts.answers,
    parts.bar,
  );
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input:not([type=radio]), textarea, select");
    const isPress = event.key === "Enter" && event.target.closest("button, a");
    const isTaken = event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.defaultPrevented;
    if (!place.checkVisibility() || isTyping || isPress || isTaken) return;
    if (pressed(event.key, parts, state, isScored, hasItem)) event.preventDefault();
  });
  return parts;
}

// Does what a key stands for; whether it stands for something.
function pressed(key, parts, state, isScored, hasItem) {
  if (key === "u") return parts.undo(), true;
  if (!hasItem()) return false;
  if (key === "s") return parts.skip(), true;
  if (isScored()) return pressedScore(key, parts);
  if (key === "t" || key === "0") return parts.tie(), true;
  if (/^[1-9]$/.test(key)) return parts.choose(Number(key) - 1), true;
  return false;
}

function pressedScore(key, parts) {
  const lines = [...parts.answers.querySelectorAll(".score")], at = Math.max(lines.findIndex((line) => line.classList.contains("marked")), 0);
  const mark = (to) => {
    lines.forEach((line, number) => line.classList.toggle("marked", number === to));
    lines[to].scrollIntoView({ block: "nearest" });
  };
  const moves = { ArrowDown: 1, ArrowUp: -1 };
  if (key in moves) return mark(Math.min(Math.max(at + moves[key], 0), lines.length - 1)), true;
  if (key === "Enter") return parts.score(), true;
  if (!SCORES.includes(Number(key))) return false;
  lines[at].querySelector(`input[value="${key}"]`).click();
  mark(Math.min(at + 1, lines.length - 1));
  return true;
}

// The scores of all answers by criterion; null while some are missing.
function readScores(parts, state) {
  const names = state.test.settings.criteria;
  const scores = state.item.answers.map((_, number) =>
    Object.fromEntries(
      names.map((name, line) => [name, Number(parts.answers.querySelector(`input[name="score-${number}-${line}"]:checked`)?.value ?? 0)]),
    ),
  );
  return scores.every((given) => Object.values(given).every(Boolean)) ? scores : null;
}

function drawAnswering(parts, studio, state, { start, stop }) {
  const { element } = studio, { test } = state, { missing, prompts } = test.progress;
  const every = prompts * test.settings.models.length;
  const lines = [...test.notes.map((note) => element("p", { class: "detail" }, note))];
  if (missing) {
    const done = `${studio.format.number(every - missing)} of ${studio.format.number(every)} answers are made`;
    const button = test.is_answering
      ? element("button", { type: "button", onclick: stop }, "Stop")
      : element("button", { type: "button", onclick: start }, "Make the others");
    const bar = element("progress", { max: every, value: every - missing, "aria-label": done });
    lines.push(element("div", { class: "row spread" }, element("span", null, done), bar, button));
  }
  if (test.failure) lines.push(element("p", { class: "bad" }, test.failure));
  studio.replace(parts.answering, lines.length ? element("section", { class: "card" }, lines) : null);
}

function draw(parts, studio, state) {
  const { element } = studio, { item } = state;
  const results = element("button", { type: "button", onclick: () => studio.show("rate", `results/${state.name}`) }, "Results");
  if (item === null || item.prompt === null) {
    const undo = item?.progress.rated || item?.progress.skipped ? key(studio, "u", "Undo", parts.undo) : null;
    parts.progress.textContent = item === null ? "Who rates? Give a name first." : counts(item.progress);
    studio.replace(parts.prompt, item === null ? null : element("section", { class: "card done" }, element("p", null, waiting(state)), element("div", { class: "row" }, results, undo)));
    studio.replace(parts.answers);
    studio.replace(parts.bar);
    return;
  }
  parts.progress.textContent = counts(item.progress);
  studio.replace(parts.prompt, item.messages.map((message) => drawMessage(studio, message)));
  studio.replace(parts.answers, item.answers.map((answer, number) => drawAnswer(parts, studio, state, answer, number)));
  parts.answers.querySelector(".score")?.classList.add("marked");
  studio.replace(parts.bar, keys(parts, studio, state));
  window.scrollTo({ top: 0 });
}

const counts = ({ rated, skipped, left, missing }) =>
  `${rated} rated · ${skipped} skipped · ${left} left${missing ? " so far" : ""}`;

function waiting({ test, item }) {
  if (test?.is_answering) return "The next answers are being made.";
  if (item.progress.missing) return "No prompt has all its answers now.";
  return "You have rated all prompts. Thank you.";
}

function drawMessage(studio, message) {
  const { element } = studio;
  const role = message.role === "user" ? "Prompt" : message.role;
  return element("section", { class: "card prompt" }, element("h2", null, role), element("div", { class: "asked" }, message.content));
}

function drawAnswer(parts, studio, state, answer, number) {
  const { element } = studio;
  const text = answer.text ? studio.markdown(answer.text) : element("p", { class: "soft" }, "(an empty answer)");
  return element(
    "article",
    { class: "card answer", "aria-label": `Answer ${number + 1}` },
    element("h2", null, `Answer ${number + 1}`),
    text,
    answer.is_cut ? element("p", { class: "detail" }, `cut off at ${state.test.settings.max_tokens} tokens`) : null,
    state.test.settings.by === "scores" ? drawScores(parts, studio, state, number) : null,
  );
}

function drawScores(parts, studio, state, number) {
  const { element } = studio;
  const lines = state.test.settings.criteria.map((name, line) => {
    const boxes = SCORES.map((score) =>
      element("label", null, element("input", { type: "radio", name: `score-${number}-${line}`, value: score, onchange: () => markDone(parts, state) }), score),
    );
    return element("fieldset", { class: "score" }, element("legend", null, name), element("div", { class: "steps" }, boxes));
  });
  return element("div", { class: "scores" }, lines);
}

function markDone(parts, state) {
  parts.bar.querySelector(".primary").disabled = readScores(parts, state) === null;
}

function keys(parts, studio, state) {
  const { item } = state;
  const always = [key(studio, "s", "Skip", parts.skip), key(studio, "u", "Undo", parts.undo)];
  if (state.test.settings.by === "scores") {
    const button = key(studio, "Enter", "Keep the scores", parts.score, "primary");
    button.disabled = true;
    return [button, ...always];
  }
  const best = item.answers.map((_, number) => key(studio, String(number + 1), `Answer ${number + 1}`, () => parts.choose(number), "primary"));
  return [...best, key(studio, "t", "Tie", parts.tie), ...always];
}

function key(studio, sign, name, act, kind = "") {
  return studio.element("button", { type: "button", class: kind, onclick: act }, studio.element("kbd", null, sign), ` ${name}`);
}
