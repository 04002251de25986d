"""Headless Chromium for tests; a module that imports this is skipped, with the reason, where it cannot be had."""

import shutil
from collections.abc import Iterator

import pytest

pytest.importorskip("selenium", reason="the browser tests need selenium: pip install selenium")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

__all__ = ["By", "Keys", "started"]

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip(
        "the browser tests need chromium and chromedriver: apt install chromium chromium-driver",
        allow_module_level=True,
    )


def started() -> Iterator[webdriver.Chrome]:
    """One browser, which logs its requests and what went wrong; closed at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=DRIVER))
    yield driver
    driver.quit()
