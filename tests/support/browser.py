"""A real Chromium without a screen, driven by selenium: what a person at a page sees and does."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

CHROMIUM, DRIVER = "chromium", "chromedriver"
# No sandbox, or root could not run it; nothing goes to its maker, and no name is looked up.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@contextmanager
def browser() -> Iterator[Chrome]:
    """A browser with a fresh profile. Skips the test without Chromium, and fails it in CI."""
    _check_installed()
    # Chromium leaves files behind in its temporary directory.
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        own = ChromeService(shutil.which(DRIVER), env={**os.environ, "TMPDIR": directory})
        driver = Chrome(_options(), own)
        try:
            yield driver
        finally:
            driver.quit()


@contextmanager
def view(
    driver: Chrome, width: int = 1000, dark: bool = False, javascript: bool = True
) -> Iterator[None]:
    """A tab of its own, that many CSS pixels wide, which is closed again.

    Without `javascript` no page's script runs, yet `execute_script` does.
    """
    first = driver.current_window_handle
    driver.switch_to.new_window("tab")
    try:
        metrics = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        without = {"value": not javascript}
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", without)
        # What is still to be told of another view.
        complaints(driver)
        requests_made(driver)
        yield
    finally:
        driver.close()
        driver.switch_to.window(first)


def complaints(driver: Chrome) -> list[str]:
    """What the console has said since this was last asked: errors, and what was blocked."""
    return [
        entry["message"]
        for entry in driver.get_log("browser")  # type: ignore[no-untyped-call]
        if entry["level"] in ("WARNING", "SEVERE")
    ]


def requests_made(driver: Chrome) -> list[str]:
    """The URLs that the page has asked for over the network since this was last asked."""
    sent = []
    for entry in driver.get_log("performance"):  # type: ignore[no-untyped-call]
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            sent.append(event["params"]["request"]["url"])
    return [url for url in sent if urlsplit(url).scheme not in ("data", "blob", "chrome")]


def overflow(driver: Chrome) -> int:
    """How many CSS pixels of the page's width lie outside the view."""
    root = "document.documentElement"
    return int(driver.execute_script(f"return {root}.scrollWidth - {root}.clientWidth"))


def contrast(driver: Chrome, selector: str) -> float:
    """The contrast of an element's text with what lies behind it, as WCAG 2 defines it."""
    text, behind = driver.execute_script(
        """
        let element = document.querySelector(arguments[0]);
        const text = getComputedStyle(element).color;
        let behind = "rgba(0, 0, 0, 0)";
        for (; element && behind === "rgba(0, 0, 0, 0)"; element = element.parentElement) {
          behind = getComputedStyle(element).backgroundColor;
        }
        return [text, behind];
        """,
        selector,
    )
    darker, lighter = sorted((_luminance(text), _luminance(behind)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = colour[colour.index("(") + 1 : -1].split(",")[:3]
    linear = []
    for channel in channels:
        value = float(channel) / 255
        linear.append(value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _options() -> ChromeOptions:
    options = ChromeOptions()
    options.binary_location = shutil.which(CHROMIUM) or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return options


def _check_installed() -> None:
    missing = [name for name in (CHROMIUM, DRIVER) if not shutil.which(name)]
    if not missing:
        return
    words = f"{' and '.join(missing)} not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{words}: CI must not skip")
    pytest.skip(words)
