// What differs between two runs: config, results, code.

const COMPARED = { A: null, B: null };
const RESULTS = [
  "state",
  "value",
  "epoch",
  "test",
  "seconds",
  "parameters",
  "commit",
  "branch",
  "changes",
  "host",
  "device",
];

function setUpComparison() {
  onChange((values) => "table" in values && chooseFirst());
  chooseFirst();
}

// The first run of the best group, and one of the next.
function chooseFirst() {
  const groups = currentTable().groups;
  const runs = groups.flatMap((group) => GROUPS[group].runs);
  byId("comparison").hidden = runs.length < 2;
  if (runs.length < 2) return;
  COMPARED.A = representedRuns(groups[0])[0];
  COMPARED.B = groups.length > 1 ? representedRuns(groups[1])[0] : runs.find((run) => run !== COMPARED.A);
  showComparison();
}

function compareWith(side, run) {
  COMPARED[side] = run;
  showComparison();
}

function runSelect(side) {
  const select = make("select", { onchange: () => compareWith(side, Number(select.value)) });
  for (const group of currentTable().groups) {
    const options = GROUPS[group].runs.map((run) =>
      make("option", { value: run, selected: run === COMPARED[side] }, `${runLabel(run)} (seed ${RUNS[run].seed})`),
    );
    select.append(make("optgroup", { label: groupLabel(group) }, ...options));
  }
  return make("label", {}, side, " ", select);
}

function showComparison() {
  byId("comparison-controls").replaceChildren(runSelect("A"), runSelect("B"));
  const rows = [
    ...differences(resultsOf(COMPARED.A), resultsOf(COMPARED.B)),
    ...differences(wholeConfig(COMPARED.A), wholeConfig(COMPARED.B)),
  ];
  const cells = rows.map(([key, a, b]) => [key, make("code", {}, asText(a)), make("code", {}, asText(b))]);
  const same = Object.keys(wholeConfig(COMPARED.A)).length;
  byId("comparison-content").replaceChildren(
    rows.length
      ? make("div", { className: "scrolls" }, makeTable(["", "A", "B"], cells, "config"))
      : make("p", {}, `Nothing: results, code and all ${same} values of the config are the same.`),
  );
}

function resultsOf(run) {
  const { column, test } = currentTable();
  const names = { value: column, test, epoch: "best epoch", seconds: "seconds of training" };
  return Object.fromEntries(RESULTS.map((key) => [names[key] || key, RUNS[run][key]]));
}

function differences(a, b) {
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  return keys.filter((key) => JSON.stringify(a[key]) !== JSON.stringify(b[key])).map((key) => [key, a[key], b[key]]);
}
