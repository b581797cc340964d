"""The dev Manager's page in a real Chromium, with two real agents."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from agent.dev.server import DevManager
from agent.dev.store.records import utc_now
from agent.dev.store.store import Store
from tests.support.browser import complaints, contrast, overflow, requests_made, view
from tests.support.harness import ROOT, Bench, until

DOCUMENT = (ROOT / "tests/iperf3/data/3.12/tcp-unlimited.stdout").read_bytes()
# As WCAG 2 asks for of text (AA).
READABLE = 4.5
TEXTS = ("h1", "header p", "label", "small", "td.online", ".succeeded", "button", "a", ".figure")


def test_a_stop_that_was_refused_leaves_a_page_that_works(driver: Chrome, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    store = Store(state_file=path)
    for name in ("a1", "a2"):
        store.agents.register(store.agents.add(name, f"key-of-{name}").id, "127.0.0.1", "Linux")
    exercise = store.exercises.create("x", 60)
    store.exercises.add_test(exercise.id, 1, 2, 5201)
    store.exercises.start(exercise.id)
    manager = DevManager(store, "127.0.0.1", 0)
    manager.start()
    # Where the new file would be, no file can be written.
    hindrance = path.with_name(f"{path.name}.new")
    try:
        with view(driver):
            driver.get(f"{manager.url}/?test=1")
            hindrance.mkdir()
            find(driver, "#stop-button").click()
            until(lambda: "cannot be written" in driver.page_source)
            before = find(driver, "#now").text
            until(lambda: find(driver, "#now").text != before)
            assert not find(driver, "#lost").is_displayed()
            hindrance.rmdir()
    finally:
        manager.stop()


@pytest.fixture(name="pair", scope="module")
def fixture_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A dev Manager and its two agents at work, the same for all tests of this module."""
    bench = Bench(Store(), tmp_path_factory.mktemp("pair"))
    bench.manager.start()
    try:
        for number in (1, 2):
            bench.agent(number=number, HEARTBEAT_INTERVAL="0.2").wait_for("registered")
        yield bench
    finally:
        bench.close()


def find(driver: Chrome, selector: str) -> WebElement:
    """The one element of that CSS selector."""
    (element,) = driver.find_elements("css selector", selector)
    return element


def bars(driver: Chrome) -> list[tuple[str, str]]:
    """Role and name of each progress bar; none if a reload replaced one in the meantime."""
    try:
        found = driver.find_elements("css selector", "progress")
        return [(bar.aria_role, bar.accessible_name) for bar in found]
    except StaleElementReferenceException:
        return []


def press(driver: Chrome, *keys: str) -> None:
    """Press keys one by one; each goes to what has the focus at that moment."""
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def words(driver: Chrome, selector: str) -> str:
    """The text of an element that a reload may replace at any moment; empty in between."""
    script = "return document.querySelector(arguments[0])?.textContent ?? ''"
    return str(driver.execute_script(script, selector)).strip()


def status(driver: Chrome) -> str:
    """What a screen reader is told about the test."""
    return words(driver, "[role=status]")


def all_ended(bench: Bench) -> bool:
    """Whether every exercise has ended."""
    return all(exercise.ended_at for exercise in bench.store.exercises.all())


@pytest.fixture(name="finished")
def fixture_finished(bench: Bench) -> Bench:
    """A dev Manager with a finished test, 1, whose document a real iperf3 wrote, and no agents."""
    store = bench.store
    for number in (1, 2):
        store.agents.register(number, f"10.0.0.{number}", "Debian GNU/Linux 12 (bookworm)")
    store.exercises.create("x")
    new = store.exercises.add_test(1, 1, 2, 5201)
    store.exercises.start(1)
    for task in (new.server_task, new.client_task):
        store.sweep(utc_now())
        store.tasks.claim(task.agent_id)
        store.tasks.report(task.agent_id, task.id, "succeeded", msgspec.Raw(DOCUMENT))
    bench.wait(lambda: all_ended(bench))
    return bench


