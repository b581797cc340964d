"""The dev Manager's page in a real Chromium, with two hundred agents and many tests."""

import re
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from agent.dev.server import DevManager
from agent.dev.store.store import Store
from tests.support.browser import complaints, overflow, view
from tests.support.harness import until
from tests.support.two_hundred import COUNT, add_fleet

pytestmark = pytest.mark.process

PHONE, DESK = 390, 1280
TESTS = 40
# Of an agent's row, as a screen shows it.
ROWS = "#agents tbody tr"


@pytest.fixture(name="fleet", scope="module")
def fixture_fleet() -> Iterator[DevManager]:
    """A dev Manager with a fleet and forty tests, of which the last was never started."""
    store = Store()
    first, second, *_ = add_fleet(store)
    for number in range(TESTS):
        exercise = store.exercises.create("x", 10)
        store.exercises.add_test(exercise.id, second, first, 5201)
        if number < TESTS - 1:
            store.exercises.stop(exercise.id)
    manager = DevManager(store, "127.0.0.1", 0)
    manager.start()
    yield manager
    manager.stop()


def top(driver: Chrome, selector: str) -> float:
    """How far an element is below the top of the page, in CSS pixels."""
    (element,) = driver.find_elements("css selector", selector)
    return float(element.rect["y"])


def choices(driver: Chrome, name: str) -> list[str]:
    """What a field has to choose from."""
    return [each.text for each in driver.find_elements("css selector", f"[name={name}] option")]


def chosen(driver: Chrome, name: str) -> str:
    """What is chosen in a field."""
    script = "return document.getElementsByName(arguments[0])[0].selectedOptions[0].text"
    return str(driver.execute_script(script, name))


def rows(driver: Chrome) -> list[str]:
    """The names of the agents in the list."""
    script = f"return [...document.querySelectorAll('{ROWS} th')].map((e) => e.firstChild.data)"
    return list(driver.execute_script(script))


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_two_hundred_agents_leave_room_for_the_result(
    driver: Chrome, fleet: DevManager, width: int
) -> None:
    with view(driver, width=width):
        driver.get(fleet.url)
        assert len(rows(driver)) == COUNT
        assert overflow(driver) == 0
        # Three views of 1,200 pixels, form, result and a dozen tests included; it was twenty.
        height = driver.execute_script("return document.documentElement.scrollHeight")
        assert height < 3600, height
        form, result = top(driver, "form[method=post]"), top(driver, "#result")
        assert result < 1200
        if width == PHONE:
            assert form < result < top(driver, "#tests") < top(driver, "#agents")
        assert complaints(driver) == []


def test_agents_are_found_by_what_is_typed(driver: Chrome, fleet: DevManager) -> None:
    with view(driver, width=PHONE):
        driver.get(f"{fleet.url}/?test=7")
        assert "199 of 200 are online." in driver.find_element("id", "agents").text
        seconds = driver.find_element("name", "time_seconds")
        seconds.send_keys(Keys.CONTROL, "a")
        seconds.send_keys("77")
        find = driver.find_element("id", "find")
        find.send_keys("LISBON-07")
        until(lambda: rows(driver) == [f"lisbon-{n:03}" for n in range(70, 80)])
        # What was chosen before can still be chosen.
        assert len(choices(driver, "client_agent_id")) == 11
        driver.find_element("name", "client_agent_id").send_keys("lisbon-077")
        find.clear()
        # Its state, as the page says it; no text is found where there is none.
        find.send_keys(" Never registered ")
        until(lambda: rows(driver) == ["vienna-200"])
        find.clear()
        find.send_keys("none")
        until(lambda: rows(driver) == [])
        find.clear()
        find.send_keys("vienna-200")
        until(lambda: rows(driver) == ["vienna-200"])
        assert "1 of them match" in driver.find_element("id", "agents").text
        assert chosen(driver, "client_agent_id") == "lisbon-077"
        assert sorted(choices(driver, "server_agent_id")) == [
            "berlin-002",
            "vienna-200, never registered",
        ]
        assert seconds.get_attribute("value") == "77"
        assert "Test 7" in driver.find_element("id", "title").text
        # Enter is no reason to lose what was filled in.
        find.send_keys(Keys.ENTER)
        find.send_keys(Keys.CONTROL, "a")
        find.send_keys("10.20.3.")
        until(lambda: len(rows(driver)) == 50)
        assert seconds.get_attribute("value") == "77"
        assert driver.switch_to.active_element == find


def test_an_answer_that_comes_late_is_not_shown(driver: Chrome, fleet: DevManager) -> None:
    late = """
        const usual = fetch;
        window.fetch = async (url, how) => {
            const answer = await usual(url, how);
            if (url.endsWith("find=vienna")) await new Promise((then) => window.arrive = then);
            return answer;
        };
    """
    with view(driver, width=DESK):
        driver.get(fleet.url)
        driver.execute_script(late)
        find = driver.find_element("id", "find")
        find.send_keys("vienna")
        until(lambda: driver.execute_script("return Boolean(window.arrive)"))
        find.send_keys("-200")
        until(lambda: rows(driver) == ["vienna-200"])
        shown = """
            const shown = new MutationObserver(() => then(false));
            const then = arguments[0];
            shown.observe(document.getElementById("agents"), { childList: true });
            window.arrive();
            setTimeout(() => then(true), 300);
        """
        assert driver.execute_async_script(shown)


def test_the_list_of_agents_stays_where_it_was_scrolled(driver: Chrome, fleet: DevManager) -> None:
    with view(driver, width=PHONE):
        driver.get(fleet.url)
        (agents,) = driver.find_elements("css selector", "#agents")
        driver.execute_script("arguments[0].scrollTop = 2000", agents)
        store: Store = fleet._store
        store.agents.update(150, {"operating_system": "Plan 9"})
        until(lambda: "Plan 9" in (agents.get_attribute("textContent") or ""))
        assert agents.get_property("scrollTop") == 2000


def test_without_scripts_agents_are_found_and_older_tests_shown(
    driver: Chrome, fleet: DevManager
) -> None:
    with view(driver, width=PHONE, javascript=False):
        driver.get(f"{fleet.url}/?test=40")
        driver.find_element("id", "find").send_keys("oslo", Keys.ENTER)
        until(lambda: len(rows(driver)) == 50)
        seen = []
        while True:
            links = driver.find_elements("css selector", "#tests th a")
            seen += [int(re.findall(r"\d+", each.text)[0]) for each in links]
            older = driver.find_elements("link text", "Older")
            if not older:
                break
            older[0].click()
            until(lambda: f"{seen[-1] - 1}: " in driver.find_element("id", "tests").text)
        assert seen == list(range(TESTS, 0, -1))
        # What was looked for and shown before is still there.
        assert len(rows(driver)) == 50
        assert "Test 40" in driver.find_element("id", "title").text
        driver.find_element("id", "test-2").click()
        until(lambda: "Test 2:" in driver.find_element("id", "title").text)
        driver.find_element("link text", "Newest").click()
        until(lambda: "40: " in driver.find_element("id", "tests").text)
        assert "Test 2:" in driver.find_element("id", "title").text
