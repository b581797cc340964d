"""The dev Manager's page in a real Chromium while its Manager hangs, or is gone."""

from collections.abc import Callable

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from tests.support.browser import contrast, view
from tests.support.harness import until
from tests.support.manager_process import ManagerProcess, killable

pytestmark = pytest.mark.process

# What is filled in, all of it other than at first.
FILLED = {"direction": "both ways", "protocol": "udp", "parallel": "3", "time_seconds": "77"}


def shown(driver: Chrome, selector: str) -> bool:
    """Whether an element of that CSS selector is there to be seen."""
    return any(each.is_displayed() for each in driver.find_elements("css selector", selector))


def fill_in(driver: Chrome) -> None:
    """Fill in the form."""
    for name, value in FILLED.items():
        field = driver.find_element("name", name)
        if field.tag_name == "input":
            field.send_keys(Keys.CONTROL, "a")
        field.send_keys(value)


def filled_in(driver: Chrome) -> dict[str, str | None]:
    """What the form has."""
    return {name: driver.find_element("name", name).get_attribute("value") for name in FILLED}


@pytest.mark.parametrize(
    ("leave", "come_back"),
    [
        (ManagerProcess.freeze, ManagerProcess.thaw),
        (ManagerProcess.kill, ManagerProcess.start),
    ],
    ids=["hangs", "gone"],
)
def test_a_start_while_it_is_away_says_so_and_loses_nothing(
    driver: Chrome,
    leave: Callable[[ManagerProcess], None],
    come_back: Callable[[ManagerProcess], None],
) -> None:
    with killable() as manager, view(driver):
        assert manager.api.agent("register", {"ip_address": "127.0.0.1"}).ok
        phone = {"width": 390, "height": 500, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        driver.get(manager.url)
        fill_in(driver)
        assert filled_in(driver) == FILLED
        leave(manager)
        start = driver.find_element("css selector", "form[method=post] button")
        start.send_keys(Keys.ENTER)
        until(lambda: shown(driver, "#unsent"))
        assert contrast(driver, "#unsent") >= 4.5
        told = driver.find_element("id", "lost")
        assert told.aria_role == "alert"
        assert "The dev Manager does not answer." in told.text
        assert "Nothing was sent" in told.text
        assert filled_in(driver) == FILLED
        # It is seen from wherever the button is.
        driver.execute_script("document.querySelector('footer').scrollIntoView()")
        assert driver.execute_script("return scrollY") > 0
        assert driver.execute_script("return arguments[0].getBoundingClientRect().top", told) >= 0

        come_back(manager)
        until(lambda: not shown(driver, "#lost") and not shown(driver, "#unsent"))
        assert filled_in(driver) == FILLED
        # What was pressed in vain does not start a test when the Manager comes back.
        assert manager.api.call("GET", "exercises").json() == []
        assert manager.api.agent("register", {"ip_address": "127.0.0.1"}).ok
        start.send_keys(Keys.ENTER)
        until(lambda: driver.title.startswith("Test 1 "))
        tests = manager.api.call("GET", "exercises/1").json()["tests"]
        assert [(test["udp"], test["parallel"], test["time_seconds"]) for test in tests] == [
            (True, 3, 77)
        ]


def test_a_manager_with_another_password_wants_its_page_loaded_again(driver: Chrome) -> None:
    with killable() as manager, view(driver):
        assert manager.api.agent("register", {"ip_address": "127.0.0.1"}).ok
        driver.get(manager.url)
        manager.kill()
        until(lambda: shown(driver, "#lost"))
        manager.start("another")
        until(lambda: shown(driver, "#stale"))
        assert not shown(driver, "#lost")
        assert "load this page again" in driver.find_element("id", "stale").text
        assert contrast(driver, "#stale") >= 4.5
        driver.find_element("css selector", "form[method=post] button").send_keys(Keys.ENTER)
        manager.kill()
        manager.start()
        until(lambda: not shown(driver, "#stale") and not shown(driver, "#lost"))
        assert manager.api.call("GET", "exercises").json() == []


def test_a_manager_that_hangs_is_noticed(driver: Chrome) -> None:
    with killable() as manager, view(driver):
        driver.get(manager.url)
        manager.freeze()
        until(lambda: shown(driver, "#lost"))
        # Nobody has pressed anything.
        assert not shown(driver, "#unsent")
        manager.thaw()
        until(lambda: not shown(driver, "#lost"))
