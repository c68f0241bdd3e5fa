// The curves: a line for each group with a band over its seeds, or one for each run, and the values under the cursor.

const CURVES = { plot: null, series: [] }; // uPlot's chart, and what we gave it
const LISTED_VALUES = 12;
const DASH = [5, 4]; // of runs that don't count
const WHOLE = [0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power)); // distances of ticks
const AXES = [
  ["epoch", "epoch"],
  ["step", "optimizer step"],
  ["time", "time in seconds"],
];

function curveMetrics() {
  const names = new Set();
  for (const group of currentTable().groups) {
    for (const run of GROUPS[group].runs) for (const name of Object.keys(RUNS[run].curves)) names.add(name);
  }
  return [...names].filter((name) => !["epoch", "step", "time"].includes(name));
}

function setUpCurves() {
  const controls = byId("curve-controls");
  onChange((values) => {
    if ("table" in values) fill();
    drawCurves();
  });
  function fill() {
    state.metric = curveMetrics().includes(currentTable().column) ? currentTable().column : curveMetrics()[0];
    controls.replaceChildren(
      makeSelect(
        "metric",
        curveMetrics().map((name) => [name, name]),
        state.metric,
        (metric) => change({ metric }),
      ),
      makeSelect("over", AXES, state.axis, (axis) => change({ axis })),
      makeCheckbox("logarithmic", state.log, (log) => change({ log })),
      makeCheckbox("every run", state.each, (each) => change({ each })),
    );
  }
  fill();
  byId("chart-help").textContent =
    "A line is the mean over the seeds that count, its band goes from the lowest to the highest; dashed lines don't count. " +
    "Point at the chart, or use the arrow keys on it, for the values; a double click or Escape shows all of it after zooming.";
  byId("chart").addEventListener("keydown", moveCursor);
  new ResizeObserver(resizeCurves).observe(byId("chart"));
  drawCurves();
}

function resizeCurves() {
  const width = byId("chart").clientWidth;
  if (CURVES.plot && width && CURVES.plot.width !== width) CURVES.plot.setSize({ width, height: CURVES.plot.height });
}

// A run's points: the places on the axis, and the metric's values, without those it lacks.
function points(run) {
  const { curves } = RUNS[run];
  const xs = curves[state.axis] || [],
    ys = curves[state.metric] || [];
  const kept = ys
    .map((y, index) => index)
    .filter((index) => ys[index] !== null && xs[index] != null && !(state.log && ys[index] <= 0));
  return [kept.map((index) => xs[index]), kept.map((index) => ys[index])];
}

// The mean, the lowest and the highest value of a group's runs that count, epoch by epoch.
function band(group) {
  const found = new Map();
  for (const run of representedRuns(group)) {
    const { curves } = RUNS[run];
    (curves.epoch || []).forEach((epoch, index) => {
      const x = (curves[state.axis] || [])[index],
        y = (curves[state.metric] || [])[index];
      if (x == null || y == null || (state.log && y <= 0)) return;
      if (!found.has(epoch)) found.set(epoch, [[], []]);
      found.get(epoch)[0].push(x);
      found.get(epoch)[1].push(y);
    });
  }
  const rows = [...found]
    .sort((a, b) => a[0] - b[0])
    .map(([, [xs, ys]]) => [mean(xs), mean(ys), Math.min(...ys), Math.max(...ys)]);
  return [0, 1, 2, 3].map((column) => rows.map((row) => row[column]));
}

// What to draw: uPlot's tables, its series and bands. The best group is the last, on top of the others.
function curveParts() {
  const parts = { tables: [], series: [{}], bands: [] };
  const colors = groupColors();
  for (const group of [...visibleGroups()].reverse()) {
    const line = lineOf(group, colors.get(group));
    if (state.each) addRuns(parts, group, line);
    else addBand(parts, group, line);
  }
  return parts;
}

function lineOf(group, stroke) {
  const isRest = stroke === color("line-rest");
  return {
    label: groupLabel(group),
    stroke,
    color: stroke,
    width: group === state.chosen ? 4 : isRest ? 1 : 2,
    dash: countedRuns(group).length ? [] : DASH,
    points: { show: false },
    kind: "line",
    hasBand: !isRest && representedRuns(group).length > 1,
  };
}

function addRuns({ tables, series }, group, line) {
  for (const run of GROUPS[group].runs) {
    const { seed, counted } = RUNS[run];
    const found = points(run);
    if (!found[0].length) continue;
    tables.push(found);
    series.push({ ...line, label: `${line.label} (seed ${seed})`, dash: counted ? [] : DASH, hasBand: false });
  }
}

function addBand({ tables, series, bands }, group, line) {
  const found = band(group);
  if (!found[0].length) return;
  tables.push(line.hasBand ? found : found.slice(0, 2));
  series.push(line);
  if (!line.hasBand) return;
  const edge = { stroke: "transparent", width: 0, points: { show: false }, kind: "edge" };
  series.push(edge, { ...edge });
  bands.push({ series: [series.length - 1, series.length - 2], fill: faded(line.stroke) });
}

