"""The page in a real browser: at any width, in light and dark, with and without scripts."""

import signal
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from agent.protocol import Flow
from agent.status import page
from tests.support.browser import complaints, contrast, overflow, requests_made, view
from tests.support.harness import Bench, free_port, until
from tests.support.status_page import Shown, ask


@pytest.fixture(name="visitor", scope="module")
def fixture_visitor(driver: Chrome) -> Iterator[Chrome]:
    """A browser with the width of a desktop."""
    with view(driver):
        yield driver


def text(driver: Chrome) -> str:
    """All text of the page."""
    return driver.find_element(By.TAG_NAME, "body").text


def test_the_page_shows_the_connection_and_what_the_agent_does(
    shown: Shown, visitor: Chrome
) -> None:
    visitor.get(shown.url)
    assert visitor.title == "a1 - iperf agent"
    assert visitor.find_element(By.CSS_SELECTOR, "[role=status]").text.startswith("Connected.")
    said = text(visitor)
    assert f"server on port {shown.port}" in said
    assert "Connection refused" in said and "No server listens there, or a firewall" in said
    assert visitor.find_elements(By.CSS_SELECTOR, "td svg polyline")
    assert complaints(visitor) == []
    assert set(requests_made(visitor)) == {f"{shown.url}/"}


def test_the_page_follows_a_running_test(shown: Shown, visitor: Chrome) -> None:
    visitor.get(shown.url)
    task = shown.bench.task(
        "iperf_client_run", server_ip="127.0.0.1", port=shown.port, time=20, bitrate=10**7
    )
    until(lambda: f"Task {task.id}" in text(visitor))
    bar = f"progress[aria-label='Task {task.id}']"
    first = float(visitor.find_element(By.CSS_SELECTOR, bar).get_attribute("value") or 0)

    def later() -> bool:
        # In one step, because the page may replace the bar between two.
        script = f'return parseFloat(document.querySelector("{bar}").value)'
        return float(visitor.execute_script(script)) > first

    until(later)
    shown.bench.ended(shown.bench.task("kill_all"))
    until(lambda: "stopped by kill_all" in text(visitor))
    problems = visitor.find_element(By.CSS_SELECTOR, "section[aria-labelledby=recent-problems]")
    assert "stopped by" not in problems.text and "signal" not in problems.text
    assert complaints(visitor) == []
    shown.bench.ended(shown.bench.task("iperf_server_start", port=shown.port))


def test_a_table_that_was_scrolled_stays_so_and_goes_on(shown: Shown, visitor: Chrome) -> None:
    visitor.get(shown.url)
    visitor.execute_script(
        "const box = document.querySelector('.scroll'); box.style.width = '90px';"
        "box.tabIndex = 0; box.focus(); box.scrollLeft = 40"
    )
    before = visitor.find_element(By.ID, "fresh").text
    task = shown.bench.task("iperf_client_run", server_ip="127.0.0.1", port=1, max_retries=0)
    shown.bench.ended(task)
    told = "return document.querySelector('tbody').textContent"
    until(lambda: f"{task.id}, client" in visitor.execute_script(told))
    until(lambda: visitor.find_element(By.ID, "fresh").text != before)
    box = "const box = document.querySelector('.scroll'); return "
    assert visitor.execute_script(f"{box} [box.scrollLeft, box === document.activeElement]") == [
        40,
        True,
    ]


def test_an_agent_that_hangs_is_noticed(bench: Bench, visitor: Chrome) -> None:
    agent = bench.agent(STATUS_ADDRESS=f"127.0.0.1:{(port := free_port())}")
    agent.wait_for("status page")
    visitor.get(f"http://127.0.0.1:{port}")
    agent.signal(signal.SIGSTOP)
    try:
        until(lambda: "out of date" in text(visitor))
    finally:
        agent.signal(signal.SIGCONT)
    until(lambda: "as of" in text(visitor))


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (Flow(lost_percent=100.0), "100 %"),
        (Flow(lost_percent=0.5, jitter_ms=0.0), "0.5 %, jitter 0 ms"),
        (Flow(), ""),
    ],
)
def test_what_nobody_measured_is_not_shown(flow: Flow, words: str) -> None:
    assert page._lost(flow) == words


def test_a_curve_of_nothing_ends_at_nothing() -> None:
    assert "so far: 0 bit/s to 0 bit/s" in page._spark([0.0, 0.0], "so far")


def test_a_screen_reader_gets_the_same_information(shown: Shown, visitor: Chrome) -> None:
    visitor.get(shown.url)
    curve = visitor.find_element(By.CSS_SELECTOR, "td svg")
    assert curve.aria_role in ("img", "image")
    assert "bit/s to " in curve.accessible_name
    heads = [head.text for head in visitor.find_elements(By.CSS_SELECTOR, "th[scope=col]")]
    assert heads == [
        "Time",
        "Task",
        "Outcome",
        "Throughput",
        "Lost",
        "Intervals",
    ]
    named = [s.accessible_name for s in visitor.find_elements(By.TAG_NAME, "section")]
    assert named == ["Running now", "Recent results", "Recent problems", "Numbers"]
    assert visitor.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_readable_on_a_phone(shown: Shown, driver: Chrome, dark: bool) -> None:
    with view(driver, width=360, dark=dark):
        driver.get(shown.url)
        assert overflow(driver) == 0
        for selector in ("p", "h1", "td", ".good", ".bad", ".soft", "a"):
            # WCAG 2.2 requires 4.5.
            assert contrast(driver, selector) >= 4.5, selector
        assert complaints(driver) == []


def test_the_page_refreshes_without_scripts(shown: Shown, driver: Chrome) -> None:
    with view(driver, javascript=False):
        driver.get(shown.url)
        drawn = driver.find_element(By.ID, "fresh").text
        assert drawn.startswith("as of ")

        def text() -> str:
            # In one step, because the page may be replaced between two. A loading page has no text.
            return str(
                driver.execute_script("return document.getElementById('fresh')?.innerText ?? ''")
            )

        until(lambda: text() not in ("", drawn))


def test_hostile_text_is_escaped(shown: Shown) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    shown.bench.ended(shown.bench.task("iperf_client_run", server_ip=hostile, port=1, time=1))
    page = ask(shown.url, "/").body.decode()
    assert "<script>alert" not in page and "<img" not in page
