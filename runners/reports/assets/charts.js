// Small drawings in SVG: axes, scales, strips of points, parallel coordinates.

const SVG = { width: 300, height: 224, left: 52, right: 12, top: 12, bottom: 42, slanted: 60 };

// A function from values to positions, and round values for its ticks.
function linearScale(values, from, to) {
  let low = Math.min(...values),
    high = Math.max(...values);
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05];
  const margin = (high - low) * 0.06;
  low -= margin;
  high += margin;
  const position = (value) => from + ((value - low) / (high - low)) * (to - from);
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let index = Math.ceil(low / step); index * step <= high; index++) ticks.push(index * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  return {
    position,
    ticks: ticks.map((value) => [position(value), digits > 6 ? value.toPrecision(2) : value.toFixed(digits)]),
  };
}

// A scale for the values of a setting: logarithmic if they are positive and span more than a factor of 30.
function settingScale(values, from, to) {
  const low = Math.min(...values);
  if (low <= 0 || Math.max(...values) / low < 30) return linearScale(values, from, to);
  const { position } = linearScale(values.map(Math.log10), from, to);
  const first = Math.floor(Math.log10(low));
  const powers = Array.from({ length: 40 }, (_, index) => first + index).filter(
    (power) => 10 ** power <= Math.max(...values),
  );
  const inside = powers.filter((power) => 10 ** power >= low);
  return {
    position: (value) => position(Math.log10(value)),
    ticks: inside.map((power) => [position(power), `1e${power}`]),
  };
}

function textAt(x, y, text, attributes = {}) {
  return makeSvg("text", { x, y, ...attributes }, text);
}

// The axis of the results, on the left, with lines across the drawing.
function resultAxis(scale, width) {
  const parts = [];
  for (const [y, text] of scale.ticks) {
    parts.push(makeSvg("line", { class: "grid", x1: SVG.left, x2: width - SVG.right, y1: y, y2: y }));
    parts.push(textAt(SVG.left - 6, y + 4, text, { "text-anchor": "end" }));
  }
  return makeSvg("g", {}, ...parts);
}

function shortened(text, length) {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

function isShort(text, room) {
  return compact(text).length * 6.2 < room;
}

// The name of a value below its strip, slanted where there is little room.
function categoryLabel(x, y, text, room) {
  if (isShort(text, room)) return textAt(x, y, text, { "text-anchor": "middle" });
  return textAt(x + 4, y - 4, shortened(text, 10), {
    "text-anchor": "end",
    transform: `rotate(-35 ${x + 4} ${y - 4})`,
  });
}

// A strip of points for each value of a setting. points: {text, value, title, group, color}.
function stripPlot(name, texts, points) {
  const { width, height, left, right, top } = SVG;
  const room = (width - left - right) / texts.length;
  const bottom = texts.every((text) => isShort(text, room)) ? SVG.bottom : SVG.slanted;
  const scale = linearScale(
    points.map((point) => point.value),
    height - bottom,
    top,
  );
  const drawing = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, resultAxis(scale, width));
  const summary = [];
  texts.forEach((text, index) => {
    const x = left + room * (index + 0.5);
    const own = points.filter((point) => point.text === text);
    own.forEach((point, order) => {
      const aside = (((order * 7) % 11) / 10 - 0.5) * Math.min(room * 0.45, 36);
      drawing.append(pointAt(x + aside, scale.position(point.value), point));
    });
    if (own.length) {
      const middle = mean(own.map((point) => point.value));
      const half = Math.min(room * 0.35, 26);
      const y = scale.position(middle);
      drawing.append(makeSvg("line", { class: "mean", x1: x - half, x2: x + half, y1: y, y2: y }));
      summary.push(`${text}: mean ${shown(middle)} of ${own.length}`);
    }
    drawing.append(categoryLabel(x, height - bottom + 16, compact(text), room));
  });
  drawing.append(textAt((width + left - right) / 2, height - 6, name, { "text-anchor": "middle", class: "name" }));
  drawing.setAttribute("aria-label", `${name}. ${summary.join("; ")}`);
  return drawing;
}

