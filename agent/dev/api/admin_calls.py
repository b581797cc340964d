"""The calls that operators make."""

from hmac import compare_digest

import msgspec
from flask import Blueprint, Response, current_app, request
from msgspec import UNSET

from agent.dev.api.answers import exercise_answer, exercise_results
from agent.dev.api.bodies import (
    AgentChange,
    AgentQuery,
    Login,
    NewAgent,
    NewExercise,
    NewTask,
    TaskQuery,
)
from agent.dev.api.http import body, query, reply, store
from agent.dev.errors import NotAuthorized
from agent.dev.store.records import Plan

ADMIN = "admin"

admin_api = Blueprint("admin", __name__, url_prefix="/v1")


@admin_api.before_request
def check_token() -> None:
    """Let nobody without a login do anything but log in; raises NotAuthorized."""
    given = request.headers.get("Authorization", "")
    token: str = current_app.config["ADMIN_TOKEN"]
    expected = f"Bearer {token}"
    if request.endpoint != "admin.login" and not _equal(given, expected):
        raise NotAuthorized("invalid_token", "log in at /v1/auth/login first")


@admin_api.post("/auth/login")
def login() -> Response:
    """A password for a token, which is good until the dev Manager ends."""
    said = body(Login)
    if said.username != ADMIN or not _equal(said.password, current_app.config["ADMIN_PASSWORD"]):
        raise NotAuthorized("invalid_credentials", "wrong user name or password")
    token: str = current_app.config["ADMIN_TOKEN"]
    return reply({"access_token": token, "token_type": "bearer"})


@admin_api.post("/agents")
def add_agent() -> Response:
    """Make an agent known."""
    new = body(NewAgent)
    return reply(store().agents.add(new.name, new.registration_key, new.operating_system), 201)


@admin_api.get("/agents")
def list_agents() -> Response:
    """The agents, without the disabled ones unless they are asked for."""
    wanted = query(AgentQuery)
    return reply(store().agents.find(wanted.status, wanted.include_disabled))


@admin_api.get("/agents/<int:agent_id>")
def get_agent(agent_id: int) -> Response:
    """One agent."""
    return reply(store().agents.get(agent_id))


@admin_api.put("/agents/<int:agent_id>")
def change_agent(agent_id: int) -> Response:
    """Change an agent's name, key or operating system."""
    changes = msgspec.structs.asdict(body(AgentChange))
    given = {field: value for field, value in changes.items() if value is not UNSET}
    return reply(store().agents.update(agent_id, given))


@admin_api.post("/agents/<int:agent_id>/disable")
def disable_agent(agent_id: int) -> tuple[str, int]:
    """Turn an agent away from its next call on."""
    store().agents.set_disabled(agent_id, True)
    return "", 204


@admin_api.post("/agents/<int:agent_id>/enable")
def enable_agent(agent_id: int) -> tuple[str, int]:
    """Let an agent in again."""
    store().agents.set_disabled(agent_id, False)
    return "", 204


@admin_api.post("/exercises")
def add_exercise() -> Response:
    """Create an exercise without tests."""
    new = body(NewExercise)
    exercise = store().exercises.create(new.name, new.duration_seconds, new.notes)
    return reply(exercise_answer(store(), exercise), 201)


@admin_api.get("/exercises")
def list_exercises() -> Response:
    """All exercises with their tests and tasks."""
    return reply([exercise_answer(store(), exercise) for exercise in store().exercises.all()])


@admin_api.get("/exercises/<int:exercise_id>")
def get_exercise(exercise_id: int) -> Response:
    """One exercise with its tests and tasks."""
    return reply(exercise_answer(store(), store().exercises.get(exercise_id)))


@admin_api.post("/exercises/<int:exercise_id>/tests")
def add_test(exercise_id: int) -> Response:
    """Add a test to an exercise."""
    return reply(store().exercises.add_test(exercise_id, body(Plan)), 201)


@admin_api.post("/exercises/<int:exercise_id>/start")
def start_exercise(exercise_id: int) -> Response:
    """Make an exercise's queued tasks pending."""
    return reply(exercise_answer(store(), store().exercises.start(exercise_id)))


@admin_api.post("/exercises/<int:exercise_id>/stop")
def stop_exercise(exercise_id: int) -> Response:
    """End an exercise now."""
    return reply(exercise_answer(store(), store().exercises.stop(exercise_id)))


@admin_api.get("/exercises/<int:exercise_id>/results")
def results(exercise_id: int) -> Response:
    """The figures of an exercise."""
    return reply(exercise_results(store(), exercise_id))


@admin_api.get("/tasks")
def list_tasks() -> Response:
    """The tasks, narrowed by agent, status or type."""
    wanted = query(TaskQuery)
    return reply(store().tasks.find(wanted.agent_id, wanted.status, wanted.type))


@admin_api.post("/tasks")
def add_task() -> Response:
    """Add a pending task outside any exercise."""
    new = body(NewTask)
    return reply(store().tasks.add(new.agent_id, new.type, new.payload), 201)


@admin_api.get("/tasks/<int:task_id>")
def get_task(task_id: int) -> Response:
    """One task."""
    return reply(store().tasks.get(task_id))


@admin_api.post("/tasks/<int:task_id>/cancel")
def cancel_task(task_id: int) -> Response:
    """Cancel a task that has not ended."""
    return reply({"canceled": True, "task": store().tasks.cancel(task_id)})


def _equal(given: str, secret: str) -> bool:
    return compare_digest(given.encode(), secret.encode())
