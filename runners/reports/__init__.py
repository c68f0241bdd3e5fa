"""Results of runs and sweeps: read from their files, grouped by config, shown as tables or a page. Imports files."""
