"""How large the page of a report is, and how long Chromium takes to open it: `python -m benchmarks.report_page`.

The runs are written without training, in the files that real ones have. Needs the extra `browser`, and Chromium.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools import browser
from tools.written_runs import write_many

OPTIMIZERS, SEEDS, OPENED = 4, 5, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help=f"a multiple of {OPTIMIZERS * SEEDS} (default 200)")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    count = options.runs // (OPTIMIZERS * SEEDS)
    rates = [10 ** (-1 - 2 * index / max(count - 1, 1)) for index in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        runs, page = Path(folder, "runs"), Path(folder, "page.html")
        write_many(runs, rates, SEEDS, options.epochs)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "runners.report", runs, "--html", page], check=True)
        print(f"writing it took {time.perf_counter() - start:.2f} s, the interpreter's start included")
        with browser.browser() as driver:
            times = []
            for _ in range(OPENED):
                browser.open_page(driver, page)
                times.append(browser.loading_time(driver))
            problems = browser.console(driver)
        shown = ", ".join(f"{seconds:.2f}" for seconds in times)
        print(f"{page.stat().st_size / 1e6:.2f} MB; opened in {shown} s; on the console: {problems or 'nothing'}")


if __name__ == "__main__":
    main()
