// What is shown: one state, and functions that are called when it changes.

const state = {
  table: 0,
  hidden: new Set(), // groups whose box isn't ticked
  filters: new Map(), // column -> set of the texts that are allowed
  search: "",
  chosen: null, // the group whose details are shown
  metric: null,
  axis: "epoch",
  log: false,
  each: false, // a curve for each run, instead of mean and band
};
const listeners = [];

function onChange(listener) {
  listeners.push(listener);
}

function change(values) {
  Object.assign(state, values);
  for (const listener of listeners) listener(values);
}

function currentTable() {
  return DATA.tables[state.table];
}

function matchesFilters(group) {
  const { settings, runs } = GROUPS[group];
  for (const [column, allowed] of state.filters) if (!allowed.has(settings[column])) return false;
  const texts = [...settings, ...runs.flatMap((run) => [RUNS[run].path, RUNS[run].config.name, RUNS[run].config.tags])];
  return texts.map(asText).join(" ").toLowerCase().includes(state.search.toLowerCase());
}

// The groups that the filters leave, best first; with and without the ones that are hidden by their box.
function listedGroups() {
  return currentTable().groups.filter(matchesFilters);
}

function visibleGroups() {
  return listedGroups().filter((group) => !state.hidden.has(group));
}

// The colour of each visible group: the best ones, and the chosen one, can be told apart.
function groupColors() {
  const colors = new Map();
  visibleGroups().forEach((group, rank) => {
    colors.set(
      group,
      rank < NAMED_COLORS ? color(`line-${rank}`) : group === state.chosen ? color("text") : color("line-rest"),
    );
  });
  return colors;
}

// Whether a higher value of a metric is better: of one that isn't the monitor, only what its name says is known.
function isHigherBetter(metric) {
  const { column, better } = currentTable();
  const name = (text) => text.split("/").pop();
  return name(metric) === name(column) ? better === "higher" : !/loss|error|distance|lr/.test(metric);
}