@pytest.mark.slow
def test_a_test_is_started_and_watched_by_the_keyboard_alone(driver: Chrome, pair: Bench) -> None:
    # The test's clock has run for a second when the page says so, for it asks once a second.
    with view(driver):
        driver.get(pair.manager.url)
        until(lambda: "a1" in find(driver, "#agents").text)
        press(driver, Keys.TAB)
        names = []
        for keys in ("a2", "a1", "", "T", "2", "6", "5212", "50M", "", "ef", "4", "127.0.0.1"):
            field = driver.switch_to.active_element
            names.append(field.accessible_name)
            if field.tag_name == "input":
                field.send_keys(Keys.CONTROL, "a")
            press(driver, keys, Keys.TAB)
        assert names == [
            *("Client", "Server", "Direction", "Protocol", "Streams", "Seconds", "Port"),
            *("Bitrate", "Seconds to omit", "DSCP", "IP version", "Bind"),
        ]
        assert driver.switch_to.active_element.accessible_name == "Start"
        press(driver, Keys.ENTER)

        until(lambda: status(driver).startswith("running"))
        until(lambda: (seen := bars(driver)) and all(role and name for role, name in seen))
        until(lambda: {role for role, _ in bars(driver)} == {"progressbar"})
        until(lambda: status(driver).startswith("succeeded"))
        figure = find(driver, "#detail svg")
        assert figure.accessible_name.startswith("Throughput over 6")
        assert (find(driver, "path.curve").get_attribute("d") or "").count("L") >= 3
        client = pair.store.tasks.get(pair.store.exercises.tests()[-1].client_task_id)
        # Of six seconds a busy host may skip one, or make one longer.
        intervals = pair.result(client)["intervals"]
        assert len(driver.find_elements("css selector", "#detail circle")) == len(intervals) >= 5
        assert "sent by a2" in find(driver, "#detail").text
        assert driver.title.startswith("Test ")

        find(driver, "#readings summary").send_keys(Keys.ENTER)
        assert f"0.0 to {intervals[0]['sum']['end']:.1f}" in find(driver, "#readings").text
        assert complaints(driver) == []
        assert {url.split("/")[2] for url in requests_made(driver)} == {
            f"127.0.0.1:{pair.manager.port}"
        }
    assert (client.agent_id, client.payload["parallel"], client.payload["time"]) == (2, 2, 6)
    argv = pair.result(client)["agent"]["argv"]
    given = {"-b": "50000000", "--dscp": "ef", "-B": "127.0.0.1"}
    assert given.items() <= dict(zip(argv, argv[1:])).items() and "-4" in argv
    pair.wait(lambda: all_ended(pair))


@pytest.mark.slow
def test_without_scripts_it_starts_a_test_and_shows_its_curve(driver: Chrome, pair: Bench) -> None:
    pair.wait(lambda: all_ended(pair))
    with view(driver, javascript=False):
        driver.get(pair.manager.url)
        for name, value in (("time_seconds", "1"), ("server_port", "5213")):
            field = find(driver, f"[name={name}]")
            field.clear()
            field.send_keys(value)
        before = driver.title
        find(driver, "form button").click()
        # The page of the test before may still be there, and that one has succeeded.
        until(lambda: driver.title != before)
        until(lambda: status(driver).startswith("succeeded"))
        client = pair.store.tasks.get(pair.store.exercises.tests()[-1].client_task_id)
        # On a busy host iperf3's second takes a little longer.
        first = f"0.0 to {pair.result(client)['intervals'][0]['sum']['end']:.1f} s: "
        until(lambda: words(driver, "circle title").startswith(first))
        until(lambda: words(driver, "footer noscript a") == "Reload")
        assert complaints(driver) == []
    pair.wait(lambda: all_ended(pair))


@pytest.mark.slow
def test_a_test_is_stopped(driver: Chrome, pair: Bench) -> None:
    pair.wait(lambda: all_ended(pair))
    with view(driver):
        driver.get(pair.manager.url)
        find(driver, "[name=server_port]").clear()
        find(driver, "[name=server_port]").send_keys("5214")
        find(driver, "form button").click()
        until(lambda: status(driver).startswith("running"))
        stop = find(driver, "#stop button")
        stop.send_keys(Keys.ENTER)
        until(lambda: status(driver).startswith("stopped"))
        assert not driver.find_elements("css selector", "#stop button")
    pair.wait(lambda: all_ended(pair))


