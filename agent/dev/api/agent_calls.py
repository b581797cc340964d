"""The calls that agents make, and what they send."""

import socket
from typing import Any, cast

from flask import Response, request
from werkzeug.http import parse_dict_header

from agent.dev.api.http import MAX_BODY_BYTES, Call, is_secret, reply, sent, store
from agent.dev.errors import Refused, not_found
from agent.dev.store.records import HeartbeatRow
from agent.dev.store.store import Store
from agent.serving import SOCKET

API_VERSION = "1"
# A claim waits at most this long, whatever the agent prefers.
MAX_WAIT_SECONDS = 60


def agent_calls(known: Store) -> list[Call]:
    """The calls of an agent whose headers have proven its `agent_id`."""
    agents, tasks = known.agents, known.tasks
    return [
        # The answer has the agent's key in it, as the real Manager's has.
        Call("POST /v1/agent/register", agents.register),
        Call("POST /v1/agent/heartbeat", heartbeat),
        Call("POST /v1/agent/tasks/claim", claim),
        Call("POST /v1/agent/tasks/<int:task_id>/started", tasks.start),
        Call("POST /v1/agent/tasks/<int:task_id>/result", tasks.report, max_bytes=MAX_BODY_BYTES),
    ]


def heartbeat(agent_id: int, ip_address: str, running: list[HeartbeatRow]) -> dict[str, Any]:
    """An agent says that it is alive and what it runs.

    The answer may name tasks to cancel, and another host that has the same name and key.
    """
    instance = _extension("X-Agent-Instance")
    others = store().agents.heartbeat(agent_id, ip_address, running, instance)
    answer: dict[str, Any] = {"pull_tasks": True}
    if canceled := store().tasks.canceled(agent_id):
        answer["cancel"] = canceled
    if others:
        answer["other_instance"] = others[-1]
    return answer


def claim(agent_id: int) -> Response:
    """Hand out the oldest pending task; with `Prefer: wait=N` (RFC 7240), wait for one."""
    sent(dict)
    key = _extension("Idempotency-Key")
    wait = parse_dict_header(_extension("Prefer")).get("wait") or ""
    if not wait.isdecimal():
        return reply({"task": store().tasks.claim(agent_id, key)})
    store().tasks.wait_for_task(agent_id, key, min(int(wait[:9]), MAX_WAIT_SECONDS))
    task = None if _hung_up() else store().tasks.claim(agent_id, key)
    return reply({"task": task}, headers={"Preference-Applied": "wait"})


def check_agent() -> dict[str, int]:
    """The `agent_id` that the headers prove; raises Refused."""
    name, key = request.headers.get("X-AGENT-NAME"), request.headers.get("X-AGENT-KEY")
    if not name or not key:
        raise Refused(401, "missing_agent_headers", "X-AGENT-NAME or X-AGENT-KEY is missing")
    version = request.headers.get("X-API-Version")
    if version is None:
        raise Refused(400, "missing_api_version", "the X-API-Version header is missing")
    if version != API_VERSION:
        message = f"API version {version!r} is not supported"
        raise Refused(426, "unsupported_api_version", message, supported=[API_VERSION])
    agent = store().agents.named(name)
    if agent is None:
        raise not_found(f"no agent is named {name!r}")
    if not is_secret(key, agent.registration_key):
        raise Refused(401, "invalid_agent_key", "the registration key is wrong")
    return {"agent_id": agent.id}


def _extension(header: str) -> str:
    """What a header says that today's Manager does not know; empty without extensions."""
    return request.headers.get(header, "") if store().extensions else ""


def _hung_up() -> bool:
    """Whether the client has closed the connection on which it waits. Does not yield."""
    connection = cast(socket.socket, request.environ[SOCKET])
    timeout = connection.gettimeout()
    connection.settimeout(0)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    finally:
        connection.settimeout(timeout)
