"""Answers that are put together from several records."""

from statistics import fmean
from typing import Any

import msgspec
from msgspec import Struct

from agent.dev.store.records import Exercise, Test
from agent.dev.store.store import Store
from agent.iperf3.summary import Summary, Sums, read_summary

_MOST_RETRANSMITS = 2**53


class ResultMetrics(Struct):
    """A test's figures: bits per second, packets, milliseconds, per cent; None if unknown."""

    bps_avg: float | None = None
    retransmits: int | None = None
    jitter_ms: float | None = None
    loss_pct: float | None = None


def result_metrics(result: msgspec.Raw) -> ResultMetrics:
    """The figures that the real Manager reads from a client's result."""
    end = (read_summary(result) or Summary()).end
    sent, datagrams = end.sum_sent or Sums(), end.sum or Sums()
    resent = sent.retransmits
    return ResultMetrics(
        sent.bits_per_second,
        # A larger one is made up, and has no place in an answer.
        int(resent) if resent is not None and abs(resent) < _MOST_RETRANSMITS else None,
        datagrams.jitter_ms,
        datagrams.lost_percent,
    )


def exercise_answer(store: Store, exercise: Exercise) -> dict[str, Any]:
    """An exercise with its tests and their tasks."""
    return {
        **msgspec.structs.asdict(exercise),
        "tests": store.exercises.tests(exercise.id),
        "tasks": store.exercises.tasks(exercise.id),
    }


def exercise_results(store: Store, exercise_id: int) -> dict[str, Any]:
    """The figures of an exercise's tests, and the mean of the known throughputs in bit/s.

    Raises NotFound.
    """
    store.exercises.get(exercise_id)
    tests = [_test_result(store, test) for test in store.exercises.tests(exercise_id)]
    known = [bps for test in tests if (bps := test["metrics"].bps_avg) is not None]
    return {
        "exercise_id": exercise_id,
        "tests": tests,
        "aggregate": {"bps_avg": fmean(known) if known else None},
    }


def _test_result(store: Store, test: Test) -> dict[str, Any]:
    task = store.tasks.get(test.client_task_id)
    return {
        "test_id": test.id,
        "server": store.agents.get(test.server_agent_id).name,
        "client": store.agents.get(test.client_agent_id).name,
        "udp": test.udp,
        "parallel": test.parallel,
        "status": task.status,
        "metrics": result_metrics(task.result),
    }
