"""Attempts at a refused test: their pauses have a limit, and so has the time of all of them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Bench, free_port

# The real agent has a minute and an hour.
LONGEST_PAUSE, ATTEMPTS_TAKE = 0.2, 2.0
PROGRAM = f"""
import agent.__main__ as command
from agent.tasks import client
client.LONGEST_PAUSE, client.ATTEMPTS_TAKE = {LONGEST_PAUSE}, {ATTEMPTS_TAKE}
command.main()
"""


@pytest.fixture(name="hasty")
def fixture_hasty(bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    """A bench whose agent has shorter limits."""
    bench.agent(program=(sys.executable, "-c", PROGRAM)).wait_for("registered")
    yield bench


def refused(bench: Bench, **payload: Any) -> tuple[Any, str, list[float]]:
    """A test that is refused until the agent gives up: its report, the error and the pauses."""
    payload |= {"server_ip": "127.0.0.1", "port": free_port()}
    task = bench.ended(bench.task("iperf_client_run", **payload))
    lines = [line for line in bench.agents[0].lines if line.get("task_id") == task.id]
    pauses = [line["retry_in"] for line in lines if "retry_in" in line]
    return bench.result(task)["agent"], task.error or "", pauses


def test_the_pauses_double_up_to_a_limit(hasty: Bench) -> None:
    report, error, pauses = refused(hasty, max_retries=5, retry_delay_seconds=0.05)
    assert report["attempts"] == 6
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.2, 0.2], rel=0.21)
    assert max(pauses) <= LONGEST_PAUSE
    assert error.endswith("Connection refused"), "the hour was not over"


def test_a_longer_pause_that_the_task_asks_for_is_kept_and_not_doubled(hasty: Bench) -> None:
    _, _, pauses = refused(hasty, max_retries=3, retry_delay_seconds=0.4)
    assert pauses == pytest.approx([0.4] * 3, rel=0.21)
    assert max(pauses) <= 0.4


def test_a_task_that_asks_for_no_pause_is_attempted_as_often_as_it_says(hasty: Bench) -> None:
    report, error, pauses = refused(hasty, max_retries=2, retry_delay_seconds=0)
    assert (report["attempts"], pauses) == (3, [0, 0])
    assert error.endswith("Connection refused")


def test_after_an_hour_no_further_attempt_begins_and_the_last_one_is_reported(
    hasty: Bench,
) -> None:
    report, error, pauses = refused(hasty, max_retries=100, retry_delay_seconds=0.1)
    assert report["error_class"] == "refused"
    assert report["attempts"] == len(pauses) + 1 < 100
    assert sum(pauses) <= ATTEMPTS_TAKE
    assert error.endswith("Connection refused; not tried again after an hour of attempts")


def test_an_attempt_comes_at_the_end_of_the_hour_however_long_the_pause(hasty: Bench) -> None:
    report, error, pauses = refused(hasty, max_retries=3, retry_delay_seconds=3600)
    assert report["attempts"] == 2 and len(pauses) == 1
    assert pauses[0] <= ATTEMPTS_TAKE
    assert error.endswith("not tried again after an hour of attempts")