function faded(stroke) {
  return /^#[0-9a-f]{6}$/i.test(stroke) ? `${stroke}2e` : stroke;
}

function drawCurves() {
  CURVES.plot?.destroy();
  CURVES.plot = null;
  const { tables, series, bands } = curveParts();
  const empty = tables.length === 0;
  const chart = byId("chart");
  chart.classList.toggle("empty", empty);
  chart.setAttribute("aria-label", `${state.metric} over ${state.axis}, ${visibleGroups().length} groups`);
  if (empty) {
    chart.replaceChildren(make("p", {}, "Nothing to draw: no visible run has values of this metric."));
    byId("values").replaceChildren();
    return;
  }
  chart.replaceChildren();
  CURVES.series = series;
  CURVES.plot = new uPlot(curveOptions(series, bands, chart.clientWidth || 800), uPlot.join(tables), chart);
  listValues(null);
}

function curveOptions(series, bands, width) {
  const axis = {
    stroke: color("muted"),
    grid: { stroke: color("rule"), width: 1 },
    ticks: { stroke: color("rule"), width: 1 },
    font: "12px system-ui, sans-serif",
  };
  return {
    width,
    height: 380,
    series,
    bands,
    legend: { show: false },
    scales: { x: { time: false }, y: { distr: state.log ? 3 : 1 } },
    axes: [
      {
        ...axis,
        label: AXES.find(([name]) => name === state.axis)[1],
        labelSize: 22,
        labelFont: axis.font,
        incrs: state.axis === "time" ? undefined : WHOLE,
      },
      {
        ...axis,
        size: 62,
        values: (plot, values) => values.map((value) => (value === null ? "" : String(Number(value.toPrecision(6))))),
      },
    ],
    cursor: { dataIdx: nearestIndex, points: { show: false }, y: false },
    hooks: { setCursor: [(plot) => listValues(plot.cursor.left >= 0 ? plot.cursor.idx : null)] },
  };
}

// Where a series has its own value next to the cursor: over time, each has places of its own.
function nearestIndex(plot, seriesIndex, hovered) {
  const values = plot.data[seriesIndex];
  for (let distance = 0; distance < values.length; distance++) {
    if (values[hovered - distance] != null) return hovered - distance;
    if (values[hovered + distance] != null) return hovered + distance;
  }
  return hovered;
}

function lastIndex(values) {
  for (let index = values.length - 1; index >= 0; index--) if (values[index] != null) return index;
  return null;
}

// The values of all curves at an index of the x axis, the best first; at their ends if it is null.
function listValues(index) {
  if (!CURVES.plot) return;
  const rows = valuesAt(index);
  const x = index === null ? null : CURVES.plot.data[0][index];
  const where = x === null ? "at the end" : `at ${state.axis} ${Number(x.toPrecision(5))}`;
  const lines = rows.slice(0, LISTED_VALUES).map(({ item, value, range }) => {
    const swatch = make("span", { className: "swatch" });
    swatch.style.backgroundColor = item.color;
    return [make("span", {}, swatch, item.label), shown(value), range.map(shown).join(" .. ")];
  });
  const rest = rows.length - lines.length;
  const more = rest ? [make("p", { className: "help" }, `and ${rest} more`)] : [];
  byId("values").replaceChildren(
    make("p", { className: "where" }, `${state.metric} ${where}`),
    makeTable(["", "value", "over seeds"], lines),
    ...more,
  );
}

function valuesAt(index) {
  const { plot, series } = CURVES;
  const rows = [];
  series.forEach((item, place) => {
    if (item.kind !== "line") return;
    const at = index === null ? lastIndex(plot.data[place]) : nearestIndex(plot, place, index);
    const value = plot.data[place][at];
    const range = item.hasBand ? [plot.data[place + 1][at], plot.data[place + 2][at]] : [];
    if (value != null) rows.push({ item, value, range });
  });
  return rows.sort((a, b) => (isHigherBetter(state.metric) ? b.value - a.value : a.value - b.value));
}

function moveCursor(event) {
  const { plot } = CURVES;
  if (!plot) return;
  const xs = plot.data[0];
  const current = plot.cursor.left >= 0 && plot.cursor.idx !== null ? plot.cursor.idx : xs.length;
  const next = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: xs.length - 1 }[event.key];
  if (event.key === "Escape") drawCurves();
  if (next === undefined) return;
  event.preventDefault();
  byId("values").setAttribute("aria-live", "polite"); // under a mouse, it would never be silent
  const index = Math.min(Math.max(next, 0), xs.length - 1);
  plot.setCursor({ left: plot.valToPos(xs[index], "x"), top: 0 });
}
