"""Repeated failures: which of them are logged, and what the sums contain."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from agent.errors import KeyRefused, ManagerUnavailable
from agent.logs import outage
from agent.logs.outage import Outage

AWAY = ManagerUnavailable("connection refused")
REFUSED = KeyRefused("401")
DAY = 24 * 3600


class Clock:
    """Takes the place of the module `time`, so that a day passes at once."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """The seconds that the test has set."""
        return self.now


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outage, "time", clock)
    return clock


@pytest.fixture(name="lines")
def fixture_lines() -> Iterator[list[Any]]:
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        yield lines


def test_a_day_without_the_manager_takes_a_few_lines(clock: Clock, lines: list[Any]) -> None:
    calls = Outage("it is back")
    for second in range(0, DAY, 5):
        clock.now = second
        calls.record_failure("no call", AWAY, retry_in=5)
    clock.now = DAY
    calls.record_success()
    assert lines[0] == {
        "event": "no call",
        "log_level": "warning",
        "error": "connection refused",
        "retry_in": 5,
    }
    assert lines[1] == {
        "event": "no call",
        "log_level": "warning",
        "last": "connection refused",
        "failures": 13,
        "seconds": 60,
    }
    moments = [line["seconds"] for line in lines[1:]]
    gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    assert gaps[:3] == [120, 240, 480] and set(gaps[3:-1]) == {600}
    assert lines[-1] == {
        "event": "it is back",
        "log_level": "info",
        "failures": DAY // 5,
        "seconds": DAY,
    }


def test_an_outage_with_every_other_call_failing_takes_no_more_lines(
    clock: Clock, lines: list[Any]
) -> None:
    calls = Outage("it is back")
    for second in range(0, DAY, 10):
        clock.now = second
        calls.record_failure("no call", AWAY)
        clock.now = second + 5
        calls.record_success()
    assert len(lines) < 300
    assert [line["event"] for line in lines] == ["no call", "it is back"] * (len(lines) // 2)
    assert lines[-1]["failures"] > DAY / 10 * 0.9


def test_a_failure_after_a_minute_without_any_begins_a_new_outage(
    clock: Clock, lines: list[Any]
) -> None:
    calls = Outage("it is back")
    for second in range(0, 3600, 5):
        clock.now = second
        calls.record_failure("no call", AWAY)
    calls.record_success()
    lines.clear()
    clock.now += outage.FIRST_SUM
    calls.record_failure("no call", AWAY)
    clock.now += 1
    calls.record_success()
    assert [line["event"] for line in lines] == ["no call", "it is back"]
    assert (lines[1]["failures"], lines[1]["seconds"]) == (1, 1)


def test_a_new_kind_of_failure_is_logged_at_once_and_a_refused_key_as_an_error(
    clock: Clock, lines: list[Any]
) -> None:
    calls = Outage("it is back")
    calls.record_failure("no call", AWAY)
    calls.record_failure("the key is refused", REFUSED)
    calls.record_failure("no call", AWAY)
    calls.record_failure("the key is refused", REFUSED)
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("no call", "warning"),
        ("the key is refused", "error"),
    ]


def test_concurrent_calls_log_their_first_failures_and_share_the_sums(
    clock: Clock, lines: list[Any]
) -> None:
    calls = Outage("all went")
    for second in range(61):
        clock.now = second
        for task_id in (1, 2):
            with structlog.contextvars.bound_contextvars(task_id=task_id):
                calls.record_failure("not sent", AWAY, of=task_id)
    with structlog.contextvars.bound_contextvars(task_id=1):
        calls.record_success(1)
        assert len(lines) == 3
        calls.record_failure("not sent", AWAY, of=1)
        calls.record_success(1)
    with structlog.contextvars.bound_contextvars(task_id=2):
        calls.record_success(2)
    assert [(line["event"], line.get("task_id")) for line in lines] == [
        ("not sent", 1),
        ("not sent", 2),
        ("not sent", None),
        ("not sent", 1),
        ("all went", None),
    ]
    assert lines[2]["failures"] == 121
    assert lines[4]["failures"] == 123


def test_calls_that_never_failed_log_nothing(lines: list[Any]) -> None:
    calls = Outage("it is back")
    calls.record_success()
    calls.record_success(7)
    assert lines == []
