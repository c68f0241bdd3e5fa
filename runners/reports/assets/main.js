// Start everything, and draw again where colours change: dark mode, and paper.

if (DATA.tables.length) {
  for (const id of ["curves"]) byId(id).hidden = false;
  setUpFilters();
  setUpTables();
  setUpCurves();
  setUpEffects();
  setUpDetails();
  setUpComparison();
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => change({}));
  }
}
document.documentElement.dataset.ready = "true";
