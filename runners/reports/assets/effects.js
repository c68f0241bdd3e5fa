// What each setting does: a strip of points for each, a heat map for two, parallel coordinates for more.

const MAX_STRIPS = 12; // more values have places by their size, if they are numbers
const MAX_TEXTS = 24; // a setting with more values that are no numbers has no plot

function setUpEffects() {
  onChange(drawEffects);
  drawEffects();
}

function drawEffects() {
  const { column } = currentTable();
  const groups = visibleGroups().filter((group) => GROUPS[group].result);
  const swept = sweptSettings(groups);
  byId("effects").hidden = swept.length === 0;
  byId("effects-help").textContent =
    `A point is the best ${column} of a run; a bar is the mean of a value. Only visible groups, and runs that count.`;
  const colors = groupColors();
  const plots = swept.filter(({ texts, numbers }) => numbers || texts.length <= MAX_TEXTS);
  byId("strips").replaceChildren(...plots.map((setting) => make("figure", {}, plotOf(setting, groups, colors))));
  byId("together").replaceChildren(...together(swept, groups, colors));
}

// The settings that differ between groups: their texts, and their numbers if these have places of their own.
function sweptSettings(groups) {
  const settings = currentTable().columns.map((name, place) => {
    const there = new Set(groups.map((group) => GROUPS[group].settings[place]));
    const texts = columnTexts(place).filter((text) => there.has(text));
    const numbers = groups.map((group) => GROUPS[group].values[place]);
    const many = texts.length > MAX_STRIPS && numbers.every((number) => number !== null);
    return { name, place, texts, numbers: many ? numbers : null };
  });
  return settings.filter(({ texts }) => texts.length > 1);
}

function plotOf({ name, place, texts, numbers }, groups, colors) {
  const points = groups.flatMap((group) =>
    countedRuns(group).map((run) => ({
      text: GROUPS[group].settings[place],
      x: GROUPS[group].values[place],
      value: RUNS[run].value,
      title: `${groupLabel(group)}, seed ${RUNS[run].seed}: ${shown(RUNS[run].value)}`,
      group,
      color: colors.get(group),
    })),
  );
  return numbers ? scatterPlot(name, points) : stripPlot(name, texts, points);
}

function together(swept, groups, colors) {
  if (swept.length === 2 && swept.every(({ texts }) => texts.length <= MAX_TEXTS))
    return [heatMap(swept[0], swept[1], groups)];
  if (swept.length < 2) return [];
  const lines = groups.map((group) => ({
    texts: swept.map(({ place }) => GROUPS[group].settings[place]),
    numbers: swept.map(({ place }) => GROUPS[group].values[place]),
    value: GROUPS[group].result.mean,
    title: `${groupLabel(group)}: ${shown(GROUPS[group].result.mean)}`,
    group,
    color: colors.get(group),
  }));
  const drawing = parallelCoordinates(swept, lines);
  return [make("h3", {}, "All settings together"), make("div", { className: "scrolls" }, drawing)];
}

// A table whose cells are coloured by the mean of the groups with both values.
function heatMap(across, down, groups) {
  if (down.texts.length < across.texts.length) [across, down] = [down, across];
  const cell = (right, below) => {
    const own = groups.filter(
      (group) => GROUPS[group].settings[across.place] === right && GROUPS[group].settings[down.place] === below,
    );
    return own.length ? mean(own.map((group) => GROUPS[group].result.mean)) : null;
  };
  const means = down.texts.map((below) => across.texts.map((right) => cell(right, below)));
  const known = means.flat().filter((value) => value !== null);
  const low = Math.min(...known),
    high = Math.max(...known);
  const isHigher = currentTable().better === "higher";
  const head = make(
    "tr",
    {},
    make("th", {}, `${down.name} \\ ${across.name}`),
    ...across.texts.map((text) => make("th", { scope: "col" }, compact(text))),
  );
  const rows = down.texts.map((text, row) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, compact(text)),
      ...means[row].map((value) => {
        const element = make("td", {}, shown(value));
        if (value !== null) {
          const share = high === low ? 1 : (value - low) / (high - low);
          [element.style.backgroundColor, element.style.color] = between(isHigher ? share : 1 - share);
        }
        return element;
      }),
    ),
  );
  const caption = make("caption", {}, `${currentTable().column}, the mean of each pair; stronger colour is better`);
  return make(
    "div",
    { className: "scrolls" },
    make("table", { className: "heat" }, caption, make("thead", {}, head), make("tbody", {}, ...rows)),
  );
}
