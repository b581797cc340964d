"""Answers that are put together from several records."""

from statistics import fmean
from typing import Any

import msgspec

from agent.dev.store import metrics
from agent.dev.store.records import Exercise, Test
from agent.dev.store.store import Store


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
        "metrics": metrics.read(task.result),
    }
