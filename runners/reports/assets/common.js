// What the other scripts use: the data, elements, numbers, colours.

const DATA = JSON.parse(document.getElementById("data").textContent);
const GROUPS = DATA.groups;
const RUNS = DATA.runs;
const NAMED_COLORS = 10; // the best visible groups have colours of their own, the rest are grey

function byId(id) {
  return document.getElementById(id);
}

// An element with properties, attributes (names with "-", and role, for, scope, href) and children: texts or elements.
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || ["role", "for", "scope", "href", "colspan"].includes(name))
      element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A labelled select. options: [value, text] pairs.
function makeSelect(label, options, selected, onchange) {
  const select = make("select", { onchange: () => onchange(select.value) });
  for (const [value, text] of options) select.append(make("option", { value, selected: value === selected }, text));
  return make("label", {}, label, " ", select);
}

function makeCheckbox(label, checked, onchange) {
  const box = make("input", { type: "checkbox", checked, onchange: () => onchange(box.checked) });
  return make("label", { className: "check" }, box, " ", label);
}

// A table from its heads and its rows of texts or elements.
function makeTable(heads, rows, className = "") {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const lines = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
  return make("table", { className }, make("thead", {}, head), make("tbody", {}, ...lines));
}

// A number as the tables show it: four decimals, or four digits if it is large or small.
function shown(value) {
  if (typeof value !== "number") return "-";
  const size = Math.abs(value);
  return size === 0 || (size >= 1e-3 && size < 1e6) ? value.toFixed(4) : value.toPrecision(4);
}

// A value of a config as text.
function asText(value) {
  return value === undefined ? "-" : typeof value === "string" ? value : JSON.stringify(value);
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A number of many digits, such as a sampled learning rate, with four of them: for labels, not for tables.
function compact(text) {
  return text.length > 8 && Number.isFinite(Number(text)) ? String(Number(Number(text).toPrecision(4))) : text;
}

function groupLabel(group) {
  return GROUPS[group].settings.map(compact).join(" · ") || RUNS[GROUPS[group].runs[0]].path;
}

function countedRuns(group) {
  return GROUPS[group].runs.filter((run) => RUNS[run].counted);
}

// The runs of a group that count, or all if none does.
function representedRuns(group) {
  const counted = countedRuns(group);
  return counted.length ? counted : GROUPS[group].runs;
}

function runLabel(run) {
  return RUNS[run].path;
}

// The whole config of a run, by dotted keys.
function wholeConfig(run) {
  return { ...DATA.common, ...GROUPS[RUNS[run].group].config, ...RUNS[run].config };
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// Numbers by size, then texts in their order.
function compareValues(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number" || typeof b === "number") return typeof a === "number" ? -1 : 1;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}
