"""The calls that operators make about agents and tasks, and what they send."""

from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, current_app, request
from msgspec import UNSET, Meta, Struct, UnsetType

from agent.dev.api.http import body, is_secret, query, reply, store
from agent.dev.errors import Refused

ADMIN = "admin"
# Of a login, which anybody may try.
MAX_LOGIN_BYTES = 4096
Text = Annotated[str, Meta(min_length=1)]

admin_api = Blueprint("admin", __name__, url_prefix="/v1")


@admin_api.before_request
def check_token() -> None:
    """Let a caller without a token do nothing but log in; raises Refused."""
    given = request.headers.get("Authorization", "")
    token: str = current_app.config["ADMIN_TOKEN"]
    if request.endpoint != "admin.login" and not is_secret(given, f"Bearer {token}"):
        raise Refused(401, "invalid_token", "log in at /v1/auth/login first")


class _Login(Struct):
    username: str
    password: str


@admin_api.post("/auth/login")
def login() -> Response:
    """A token for a password. It is valid until the dev Manager ends."""
    given = body(_Login, MAX_LOGIN_BYTES)
    if given.username != ADMIN or not is_secret(
        given.password, current_app.config["ADMIN_PASSWORD"]
    ):
        raise Refused(401, "invalid_credentials", "wrong user name or password")
    token: str = current_app.config["ADMIN_TOKEN"]
    return reply({"access_token": token, "token_type": "bearer"})


class _NewAgent(Struct):
    name: Text
    registration_key: Text
    operating_system: str | None = None


@admin_api.post("/agents")
def add_agent() -> Response:
    """Make an agent known."""
    new = body(_NewAgent)
    return reply(store().agents.add(new.name, new.registration_key, new.operating_system), 201)


class _AgentQuery(Struct):
    include_disabled: bool = False
    status: str | None = None


@admin_api.get("/agents")
def list_agents() -> Response:
    """The agents, without the disabled ones unless they are asked for."""
    wanted = query(_AgentQuery)
    return reply(store().agents.find(wanted.status, wanted.include_disabled))


@admin_api.get("/agents/<int:agent_id>")
def get_agent(agent_id: int) -> Response:
    """One agent."""
    return reply(store().agents.get(agent_id))


class _AgentChange(Struct):
    name: Text | UnsetType = UNSET
    registration_key: Text | UnsetType = UNSET
    operating_system: str | None | UnsetType = UNSET


@admin_api.put("/agents/<int:agent_id>")
def change_agent(agent_id: int) -> Response:
    """Change an agent's name, key or operating system; what is left out stays."""
    return reply(store().agents.update(agent_id, msgspec.to_builtins(body(_AgentChange))))


@admin_api.post("/agents/<int:agent_id>/<any(disable, enable):order>")
def set_disabled(agent_id: int, order: str) -> tuple[str, int]:
    """Refuse an agent's calls from now on, or take them again."""
    store().agents.update(agent_id, {"disabled": order == "disable"})
    return "", 204


class _TaskQuery(Struct):
    agent_id: int | None = None
    status: str | None = None
    type: str | None = None


@admin_api.get("/tasks")
def list_tasks() -> Response:
    """The tasks, narrowed by agent, status or type."""
    wanted = query(_TaskQuery)
    return reply(store().tasks.find(wanted.agent_id, wanted.status, wanted.type))


class _NewTask(Struct):
    agent_id: int
    type: Text
    payload: dict[str, Any] = {}


@admin_api.post("/tasks")
def add_task() -> Response:
    """Add a pending task outside any exercise; only the dev Manager has this call."""
    new = body(_NewTask)
    return reply(store().tasks.add(new.agent_id, new.type, new.payload), 201)


@admin_api.get("/tasks/<int:task_id>")
def get_task(task_id: int) -> Response:
    """One task."""
    return reply(store().tasks.get(task_id))


@admin_api.post("/tasks/<int:task_id>/cancel")
def cancel_task(task_id: int) -> Response:
    """Cancel a task that has not ended."""
    return reply({"canceled": True, "task": store().tasks.cancel(task_id)})
