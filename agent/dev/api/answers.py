"""Answers that are put together from several records."""

from statistics import fmean
from typing import Any

import msgspec

from agent.dev.store import metrics
from agent.dev.store.exercises import Store
from agent.dev.store.records import Exercise, Test


def exercise_answer(store: Store, exercise: Exercise) -> dict[str, Any]:
    """An exercise with its tests and their tasks."""
    return {
        **msgspec.structs.asdict(exercise),
        "tests": store.tests(exercise.id),
        "tasks": store.exercise_tasks(exercise.id),
    }


def exercise_results(store: Store, exercise_id: int) -> dict[str, Any]:
    """The figures of an exercise's tests, and the mean of the known throughputs in bit/s.

    Raises NotFound.
    """
    store.exercise(exercise_id)
    tests = [_test_result(store, test) for test in store.tests(exercise_id)]
    known = [bps for test in tests if (bps := test["metrics"].bps_avg) is not None]
    return {
        "exercise_id": exercise_id,
        "tests": tests,
        "aggregate": {"bps_avg": fmean(known) if known else None},
    }


def _test_result(store: Store, test: Test) -> dict[str, Any]:
    task = store.task(test.client_task_id)
    return {
        "test_id": test.id,
        "server": store.agent(test.server_agent_id).name,
        "client": store.agent(test.client_agent_id).name,
        "udp": test.udp,
        "parallel": test.parallel,
        "status": task.status,
        "metrics": metrics.read(task.result),
    }
