"""The calls that operators make about exercises, and what they send."""

from statistics import fmean
from typing import Any

import msgspec
from flask import Blueprint, Response
from msgspec import Struct

from agent.dev.api.admin_calls import Text, check_token
from agent.dev.api.http import body, reply, store
from agent.dev.store.records import Exercise, Plan, Seconds, Test
from agent.iperf3.figures import figures_in

exercise_api = Blueprint("exercises", __name__, url_prefix="/v1/exercises")
exercise_api.before_request(check_token)


class _NewExercise(Struct):
    name: Text
    duration_seconds: Seconds = 30
    notes: str | None = None


@exercise_api.post("")
def add_exercise() -> Response:
    """Create an exercise without tests."""
    new = body(_NewExercise)
    exercise = store().exercises.create(new.name, new.duration_seconds, new.notes)
    return reply(_with_tests(exercise), 201)


@exercise_api.get("")
def list_exercises() -> Response:
    """All exercises with their tests and tasks."""
    return reply([_with_tests(exercise) for exercise in store().exercises.all()])


@exercise_api.get("/<int:exercise_id>")
def get_exercise(exercise_id: int) -> Response:
    """One exercise with its tests and tasks."""
    return reply(_with_tests(store().exercises.get(exercise_id)))


@exercise_api.post("/<int:exercise_id>/tests")
def add_test(exercise_id: int) -> Response:
    """Add a test to an exercise."""
    return reply(store().exercises.add_test(exercise_id, body(Plan)), 201)


@exercise_api.post("/<int:exercise_id>/start")
def start_exercise(exercise_id: int) -> Response:
    """Make an exercise's queued tasks pending."""
    return reply(_with_tests(store().exercises.start(exercise_id)))


@exercise_api.post("/<int:exercise_id>/stop")
def stop_exercise(exercise_id: int) -> Response:
    """End an exercise now."""
    return reply(_with_tests(store().exercises.stop(exercise_id)))


@exercise_api.get("/<int:exercise_id>/results")
def get_results(exercise_id: int) -> Response:
    """The figures of an exercise's tests, and the mean of the known throughputs in bit/s."""
    exercise = store().exercises.get(exercise_id)
    tests = [_result(test) for test in store().exercises.tests(exercise.id)]
    known = [bps for test in tests if (bps := test["metrics"]["bps_avg"]) is not None]
    mean = fmean(known) if known else None
    return reply({"exercise_id": exercise_id, "tests": tests, "aggregate": {"bps_avg": mean}})


def _result(test: Test) -> dict[str, Any]:
    task = store().tasks.get(test.client_task_id)
    figures = figures_in(task.result)
    resent = figures.retransmits
    if resent is not None:
        # A larger number is made up, and has no place in an answer.
        resent = int(resent) if abs(resent) < 2**53 else None
    return {
        "test_id": test.id,
        "server": store().agents.get(test.server_agent_id).name,
        "client": store().agents.get(test.client_agent_id).name,
        "udp": test.udp,
        "parallel": test.parallel,
        "status": task.status,
        "metrics": {
            "bps_avg": figures.sent,
            "retransmits": resent,
            "jitter_ms": figures.jitter_ms,
            "loss_pct": figures.lost_percent,
        },
    }


def _with_tests(exercise: Exercise) -> dict[str, Any]:
    tests, tasks = store().exercises.tests(exercise.id), store().exercises.tasks(exercise.id)
    return {**msgspec.structs.asdict(exercise), "tests": tests, "tasks": tasks}
