"""The calls of operators: about agents, tasks and exercises."""

from statistics import fmean
from typing import Any

import msgspec
from flask import Response, current_app, request
from msgspec import UNSET, UnsetType

from agent.dev.api.http import Call, is_secret, store
from agent.dev.errors import Refused
from agent.dev.store.records import ManagedAgent, Test, Text
from agent.dev.store.store import Store
from agent.iperf3.figures import figures_in

ADMIN = "admin"
# Of a login, which anybody may try.
MAX_LOGIN_BYTES = 4096
_LOGIN = "POST /v1/auth/login"


def operator_calls(known: Store) -> list[Call]:
    """The calls of an operator who has logged in, and the login."""
    agents, tasks, exercises = known.agents, known.tasks, known.exercises
    return [
        Call(_LOGIN, log_in, max_bytes=MAX_LOGIN_BYTES),
        Call("POST /v1/agents", agents.add, 201),
        Call("GET /v1/agents", agents.find),
        Call("GET /v1/agents/<int:agent_id>", agents.get),
        Call("PUT /v1/agents/<int:agent_id>", change_agent),
        Call("POST /v1/agents/<int:agent_id>/<any(disable, enable):order>", set_disabled),
        # Only the dev Manager has this call.
        Call("POST /v1/tasks", tasks.add, 201),
        Call("GET /v1/tasks", tasks.find),
        Call("GET /v1/tasks/ports/reservations", show_reservations),
        Call("GET /v1/tasks/<int:task_id>", tasks.get),
        Call("POST /v1/tasks/<int:task_id>/cancel", cancel_task),
        Call("POST /v1/exercises", exercises.create, 201),
        Call("GET /v1/exercises", exercises.all),
        Call("GET /v1/exercises/<int:exercise_id>", show_exercise),
        Call("POST /v1/exercises/<int:exercise_id>/tests", exercises.add_test, 201),
        Call("POST /v1/exercises/<int:exercise_id>/start", exercises.start),
        Call("POST /v1/exercises/<int:exercise_id>/stop", stop_exercise),
        Call("GET /v1/exercises/<int:exercise_id>/results", show_results),
    ]


def check_token() -> dict[str, Any]:
    """Let a caller without a token do nothing but log in; raises Refused."""
    given, token = request.headers.get("Authorization", ""), current_app.config["ADMIN_TOKEN"]
    if request.endpoint != _LOGIN and not is_secret(given, f"Bearer {token}"):
        raise Refused(401 if given else 403, "", "log in at /v1/auth/login first")
    return {}


def log_in(username: str, password: str) -> dict[str, str]:
    """A token for a password. It is valid until the dev Manager ends."""
    if username != ADMIN or not is_secret(password, current_app.config["ADMIN_PASSWORD"]):
        raise Refused(401, "", "wrong user name or password")
    return {"access_token": current_app.config["ADMIN_TOKEN"], "token_type": "bearer"}


def change_agent(
    agent_id: int,
    name: Text | UnsetType = UNSET,
    registration_key: Text | UnsetType = UNSET,
    operating_system: str | None | UnsetType = UNSET,
) -> ManagedAgent:
    """Change an agent's name, key or operating system; what is left out stays."""
    changes = dict(name=name, registration_key=registration_key, operating_system=operating_system)
    return store().agents.update(agent_id, {k: v for k, v in changes.items() if v is not UNSET})


def set_disabled(agent_id: int, order: str) -> Response:
    """Refuse an agent's calls from now on, or take them again."""
    store().agents.update(agent_id, {"disabled": order == "disable"})
    return Response(status=204)


def cancel_task(task_id: int) -> dict[str, Any]:
    """Cancel a task that has not ended."""
    return {"canceled": True, "task": store().tasks.cancel(task_id)}


def show_reservations() -> list[dict[str, Any]]:
    """The reserved ports, each with the id of the test that has it."""
    found = []
    for test in store().exercises.reserving():
        task = store().tasks.get(test.server_task_id)
        place = {"agent_id": task.agent_id, "port": test.server_port}
        found.append({"id": test.id, **place, "task_id": task.id, "created_at": task.created_at})
    return found


def show_exercise(exercise_id: int) -> dict[str, Any]:
    """One exercise with its tests and tasks."""
    exercises = store().exercises
    shown = msgspec.structs.asdict(exercises.get(exercise_id))
    return {**shown, "tests": exercises.tests(exercise_id), "tasks": exercises.tasks(exercise_id)}


def stop_exercise(exercise_id: int) -> dict[str, Any]:
    """End an exercise now."""
    return {"stopped": True, "kill_tasks": store().exercises.stop(exercise_id)}


def show_results(exercise_id: int) -> dict[str, Any]:
    """The figures of an exercise's tests, and the mean throughput in bit/s, as far as known."""
    exercise = store().exercises.get(exercise_id)
    tests = [_result(test) for test in store().exercises.tests(exercise.id)]
    rates = [test["metrics"]["bps_avg"] for test in tests if "bps_avg" in test.get("metrics", {})]
    aggregate = {"bps_avg": fmean(rates)} if rates else {}
    return {"exercise_id": exercise_id, "tests": tests, "aggregate": aggregate}


def _result(test: Test) -> dict[str, Any]:
    task = store().tasks.get(test.client_task_id)
    figures = figures_in(task.result)
    resent = figures.retransmits
    # A larger number is made up, and has no place in an answer.
    resent = None if resent is None or abs(resent) >= 2**53 else int(resent)
    metrics = _known(
        bps_avg=figures.sent,
        retransmits=resent,
        jitter_ms=figures.jitter_ms,
        loss_pct=figures.lost_percent,
    )
    return _known(
        test_id=test.id,
        server={"agent_id": test.server_agent_id, "port": test.server_port},
        client={"agent_id": test.client_agent_id},
        udp=test.udp,
        parallel=test.parallel,
        status=task.status,
        started_at=task.started_at,
        finished_at=task.finished_at,
        metrics=metrics or None,
    )


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
