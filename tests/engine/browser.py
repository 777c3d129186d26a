"""A headless browser with one page, for tests; they skip where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)
READY = "return document.documentElement.dataset.ready !== undefined"


@contextmanager
def browser(profile: Path, *, dark: bool = False, width: int = 1280) -> Iterator[Any]:
    """Start chromium with a profile of its own; downloads go into ``profile``."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_script_timeout(240)
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        opened.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(profile)})
        yield opened
    finally:
        opened.quit()


def visit(opened: Any, page: Path) -> None:
    """Open a page and wait until its script has run."""
    opened.get(page.as_uri())
    until(opened, READY)


def until(opened: Any, script: str, *arguments: Any, seconds: float = 240) -> Any:
    """Run a script until what it returns is true, and return that."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(opened, seconds, 0.05).until(lambda driver: driver.execute_script(script, *arguments))
