"""Pages in headless Chromium: what they print to the console, what they request, how they look."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
DRIVER = Path("/usr/bin/chromedriver")
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


@contextmanager
def browser(width: int = 1280, height: int = 900) -> Iterator[Any]:
    """Selenium's driver of a Chromium with an empty profile."""
    from selenium import webdriver

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for switch in (*SWITCHES, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
        try:
            driver.get("about:blank")  # instead of Chromium's own first page, which requests much
            driver.get_log("performance")
            size(driver, width, height)
            yield driver
        finally:
            driver.quit()


def size(driver: Any, width: int, height: int) -> None:
    """Set the size of the page's view."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def colors(driver: Any, scheme: str) -> None:
    """Prefer `light` or `dark` colours."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def open_page(driver: Any, file: Path) -> None:
    driver.get(file.absolute().as_uri())


def console(driver: Any) -> list[str]:
    """What has been printed to the console since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: Any) -> list[str]:
    """The addresses that have been requested since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def loading_time(driver: Any) -> float:
    """Seconds from the start of the navigation to the end of the page's load event, scripts and drawing included."""
    milliseconds = driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    return float(milliseconds) / 1000


def screenshot(driver: Any, file: Path, *, whole: bool = True) -> None:
    """A PNG of the whole page, or of the part that is in view."""
    options = {"format": "png", "captureBeyondViewport": whole}
    if whole:
        content = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        options["clip"] = {"x": 0, "y": 0, "width": content["width"], "height": content["height"], "scale": 1}
    file.write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]))


def print_page(driver: Any, file: Path) -> None:
    """The page as a PDF."""
    printed = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    file.write_bytes(base64.b64decode(printed["data"]))
