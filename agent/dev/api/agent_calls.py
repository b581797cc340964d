"""The calls that agents make, and what they send."""

import socket
from typing import cast

from flask import Blueprint, Response, request
from msgspec import Struct
from werkzeug.http import parse_dict_header

from agent.dev.api.http import MAX_BODY_BYTES, body, is_secret, reply, store
from agent.dev.errors import Misfit, NotFound, Refused
from agent.dev.store.records import HeartbeatRow, ManagedAgent, TaskReport
from agent.serving import SOCKET

API_VERSION = "1"
# A claim waits at most this long, whatever the agent prefers.
MAX_WAIT_SECONDS = 60

agent_api = Blueprint("agent", __name__, url_prefix="/v1/agent")


class _Registration(Struct):
    ip_address: str
    operating_system: str | None = None


@agent_api.post("/register")
def register() -> Response:
    """An agent introduces itself. The answer has its key in it, as the real Manager's has."""
    agent = _caller(even_disabled=True)
    said = body(_Registration)
    return reply(store().agents.register(agent.id, said.ip_address, said.operating_system))


class _Heartbeat(Struct):
    ip_address: str
    running: list[HeartbeatRow]


@agent_api.post("/heartbeat")
def heartbeat() -> Response:
    """An agent says that it is alive and what it runs.

    The answer may name tasks to cancel, and another host that has the same name and key.
    """
    agent = _caller()
    said = body(_Heartbeat)
    instance = request.headers.get("X-Agent-Instance", "") if store().extensions else ""
    others = store().agents.heartbeat(agent.id, said.ip_address, said.running, instance)
    answer: dict[str, object] = {"pull_tasks": True}
    if canceled := store().tasks.canceled(agent.id):
        answer["cancel"] = canceled
    if others:
        answer["other_instance"] = others[-1]
    return reply(answer)


@agent_api.post("/tasks/claim")
def claim() -> Response:
    """Hand out the oldest pending task; with `Prefer: wait=N`, wait for one."""
    agent = _caller()
    body(dict)
    key = request.headers.get("Idempotency-Key")
    seconds = _preferred_wait()
    if seconds is None:
        return reply({"task": store().tasks.claim(agent.id, key)})
    store().tasks.wait_for_task(agent.id, key, seconds)
    task = None if _hung_up() else store().tasks.claim(agent.id, key)
    return reply({"task": task}, headers={"Preference-Applied": "wait"})


class _Started(Struct):
    pid: int | None = None


@agent_api.post("/tasks/<int:task_id>/started")
def started(task_id: int) -> Response:
    """The agent runs the task."""
    agent = _caller()
    body(_Started)
    return reply(store().tasks.start(agent.id, task_id))


@agent_api.post("/tasks/<int:task_id>/result")
def result(task_id: int) -> Response:
    """The agent reports the task."""
    agent = _caller()
    report = body(TaskReport, MAX_BODY_BYTES)
    if bytes(memoryview(report.result)[:1]) not in (b"{", b"n"):
        raise Misfit("Expected `object | null` - at `$.result`")
    return reply(store().tasks.report(agent.id, task_id, report))


def _caller(even_disabled: bool = False) -> ManagedAgent:
    """The agent that the headers prove; raises Refused."""
    version = request.headers.get("X-API-Version")
    if version is None:
        raise Refused(400, "missing_api_version", "the X-API-Version header is missing")
    if version != API_VERSION:
        message = f"API version {version!r} is not supported"
        raise Refused(426, "unsupported_api_version", message, supported=[API_VERSION])
    name, key = request.headers.get("X-AGENT-NAME"), request.headers.get("X-AGENT-KEY")
    if not name or not key:
        raise Refused(401, "missing_agent_headers", "X-AGENT-NAME or X-AGENT-KEY is missing")
    agent = store().agents.named(name)
    if agent is None:
        raise NotFound(f"no agent is named {name!r}")
    if not is_secret(key, agent.registration_key):
        raise Refused(401, "invalid_agent_key", "the registration key is wrong")
    if agent.disabled and not even_disabled:
        raise NotFound("the agent is disabled")
    return agent


def _preferred_wait() -> int | None:
    """The seconds of `Prefer: wait=N` (RFC 7240), or None."""
    wait = parse_dict_header(request.headers.get("Prefer", "")).get("wait")
    if not store().extensions or wait is None or not wait.isdecimal():
        return None
    return min(int(wait[:9]), MAX_WAIT_SECONDS)


def _hung_up() -> bool:
    """Whether the client has closed the connection on which it waits. Does not yield."""
    connection = cast(socket.socket, request.environ[SOCKET])
    timeout = connection.gettimeout()
    connection.settimeout(0)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        connection.settimeout(timeout)