// A point for each run over the values of a setting. points: {x, value, title, group, color}.
function scatterPlot(name, points) {
  const { width, height, left, right, top, bottom } = SVG;
  const scale = linearScale(
    points.map((point) => point.value),
    height - bottom,
    top,
  );
  const across = settingScale(
    points.map((point) => point.x),
    left,
    width - right,
  );
  const label = `${name}: ${points.length} runs, each a point`;
  const drawing = makeSvg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    resultAxis(scale, width),
  );
  for (const point of points) drawing.append(pointAt(across.position(point.x), scale.position(point.value), point));
  for (const [x, text] of across.ticks)
    drawing.append(textAt(x, height - bottom + 16, text, { "text-anchor": "middle" }));
  drawing.append(textAt((width + left - right) / 2, height - 6, name, { "text-anchor": "middle", class: "name" }));
  return drawing;
}

function pointAt(x, y, { title, group, color: fill }) {
  const dot = makeSvg("circle", { cx: x, cy: y, r: 3.5, fill, "fill-opacity": 0.75 }, makeSvg("title", {}, title));
  dot.addEventListener("click", () => change({ chosen: group }));
  return dot;
}

// A line for each group across an axis for each setting, and one for the result.
// settings: {name, texts, numbers}, numbers if they have places of their own; lines: {texts, numbers, value, title, group, color}.
function parallelCoordinates(settings, lines) {
  const width = Math.max(560, (settings.length + 1) * 150);
  const [height, top, bottom] = [300, 16, 44];
  const xOf = (index) => 60 + (index * (width - 150)) / settings.length;
  const result = linearScale(
    lines.map((line) => line.value),
    height - bottom,
    top,
  );
  const axes = settings.map((setting) => settingAxis(setting, lines.length, height - bottom, top));
  const label = `${settings.length} settings and the result, a line for each group`;
  const drawing = makeSvg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": label,
    class: "wide",
  });
  [...lines].reverse().forEach((line, order) => {
    const places = axes.map((axis, index) => [
      xOf(index),
      axis.position(line.texts[index], line.numbers[index], order),
    ]);
    places.push([xOf(settings.length), result.position(line.value)]);
    const path = makeSvg("path", {
      d: `M${places.map((place) => place.join(",")).join("L")}`,
      class: "group",
      stroke: line.color,
    });
    path.append(makeSvg("title", {}, line.title));
    path.addEventListener("click", () => change({ chosen: line.group }));
    drawing.append(path);
  });
  const names = [...settings.map(({ name }) => name), currentTable().column];
  [...axes, result].forEach(({ ticks }, index) => {
    drawing.append(makeSvg("line", { class: "axis", x1: xOf(index), x2: xOf(index), y1: top, y2: height - bottom }));
    for (const [y, text] of ticks)
      drawing.append(textAt(xOf(index) + 6, y + 4, shortened(compact(text), 16), { class: "value" }));
    drawing.append(
      textAt(xOf(index), height - 20, shortened(names[index], 24), { "text-anchor": "middle", class: "name" }),
    );
  });
  return drawing;
}

// Places on an axis: by size for many numbers, else one for each value, with lines next to each other.
function settingAxis({ texts, numbers }, lines, low, high) {
  if (numbers) {
    const { position, ticks } = settingScale(numbers, low, high);
    return { position: (text, number) => position(number), ticks };
  }
  const room = (low - high) / texts.length;
  const places = new Map(texts.map((text, index) => [text, low - room * (index + 0.5)]));
  const aside = (order) => (lines > 1 ? (order / (lines - 1) - 0.5) * Math.min(26, room * 0.6) : 0);
  return {
    position: (text, number, order) => places.get(text) + aside(order),
    ticks: [...places].map(([text, y]) => [y, text]),
  };
}

// The colour between two colours of the style, #rrggbb each, and one for text on it.
function between(share) {
  const parts = (name) =>
    color(name)
      .match(/[0-9a-f]{2}/gi)
      .map((text) => parseInt(text, 16));
  const [low, high] = [parts("heat-low"), parts("heat-high")];
  const mixed = low.map((part, index) => Math.round(part + (high[index] - part) * share));
  const light = (mixed[0] * 299 + mixed[1] * 587 + mixed[2] * 114) / 1000;
  return [`rgb(${mixed.join(",")})`, light > 140 ? "#14181d" : "#ffffff"];
}
