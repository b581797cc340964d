"""Failures that repeat: which of them are said, and what the sums say."""

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
    """Stands for the module `time` there, so that a day passes at once."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """The seconds that the test says."""
        return self.now


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outage, "time", clock)
    return clock


@pytest.fixture(name="said")
def fixture_said() -> Iterator[list[Any]]:
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        yield lines


def test_a_day_without_the_manager_takes_a_few_lines(clock: Clock, said: list[Any]) -> None:
    calls = Outage("it is back")
    for second in range(0, DAY, 5):
        clock.now = second
        calls.record_failure("no call", AWAY, retry_in=5)
    clock.now = DAY
    calls.record_success()
    assert said[0] == {
        "event": "no call",
        "log_level": "warning",
        "error": "connection refused",
        "retry_in": 5,
    }
    assert said[1] == {
        "event": "no call",
        "log_level": "warning",
        "last": "connection refused",
        "failures": 13,
        "seconds": 60,
    }
    moments = [line["seconds"] for line in said[1:]]
    gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    assert gaps[:3] == [120, 240, 480] and set(gaps[3:-1]) == {600}
    assert said[-1] == {
        "event": "it is back",
        "log_level": "info",
        "failures": DAY // 5,
        "seconds": DAY,
    }


def test_an_outage_with_every_other_call_failing_takes_no_more_lines(
    clock: Clock, said: list[Any]
) -> None:
    calls = Outage("it is back")
    for second in range(0, DAY, 10):
        clock.now = second
        calls.record_failure("no call", AWAY)
        clock.now = second + 5
        calls.record_success()
    assert len(said) < 300
    assert [line["event"] for line in said] == ["no call", "it is back"] * (len(said) // 2)
    assert said[-1]["failures"] > DAY / 10 * 0.9


def test_a_failure_after_a_minute_without_any_begins_a_new_outage(
    clock: Clock, said: list[Any]
) -> None:
    calls = Outage("it is back")
    for second in range(0, 3600, 5):
        clock.now = second
        calls.record_failure("no call", AWAY)
    calls.record_success()
    said.clear()
    clock.now += outage.FIRST_SUM
    calls.record_failure("no call", AWAY)
    clock.now += 1
    calls.record_success()
    assert [line["event"] for line in said] == ["no call", "it is back"]
    assert (said[1]["failures"], said[1]["seconds"]) == (1, 1)


def test_a_new_kind_of_failure_is_logged_at_once_and_a_refused_key_as_an_error(
    clock: Clock, said: list[Any]
) -> None:
    calls = Outage("it is back")
    calls.record_failure("no call", AWAY)
    calls.record_failure("the key is refused", REFUSED)
    calls.record_failure("no call", AWAY)
    calls.record_failure("the key is refused", REFUSED)
    assert [(line["event"], line["log_level"]) for line in said] == [
        ("no call", "warning"),
        ("the key is refused", "error"),
    ]


def test_concurrent_calls_log_their_first_failures_and_share_the_sums(
    clock: Clock, said: list[Any]
) -> None:
    calls = Outage("all went")
    for second in range(61):
        clock.now = second
        for task_id in (1, 2):
            with structlog.contextvars.bound_contextvars(task_id=task_id):
                calls.record_failure("not sent", AWAY, of=task_id)
    with structlog.contextvars.bound_contextvars(task_id=1):
        calls.record_success(1)
        assert len(said) == 3
        calls.record_failure("not sent", AWAY, of=1)
        calls.record_success(1)
    with structlog.contextvars.bound_contextvars(task_id=2):
        calls.record_success(2)
    assert [(line["event"], line.get("task_id")) for line in said] == [
        ("not sent", 1),
        ("not sent", 2),
        ("not sent", None),
        ("not sent", 1),
        ("all went", None),
    ]
    assert said[2]["failures"] == 121
    assert said[4]["failures"] == 123


def test_calls_that_never_failed_log_nothing(said: list[Any]) -> None:
    calls = Outage("it is back")
    calls.record_success()
    calls.record_success(7)
    assert said == []
