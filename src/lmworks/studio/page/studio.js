// The shell: tabs, dark and light, and what every tab gets from it.
//
// A tab is a module page/NAME.js that exports
//   title                     its name in the bar
//   mount(element, studio)    fills its element, once, when it is first shown; it stays there, hidden, afterwards
// Each time a tab is shown its element gets the event "show", whose detail is the rest of the address after the tab:
// "#runs/a/b" shows the tab runs with "a/b".
//
// studio offers
//   get(path)                         JSON of a path; throws RequestError (message, status, code, param)
//   post(path, body)                  the same with a JSON body, or a File
//   events(path, body, onEvent)       server-sent events: { done, stop }; see api.js
//   element(tag, attributes, ...children), svg(…), replace(parent, ...children)     see dom.js
//   markdown(text)                    an element with the text formatted, links to http(s) alone, HTML left as text
//   chart(element, series, options)   draws lines into an element; again with more points: see chart.js
//   show(tab, rest)                   go to a tab
//   notice(message)                   tell an error above the tab until the next one; null takes it away
//   models()                          [{ name, kind, state, … }]: the models that may be asked (see models.py)
//   openModel(name)                   opens a model, so that /v1 has it; gives what is known of it
//   format                            number, bytes, seconds, percent, date as texts

import { events, get, post } from "./api.js";
import { chart } from "./chart.js";
import { element, replace, svg } from "./dom.js";
import * as format from "./format.js";
import { markdown } from "./markdown.js";
import * as chat from "./chat.js";
import * as data from "./data.js";
import * as start from "./start.js";
import * as runs from "./runs.js";
import * as rate from "./rate.js";

const TABS = { chat, data, start, runs, rate };
const PAPERS = { system: "Paper: as the system", light: "Paper: light", dark: "Paper: dark" };

const studio = { get, post, events, element, svg, replace, markdown, chart, format, show, notice, models, openModel };

function show(tab, rest = "") {
  const hash = `#${tab}${rest && "/" + rest.split("/").map(encodeURIComponent).join("/")}`;
  if (location.hash === hash) route();
  else location.hash = hash;
}

function notice(message) {
  const place = document.getElementById("notice");
  place.hidden = message === null;
  if (message !== null) {
    const close = element("button", { type: "button", class: "plain", "aria-label": "Close", onclick: () => notice(null) }, "×");
    replace(place, element("span", null, String(message?.message ?? message)), close);
  }
}

async function models() {
  return (await get("/studio/api/models")).models;
}

function openModel(name) {
  return post("/studio/api/models/open", { name });
}

const panels = {};

function route() {
  const [word, ...rest] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const name = word in TABS ? word : "chat";
  for (const link of document.querySelectorAll("#tabs a")) {
    if (link.dataset.tab === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const [other, panel] of Object.entries(panels)) panel.hidden = other !== name;
  document.title = `${TABS[name].title} · lmworks studio`;
  if (!panels[name]) {
    panels[name] = element("div", { class: `tab tab-${name}`, id: `tab-${name}` });
    document.getElementById("main").append(panels[name]);
    TABS[name].mount(panels[name], studio);
  }
  panels[name].dispatchEvent(new CustomEvent("show", { detail: rest.join("/") }));
}

function setPaper(paper) {
  localStorage.setItem("paper", paper);
  if (paper === "system") delete document.documentElement.dataset.paper;
  else document.documentElement.dataset.paper = paper;
  const button = document.getElementById("paper");
  button.textContent = { system: "◐", light: "☀", dark: "☾" }[paper];
  button.title = PAPERS[paper];
  button.setAttribute("aria-label", PAPERS[paper]);
}

function begin() {
  // the token has become a cookie: it need not stay where others may read it
  if (location.search) history.replaceState(null, "", location.pathname + location.hash);
  const links = Object.entries(TABS).map(([name, tab]) => element("a", { href: `#${name}`, data: { tab: name } }, tab.title));
  replace(document.getElementById("tabs"), links);
  replace(document.getElementById("main"));
  const order = Object.keys(PAPERS);
  const paper = () => order.indexOf(localStorage.getItem("paper") ?? "system");
  setPaper(order[Math.max(paper(), 0)]);
  document.getElementById("paper").addEventListener("click", () => setPaper(order[(paper() + 1) % order.length]));
  window.addEventListener("hashchange", route);
  window.addEventListener("unhandledrejection", (event) => notice(event.reason));
  route();
}

begin();
