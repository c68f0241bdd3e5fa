// Which rows and curves are there: by the values of the settings, and by a text.

const CHIPS = 10; // a setting with more values has a list instead of boxes

function setUpFilters() {
  const choice = byId("choice");
  if (DATA.tables.length > 1) {
    choice.hidden = false;
    const names = DATA.tables.map((table, place) => [
      String(place),
      table.task ? `${table.column} (${table.task})` : table.column,
    ]);
    choice.append(
      makeSelect("runs compared by", names, "0", (place) =>
        change({ table: Number(place), filters: new Map(), search: "", chosen: null }),
      ),
    );
  }
  onChange((values) => "table" in values && fillFilters());
  fillFilters();
}

function fillFilters() {
  const { columns, groups } = currentTable();
  const section = byId("filters");
  section.hidden = groups.length < 2;
  const search = make("input", {
    type: "search",
    placeholder: "name, tag, folder",
    oninput: () => change({ search: search.value }),
  });
  const parts = columns.map((name, column) => filterOf(name, column)).filter(Boolean);
  section.replaceChildren(
    ...parts,
    make("label", { className: "search" }, make("span", { className: "legend" }, "search"), search),
  );
}

// The texts of a column, in the order of their values.
function columnTexts(column) {
  const values = new Map();
  for (const group of currentTable().groups) {
    const { settings, values: numbers } = GROUPS[group];
    values.set(settings[column], numbers[column] ?? settings[column]);
  }
  return [...values].sort((a, b) => compareValues(a[1], b[1])).map(([text]) => text);
}

function filterOf(name, column) {
  const texts = columnTexts(column);
  if (texts.length < 2) return null;
  const allow = (allowed) => {
    const filters = new Map(state.filters);
    allowed.size === texts.length ? filters.delete(column) : filters.set(column, allowed);
    change({ filters });
  };
  const numbers = texts.map(Number);
  if (texts.length > CHIPS && numbers.every(Number.isFinite))
    return make("fieldset", {}, make("legend", {}, name), ...rangeOf(name, texts, allow));
  if (texts.length > CHIPS) {
    const options = [["", "all"], ...texts.map((text) => [text, compact(text)])];
    const select = makeSelect("", options, "", (text) => allow(new Set(text === "" ? texts : [text])));
    return make("fieldset", {}, make("legend", {}, name), select);
  }
  const allowed = new Set(texts);
  const boxes = texts.map((text) =>
    makeCheckbox(compact(text), true, (on) => {
      on ? allowed.add(text) : allowed.delete(text);
      allow(new Set(allowed));
    }),
  );
  return make("fieldset", {}, make("legend", {}, name), ...boxes);
}

// Two fields, for the lowest and the highest value.
function rangeOf(name, texts, allow) {
  const fields = ["from", "to"].map((end) =>
    make("input", { type: "number", step: "any", placeholder: end, "aria-label": `${name} ${end}`, oninput: narrow }),
  );
  function narrow() {
    const [low, high] = fields.map((field) => (field.value === "" ? null : Number(field.value)));
    allow(
      new Set(texts.filter((text) => (low === null || Number(text) >= low) && (high === null || Number(text) <= high))),
    );
  }
  return [fields[0], " ", fields[1]];
}
