// Markdown to elements: headings, lists, quotes, tables, code, emphasis, links. HTML in it stays text, pictures become
// links, and links lead to http(s) alone.

import { element } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(\1[ \t]*){2,}$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+)(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const DIVIDER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const DEEPEST = 8;  // of quotes and lists in each other; what is deeper stays text

// An element with the text formatted.
export function markdown(text) {
  return element("div", { class: "markdown" }, blocks(String(text).replace(/\r\n?/g, "\n").split("\n"), 0));
}

function blocks(lines, depth) {
  const made = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) { at += 1; continue; }
    const [block, next] = blockAt(lines, at, depth);
    made.push(block);
    at = next;
  }
  return made;
}

// The block that begins at a line, and the line after it.
function blockAt(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return fence(lines, at);
  const heading = HEADING.exec(line);
  if (heading) return [element(`h${Math.min(heading[1].length + 2, 6)}`, null, inline(heading[2])), at + 1];
  if (RULE.test(line)) return [element("hr"), at + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  if (line.includes("|") && DIVIDER.test(lines[at + 1] ?? "") && lines[at + 1].includes("-")) {
    const heads = cells(line);
    if (heads.length === cells(lines[at + 1]).length) return table(lines, at, heads);
  }
  return paragraph(lines, at);
}

function fence(lines, at) {
  const [, marks, language] = FENCE.exec(lines[at]);
  let end = at + 1;
  while (end < lines.length && !(lines[end].trim().startsWith(marks) && /^[`~]+$/.test(lines[end].trim()))) end += 1;
  const code = lines.slice(at + 1, end).join("\n");
  const title = language || null;
  return [element("pre", { tabindex: "0", "aria-label": title ? `code: ${title}` : "code" }, element("code", null, code)), end + 1];
}

function quote(lines, at, depth) {
  const inner = [];
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) inner.push(QUOTE.exec(lines[end++])[1]);
  return [element("blockquote", null, blocks(inner, depth + 1)), end];
}

function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]), isNumbered = /\d/.test(first[2]);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || /\d/.test(item[2]) !== isNumbered || RULE.test(lines[end])) break;
    const indent = item[1].length + item[2].length + Math.min(item[3].length, 4), inner = [item[4]];
    for (end += 1; end < lines.length; end += 1) {
      const isBlank = !lines[end].trim(), isInside = /^\s/.test(lines[end]) && lines[end].search(/\S/) >= Math.min(indent, 2);
      if (isBlank ? !/^\s{2,}\S/.test(lines[end + 1] ?? "") : !isInside) break;
      inner.push(lines[end].slice(Math.min(indent, Math.max(lines[end].search(/\S/), 0))));
    }
    items.push(element("li", null, tight(inner, depth + 1)));
    while (end < lines.length && !lines[end].trim() && ITEM.test(lines[end + 1] ?? "")) end += 1;
  }
  const start = isNumbered && first[2].slice(0, -1) !== "1" ? first[2].slice(0, -1) : null;
  return [element(isNumbered ? "ol" : "ul", { start }, items), end];
}

// The content of an item; where it is one paragraph, without the paragraph around it.
function tight(lines, depth) {
  const made = blocks(lines, depth);
  return made[0]?.tagName === "P" ? [...made[0].childNodes, ...made.slice(1)] : made;
}

function cells(line) {
  const text = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return text.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, at, heads) {
  const rows = [];
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|") && lines[end].trim(); end += 1) {
    const row = cells(lines[end]);
    rows.push(element("tr", null, heads.map((_, column) => element("td", null, inline(row[column] ?? "")))));
  }
  const head = element("tr", null, heads.map((cell) => element("th", { scope: "col" }, inline(cell))));
  const whole = element("table", null, element("thead", null, head), element("tbody", null, rows));
  return [element("div", { class: "scroll" }, whole), end];
}

function paragraph(lines, at) {
  const inner = [lines[at].trim()];
  let end = at + 1;
  for (; end < lines.length && lines[end].trim(); end += 1) {
    const line = lines[end];
    if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line)) break;
    inner.push(line.replace(/^\s+/, "").replace(/(?<! ) $/, ""));
  }
  return [element("p", null, inline(inner.join("\n"))), end];
}

const INLINE = new RegExp(
  [
    "(?<code>(?<ticks>`+)(?!`)(?<inside>[^]*?[^`])\\k<ticks>(?!`))",
    "(?<image>!?)\\[(?<label>[^\\[\\]\\n]{0,500})\\]\\((?<target>[^\\s()]{1,2000})\\)",
    "<(?<auto>https?://[^\\s<>]{1,2000})>",
    "\\*\\*(?<strong>(?=\\S)[^]{1,2000}?\\S?)\\*\\*(?!\\*)",
    "\\*(?<em>(?=[^\\s*])[^*]{0,1000}?[^\\s*])\\*",
    "(?<!\\w)__(?<strong2>(?=\\S)[^]{1,2000}?)__(?!\\w)",
    "(?<!\\w)_(?<em2>(?=[^\\s_])[^_]{0,1000}?)_(?!\\w)",
    "~~(?<gone>(?=\\S)[^~]{1,1000}?)~~",
    "\\\\(?<escaped>[!-/:-@\\[-`{-~])",
    "(?<break> {2,}\\n|\\n)",
  ].join("|"),
);

// Texts and elements of a line. Emphasis may hold other emphasis, to the depth of its marks.
function inline(text, depth = 0) {
  const made = [];
  let rest = text;
  while (rest) {
    const match = depth < DEEPEST ? INLINE.exec(rest) : null;
    if (!match) { made.push(rest); break; }
    made.push(rest.slice(0, match.index), inlineOf(match, depth));
    rest = rest.slice(match.index + match[0].length);
  }
  return made;
}

function inlineOf(match, depth) {
  const part = match.groups, deeper = (text) => inline(text, depth + 1);
  if (part.code) return element("code", null, part.inside.replace(/\n/g, " ").replace(/^ (.*) $/, "$1"));
  if (part.target) return link(part.target, part.image ? [`[picture: ${part.label}]`] : deeper(part.label), match[0]);
  if (part.auto) return link(part.auto, [part.auto], match[0]);
  if (part.strong ?? part.strong2) return element("strong", null, deeper(part.strong ?? part.strong2));
  if (part.em ?? part.em2) return element("em", null, deeper(part.em ?? part.em2));
  if (part.gone) return element("del", null, deeper(part.gone));
  if (part.escaped) return part.escaped;
  return part.break === "\n" ? "\n" : element("br");
}

function link(target, label, source) {
  let address;
  try { address = new URL(target); } catch { return source; }
  if (!["http:", "https:"].includes(address.protocol)) return source;
  return element("a", { href: address.href, target: "_blank", rel: "noopener noreferrer", title: address.href }, label);
}
