"""The curve of a test that runs, from the rates in its client's heartbeats."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from agent.dev.server import DevManager
from agent.dev.store import agents
from agent.dev.store.records import HeartbeatRow
from agent.dev.store.store import Store
from agent.dev.web import overview
from tests.support.browser import complaints, view
from tests.support.harness import Bench, until
from tests.support.newer_iperf3 import newer_iperf3


def rows(*rates: float | None, first: int = 2) -> list[HeartbeatRow]:
    """What a client's heartbeat says of tasks."""
    return [
        HeartbeatRow("client", 5201, 1, task_id=first + number, bits_per_second=rate)
        for number, rate in enumerate(rates)
    ]


@pytest.fixture(name="running")
def fixture_running(store: Store) -> Store:
    """A test from a2 to a1 that has begun; the client's task is 2."""
    exercise = store.exercises.create("x", 60)
    store.exercises.add_test(exercise.id, 1, 2, 5201)
    store.exercises.start(exercise.id)
    store.tasks.stage_release(store.tasks.get(2))
    store.tasks.claim(2)
    store.tasks.start(2, 2)
    return store


def curve(store: Store) -> list[tuple[float, float]]:
    """Where the curve's readings end, in seconds, and their rates."""
    detail = overview.TestDetail(store, store.exercises.test(1), datetime.now(UTC))
    return [(each.end, each.rate) for way in detail.directions for each in way.readings]


def test_each_heartbeat_adds_a_reading(running: Store) -> None:
    running.tasks.get(2).started_at = datetime.now(UTC) - timedelta(seconds=20)
    assert curve(running) == []
    for rate in (1e9, 2e9):
        running.agents.heartbeat(2, "127.0.0.1", rows(rate))
    (first, one), (second, two) = curve(running)
    assert (one, two) == pytest.approx((1e9, 2e9))
    assert 20 <= first <= second


def test_what_is_kept_is_bounded(running: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "RATES_KEPT", 5)
    for rate in range(9):
        running.agents.heartbeat(2, "127.0.0.1", rows(float(rate), 7.0))
    assert [rate for _, rate in running.agents.rates(2, 2)] == [4, 5, 6, 7, 8]
    # One that is not named any more, or has no rate yet in a new attempt, is forgotten.
    running.agents.heartbeat(2, "127.0.0.1", rows(None))
    assert running.agents.rates(2, 2) == running.agents.rates(2, 3) == []


def test_a_rate_that_no_network_has_breaks_nothing(running: Store) -> None:
    for rate in (-1.0, 1e300, 1e9):
        running.agents.heartbeat(2, "127.0.0.1", rows(rate))
    assert [rate for _, rate in curve(running)] == [pytest.approx(1e9)]


@pytest.mark.parametrize(("elapsed", "ends"), [(2, []), (20, [15])])
def test_what_is_omitted_is_not_drawn(running: Store, elapsed: int, ends: list[int]) -> None:
    task = running.tasks.get(2)
    task.payload["omit"] = 5
    task.started_at = datetime.now(UTC) - timedelta(seconds=elapsed)
    running.agents.heartbeat(2, "127.0.0.1", rows(1e9))
    assert [round(end) for end, _ in curve(running)] == ends


def test_an_agent_that_has_gone_has_no_rate_now(running: Store) -> None:
    running.agents.heartbeat(2, "127.0.0.1", rows(1e9))

    def rate_now() -> str:
        return overview.TestRow(running, running.exercises.test(1), datetime.now(UTC)).rate_now

    assert rate_now() == "1.00 Gbit/s"
    running.agents.mark_offline(datetime.now(UTC) + timedelta(seconds=16))
    assert rate_now() == "" and len(curve(running)) == 1


def test_nobody_else_adds_to_it(running: Store) -> None:
    running.agents.heartbeat(1, "127.0.0.1", rows(1e9))
    assert curve(running) == []


@pytest.fixture(name="streaming")
def fixture_streaming(tmp_path: Path) -> Iterator[Bench]:
    """A dev Manager with two agents whose iperf3 says at once what it measures."""
    bench = Bench(Store(), tmp_path)
    bench.manager.start()
    try:
        for number in (1, 2):
            agent = bench.agent(
                number=number, HEARTBEAT_INTERVAL="0.5", IPERF3_PATH=newer_iperf3("trixie")
            )
            agent.wait_for("registered")
        yield bench
    finally:
        bench.close()


@pytest.mark.slow
@pytest.mark.process
def test_a_curve_grows_while_a_test_runs(driver: Chrome, streaming: Bench) -> None:
    manager: DevManager = streaming.manager
    with view(driver):
        exercise = streaming.store.exercises.create("x", 8)
        streaming.store.exercises.add_test(exercise.id, 1, 2, 5215)
        streaming.store.exercises.start(exercise.id)
        driver.get(f"{manager.url}/?test=1")

        def points() -> int:
            """The readings that are drawn while the page says that the test runs."""
            if not driver.execute_script("return document.querySelector('#progress progress')"):
                return 0
            script = "return document.querySelectorAll('#detail circle').length"
            return int(driver.execute_script(script))

        until(lambda: points() >= 2)
        before = points()
        until(lambda: points() > before)
        caption = "return document.querySelector('figcaption').textContent"
        assert "as a2 measured it so far, at each heartbeat" in driver.execute_script(caption)
        until(lambda: driver.title.startswith("Test 1 succeeded"))
        assert "so far" not in driver.execute_script(caption)
        assert complaints(driver) == []
