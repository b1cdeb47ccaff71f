"""A headless Chromium, driven by Selenium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kit.waiting import PATIENCE


def find_browser() -> tuple[str, str]:
    """Chromium and its driver; without them the test is skipped and says so."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if not found[0] or not found[1]:
        pytest.skip("no chromium and chromedriver on PATH (Debian: apt-get install chromium chromium-driver)")
    return found[0], found[1]


@contextmanager
def chromium(browser: str, driver: str, profile: Path, size: tuple[int, int] = (1180, 1060)) -> Iterator[Any]:
    """A window without a screen; WebGL is computed, and nothing is downloaded, for both paths are given."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run"),
        *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "--lang=en"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield window
    finally:
        window.quit()


def wait_for(window: Any, what: Callable[[Any], Any]) -> Any:
    """Wait until a page shows something; what it is asked for may not be there yet."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, TimeoutException
    from selenium.webdriver.support.wait import WebDriverWait

    ignored = (NoSuchElementException, StaleElementReferenceException)
    try:
        return WebDriverWait(window, PATIENCE, ignored_exceptions=ignored).until(what)
    except TimeoutException:
        pytest.fail(f"the page does not show it:\n{window.find_element('tag name', 'body').text}")