def test_a_refresh_keeps_what_the_reader_has_done(driver: Chrome, finished: Bench) -> None:
    with view(driver):
        driver.get(f"{finished.manager.url}/?test=1")
        find(driver, "#readings summary").click()
        seconds = find(driver, "[name=time_seconds]")
        seconds.send_keys(Keys.CONTROL, "a")
        seconds.send_keys("77")
        find(driver, ".current a").send_keys(Keys.NULL)
        remark = msgspec.Raw(b'{"agent": {"warnings": ["Mind this."]}, ' + DOCUMENT[1:])
        finished.store.tasks.get(2).result = remark
        finished.store.agents.add("late", "key-3")
        finished.store.exercises.create("never started")
        finished.store.exercises.add_test(2, 1, 2, 5299)
        until(lambda: "never registered" in find(driver, "#client_agent_id").text)
        until(lambda: "not started" in find(driver, "#tests").text)
        until(lambda: "Mind this." in find(driver, "#detail").text)
        assert driver.switch_to.active_element.get_attribute("id") == "test-1"
        assert find(driver, "#client_agent_id").get_attribute("value") == "2"
        assert find(driver, "#readings").get_attribute("open")
        assert find(driver, "[name=time_seconds]").get_attribute("value") == "77"


def test_a_refused_form_marks_its_field(driver: Chrome, finished: Bench) -> None:
    with view(driver):
        driver.get(finished.manager.url)
        find(driver, "[name=time_seconds]").clear()
        find(driver, "[name=server_port]").send_keys("0000", Keys.ENTER)
        until(lambda: driver.title.startswith("Not started"))
        field = driver.switch_to.active_element
        assert (field.accessible_name, field.get_attribute("aria-invalid")) == ("Seconds", "true")
        wrong = driver.find_elements("css selector", "[aria-invalid]")
        assert [each.get_attribute("name") for each in wrong] == ["time_seconds", "server_port"]
        assert contrast(driver, "#server_port-about .failed") >= READABLE
        assert find(driver, "#refusal").aria_role == "alert"
        assert contrast(driver, "#refusal") >= READABLE


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_in_both_schemes(driver: Chrome, finished: Bench, dark: bool) -> None:
    with view(driver, dark=dark):
        driver.get(f"{finished.manager.url}/?test=1")
        ratios = {selector: contrast(driver, selector) for selector in TEXTS}
        assert min(ratios.values()) >= READABLE, ratios
        back = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(20, 23, 27)" if dark else "rgb(245, 246, 248)")


@pytest.mark.parametrize("width", [360, 700, 1600])
def test_nothing_overflows_at_any_width(driver: Chrome, finished: Bench, width: int) -> None:
    with view(driver, width=width):
        driver.get(finished.manager.url)
        assert overflow(driver) == 0
        finished.store.agents.get(1).name = "w" * 300
        finished.store.agents.register(1, "2001:db8:1234:5678:9abc:def0:1234:5678", None)
        driver.get(finished.manager.url)
        assert overflow(driver) == 0


def test_every_part_has_a_name_for_a_screen_reader(driver: Chrome, finished: Bench) -> None:
    with view(driver):
        driver.get(f"{finished.manager.url}/?test=1")
        assert find(driver, "html").get_attribute("lang") == "en"
        for selector in ("section", "input", "select", "button", "a", "svg", "table", "summary"):
            for element in driver.find_elements("css selector", selector):
                if element.is_displayed():
                    assert element.accessible_name, element.get_attribute("outerHTML")
        levels = [each.tag_name for each in driver.find_elements("css selector", "h1, h2, h3")]
        assert levels == ["h1", "h2", "h2", "h2", "h2"]
        assert len(driver.find_elements("css selector", "main")) == 1


def test_it_says_when_the_manager_is_gone(driver: Chrome, bench: Bench) -> None:
    with view(driver):
        driver.get(bench.manager.url)
        assert not find(driver, "#lost").is_displayed()
        bench.manager.stop()
        until(lambda: find(driver, "#lost").is_displayed())
        assert "does not answer" in find(driver, "#lost").text
