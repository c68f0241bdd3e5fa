// The chosen group: its runs, their figures, config, and where they come from.

const FACTS = [
  ["state", "state"],
  ["started", "started"],
  ["commit", "commit"],
  ["branch", "branch"],
  ["changes", "changes"],
  ["host", "host"],
  ["device", "device"],
  ["seconds", "seconds of training"],
  ["parameters", "parameters"],
  ["command", "repeat with"],
];

function setUpDetails() {
  onChange((values) => {
    if ("chosen" in values || "table" in values) showGroup();
  });
}

function showGroup() {
  const group = state.chosen;
  byId("details").hidden = group === null;
  if (group === null) return;
  byId("details-title").textContent = groupLabel(group);
  const own = make("div", { id: "run" });
  const rows = GROUPS[group].runs.map((run) => runRow(run, own));
  const { column, test } = currentTable();
  const table = makeTable(["run", "seed", "state", column, "epoch", test, "compare"], rows, "runs");
  const close = make("button", { type: "button", onclick: () => change({ chosen: null }) }, "close");
  byId("details-content").replaceChildren(
    make("p", { className: "help" }, settingsText(group), " ", close),
    make("div", { className: "scrolls" }, table),
    own,
  );
  showRun(representedRuns(group)[0], own);
}

function settingsText(group) {
  return currentTable()
    .columns.map((name, place) => `${name}=${GROUPS[group].settings[place]}`)
    .join("  ");
}

function runRow(run, target) {
  const { path, seed, value, epoch, test, counted } = RUNS[run];
  const name = make("button", { type: "button", className: "link", onclick: () => showRun(run, target) }, path);
  const compare = ["A", "B"].map((side) =>
    make(
      "button",
      { type: "button", "aria-label": `compare ${path} as ${side}`, onclick: () => compareWith(side, run) },
      side,
    ),
  );
  const text = counted ? RUNS[run].state : `${RUNS[run].state}, not counted`;
  return [name, asText(seed), text, shown(value), asText(epoch), shown(test), make("span", {}, ...compare)];
}

function showRun(run, target) {
  const known = FACTS.filter(([key]) => RUNS[run][key] !== undefined && RUNS[run][key] !== "");
  const facts = known.flatMap(([key, name]) => [make("dt", {}, name), make("dd", {}, asText(RUNS[run][key]))]);
  const folder = make("a", { href: RUNS[run].link }, RUNS[run].path);
  target.replaceChildren(
    make("h3", {}, folder),
    figuresOf(run),
    make("dl", {}, ...facts),
    make("details", {}, make("summary", {}, "Config"), configTable(run)),
  );
}

function figuresOf(run) {
  const figures = (RUNS[run].figures || []).map(({ name, link, small }) => {
    const picture = small ? make("img", { src: small, alt: name, loading: "lazy" }) : "";
    return make(
      "figure",
      {},
      make("a", { href: link }, picture, make("figcaption", {}, small ? name : `${name} (open the file)`)),
    );
  });
  return make("div", { className: "figures" }, ...figures);
}

function configTable(run) {
  const differing = new Set(Object.keys(GROUPS[RUNS[run].group].config));
  const config = wholeConfig(run);
  const table = makeTable(
    ["key", "value"],
    Object.keys(config)
      .sort()
      .map((key) => [key, make("code", {}, asText(config[key]))]),
    "config",
  );
  [...table.tBodies[0].rows].forEach((row) => row.classList.toggle("differs", differing.has(row.cells[0].textContent)));
  return make(
    "div",
    {},
    make("p", { className: "help" }, "Marked: what isn't the same in all groups of this page."),
    make("div", { className: "scrolls" }, table),
  );
}
