"""What a page in a browser shows."""

from __future__ import annotations

from typing import Any


def run_script(driver: Any, script: str, *arguments: Any) -> Any:
    return driver.execute_script(f"return {script}", *arguments)


def cells(driver: Any, rows_of: str = ".result:not([hidden]) tbody tr:not([hidden])") -> list[list[str]]:
    """The texts of the rows that can be seen."""
    script = (
        f"[...document.querySelectorAll('{rows_of}')].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )
    found: list[list[str]] = run_script(driver, script)
    return found


def listed(driver: Any) -> list[str]:
    """The names in the list of values next to the chart."""
    return [row[0] for row in cells(driver, "#values tbody tr")]


def click(driver: Any, selector: str) -> None:
    driver.find_element("css selector", selector).click()


def ink(driver: Any) -> int:
    """How many pixels of the chart are drawn on."""
    script = """(() => { const canvas = document.querySelector('#chart canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      let count = 0; for (let i = 3; i < data.length; i += 4) count += data[i] > 0; return count; })()"""
    return int(run_script(driver, script))
