// Settings as fields, as the tabs Data and Start have them. What is left empty keeps its default.

let count = 0;

// A field with a name above it. control: an input or select.
export function field(studio, name, control, help = null) {
  const { element } = studio;
  return element("label", { class: "field" }, element("span", null, name), control, help && element("small", { class: "detail" }, help));
}

// An input that offers names: offered [{ name, about }], of which any other may be written instead.
export function nameInput(studio, attributes) {
  const { element, replace } = studio;
  const list = element("datalist", { id: `names-${(count += 1)}` });
  const input = element("input", { type: "text", list: list.id, autocomplete: "off", spellcheck: "false", ...attributes });
  const offer = (offered) => replace(list, offered.map(({ name, about }) => element("option", { value: name }, about)));
  return { input, list, offer };
}

// A choice among [{ name, about }]; the first entry stands for nothing chosen.
export function choice(studio, first, onchange) {
  const { element, replace } = studio;
  const select = element("select", { onchange });
  const offer = (offered) => {
    const before = select.value;
    const options = offered.map(({ name, about }) => element("option", { value: name, title: about }, name));
    replace(select, first === null ? [] : element("option", { value: "" }, first), options);
    if (offered.some(({ name }) => name === before)) select.value = before;
  };
  offer([]);
  return { select, offer };
}

// All settings of some groups, each group closed at first.
// groups: as studio/settings_form.groups gives them. titles: name of a group -> what stands for it.
// Gives { node, values(), offer(groups), onchange }: values() is { dotted name: text } of what is not empty.
export function settingFields(studio, titles = {}) {
  const { element, replace } = studio;
  const groupsNode = element("div", { class: "groups" }), none = element("p", { class: "soft", hidden: true }, "No setting has these words.");
  const search = element("input", { type: "search", placeholder: "name or meaning", oninput: () => filter() });
  const made = { node: element("div", { class: "settings" }, field(studio, "Find a setting", search), groupsNode, none), values, offer, show, onchange: null };
  let drawn = [];

  function values() {
    const filled = drawn.flatMap((group) => group.fields).filter(({ control }) => control.value !== "");
    return Object.fromEntries(filled.map(({ name, control }) => [name, control.value]));
  }

  // Takes other groups; what was written stays where there is such a setting.
  function offer(groups) {
    const before = values(), open = new Set(drawn.filter((group) => group.node.open).map((group) => group.name));
    drawn = groups.map((group) => drawGroup(group, before, open.has(group.name) || (group.open && !drawn.some((old) => old.name === group.name))));
    replace(groupsNode, drawn.map((group) => group.node));
    filter();
  }

  // Leaves some groups out of sight: those for which isShown(group) is false; their settings are emptied.
  function show(isShown) {
    for (const group of drawn) {
      group.isShown = isShown(group);
      if (!group.isShown) for (const { control } of group.fields) control.value = "";
    }
    filter();
  }

  function drawGroup({ name, method, fields }, before, isOpen) {
    const mark = element("span", { class: "verdict", hidden: true });
    const group = { name, method, mark, isShown: true };
    group.fields = fields.map((setting) => drawField(setting, before[setting.name] ?? "", group));
    const title = titles[name] ?? (name.replaceAll("_", " ") || "other");
    group.node = element("details", { open: isOpen }, element("summary", null, title, " ", mark), element("div", { class: "fields" }, group.fields.map((each) => each.node)));
    tell(group);
    return group;
  }

  function drawField(setting, value, group) {
    const changed = () => { tell(group); made.onchange?.(); };
    const fallback = setting.default === "null" || setting.default === null ? "none" : setting.default;
    const attributes = { name: setting.name, onchange: changed };
    const control = setting.choices.length
      ? element("select", attributes, element("option", { value: "" }, `default: ${fallback}`), setting.choices.map((word) => element("option", { value: word }, word)))
      : element("input", { type: "text", autocomplete: "off", spellcheck: "false", placeholder: fallback, ...attributes });
    control.value = value;
    const node = field(studio, setting.label, control, setting.help);
    return { name: setting.name, control, node, words: `${setting.name} ${setting.label} ${setting.help}`.toLowerCase() };
  }

  function tell(group) {
    const filled = group.fields.filter(({ control }) => control.value !== "").length;
    group.mark.hidden = filled === 0;
    group.mark.textContent = `${filled} set`;
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const group of drawn) {
      let hits = 0;
      for (const each of group.fields) {
        each.node.hidden = !words.every((word) => each.words.includes(word));
        hits += each.node.hidden ? 0 : 1;
      }
      group.node.hidden = !group.isShown || hits === 0;
      if (words.length && hits) group.node.open = true;
      shown += group.node.hidden ? 0 : hits;
    }
    none.hidden = shown > 0 || !drawn.length;
  }

  return made;
}
