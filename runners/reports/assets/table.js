// The rows of the tables: a box that hides a group's curve, a button that shows its details, columns that sort.

const ROWS = new Map(); // group -> its row

function setUpTables() {
  document.querySelectorAll(".result").forEach((section) => {
    const table = DATA.tables[Number(section.dataset.table)];
    const heads = section.querySelectorAll("thead th");
    heads.forEach((head, column) => makeSortable(section, head, column));
    const all = make("input", {
      type: "checkbox",
      checked: true,
      "aria-label": "show all curves",
      onchange: () => hideAll(!all.checked),
    });
    section.querySelector("thead tr").prepend(make("th", { scope: "col", className: "pick" }, all));
    section.querySelectorAll("tbody tr").forEach((row) => setUpRow(row, table.groups[Number(row.dataset.rank)]));
  });
  onChange(updateTables);
  updateTables();
}

function hideAll(hide) {
  const hidden = new Set(state.hidden);
  for (const group of listedGroups()) hide ? hidden.add(group) : hidden.delete(group);
  change({ hidden });
}

function setUpRow(row, group) {
  ROWS.set(group, row);
  const label = groupLabel(group);
  const box = make("input", {
    type: "checkbox",
    checked: true,
    "aria-label": `show the curve of ${label}`,
    onchange: () => toggle(group, !box.checked),
  });
  const choose = make(
    "button",
    {
      type: "button",
      className: "choose",
      "aria-label": `details of ${label}`,
      onclick: () => change({ chosen: group }),
    },
    "›",
  );
  row.prepend(make("td", { className: "pick" }, box, make("span", { className: "swatch" }), choose));
  row.addEventListener("click", (event) => {
    if (!event.target.closest("input, button, a")) change({ chosen: group });
  });
}

function toggle(group, hide) {
  const hidden = new Set(state.hidden);
  hide ? hidden.add(group) : hidden.delete(group);
  change({ hidden });
}

function updateTables() {
  document
    .querySelectorAll(".result")
    .forEach((section) => (section.hidden = Number(section.dataset.table) !== state.table));
  const colors = groupColors();
  const listed = new Set(listedGroups());
  for (const box of document.querySelectorAll(".result thead input"))
    box.checked = visibleGroups().length === listed.size;
  for (const group of currentTable().groups) {
    const row = ROWS.get(group);
    row.hidden = !listed.has(group);
    row.classList.toggle("faint", state.hidden.has(group));
    row.classList.toggle("chosen", state.chosen === group);
    row.querySelector(".choose").setAttribute("aria-pressed", String(state.chosen === group));
    row.querySelector("input").checked = !state.hidden.has(group);
    row.querySelector(".swatch").style.backgroundColor = colors.get(group) || "transparent";
  }
}

function makeSortable(section, head, column) {
  const text = head.textContent;
  head.replaceChildren(
    make("button", { type: "button", className: "sort", onclick: () => sortRows(section, head, column) }, text),
  );
}

function sortRows(section, head, column) {
  const descending = head.getAttribute("aria-sort") === "ascending";
  section.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = section.querySelector("tbody");
  const key = (row) => {
    const text = row.cells[column + 1].textContent;
    return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
  };
  const rows = [...body.rows].sort((a, b) => compareValues(key(a), key(b)));
  body.append(...(descending ? rows.reverse() : rows));
}
