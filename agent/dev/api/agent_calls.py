"""The calls that agents make."""

import socket
from typing import cast

from flask import Blueprint, Response, request
from gevent import GreenletExit
from gevent.pywsgi import WSGIHandler
from werkzeug.http import parse_dict_header

from agent.dev.api.bodies import ClaimBody, HeartbeatBody, RegisterBody, StartedBody
from agent.dev.api.http import body, reply, store
from agent.dev.errors import Misfit, NotAuthorized, NotFound, Refused, VersionRefused
from agent.dev.store.records import ManagedAgent, TaskReport

API_VERSION = "1"
# A claim is held at most this long, whatever the agent prefers.
MAX_WAIT_SECONDS = 60
_SOCKET = "agent.dev.socket"

agent_api = Blueprint("agent", __name__, url_prefix="/v1/agent")


class SocketHandler(WSGIHandler):
    """Hands the connection's socket to the application, which a held claim has to look at."""

    def handle(self) -> None:
        """Serve a connection. pywsgi sends headers and body apart: Nagle would add 40 ms."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle()  # type: ignore[no-untyped-call]

    def handle_error(self, kind: type[BaseException], error: object, traceback: object) -> None:
        """A 500 for a bug; to a request that the server's stop has cut short, no answer."""
        if issubclass(kind, GreenletExit):
            self.close_connection = True
        else:
            super().handle_error(kind, error, traceback)  # type: ignore[no-untyped-call]

    def get_environ(self) -> dict[str, object]:
        """The WSGI environment with the socket in it."""
        environ: dict[str, object] = super().get_environ()  # type: ignore[no-untyped-call]
        environ[_SOCKET] = self.socket
        return environ


@agent_api.post("/register")
def register() -> Response:
    """An agent introduces itself; the answer carries its key, as the real Manager's does."""
    agent = _caller()
    said = body(RegisterBody)
    return reply(store().agents.register(agent.id, said.ip_address, said.operating_system))


@agent_api.post("/heartbeat")
def heartbeat() -> Response:
    """An agent is alive and says what it runs."""
    agent = _enabled_caller()
    said = body(HeartbeatBody)
    store().agents.heartbeat(agent.id, said.ip_address, said.running)
    canceled = store().tasks.canceled(agent.id)
    return reply({"pull_tasks": True, **({"cancel": canceled} if canceled else {})})


@agent_api.post("/tasks/claim")
def claim() -> Response:
    """Hand out the oldest pending task; with `Prefer: wait=N`, wait for one."""
    agent = _enabled_caller()
    body(ClaimBody)
    key = request.headers.get("Idempotency-Key")
    seconds = _preferred_wait()
    if seconds is None:
        return reply({"task": store().tasks.claim(agent.id, key)})
    store().tasks.wait_for_task(agent.id, key, min(seconds, MAX_WAIT_SECONDS))
    task = None if _hung_up() else store().tasks.claim(agent.id, key)
    return reply({"task": task}, headers={"Preference-Applied": "wait"})


@agent_api.post("/tasks/<int:task_id>/started")
def started(task_id: int) -> Response:
    """The agent runs the task."""
    agent = _enabled_caller()
    body(StartedBody)
    return reply(store().tasks.start(agent.id, task_id))


@agent_api.post("/tasks/<int:task_id>/result")
def result(task_id: int) -> Response:
    """The agent reports the task."""
    agent = _enabled_caller()
    report = body(TaskReport)
    if bytes(memoryview(report.result)[:1]) not in (b"{", b"n"):
        raise Misfit("Expected `object | null` - at `$.result`")
    return reply(store().tasks.report(agent.id, task_id, report))


def _caller() -> ManagedAgent:
    """The agent whose headers these are; raises Refused, NotAuthorized or NotFound."""
    version = request.headers.get("X-API-Version")
    if version is None:
        raise Refused("missing_api_version", "the X-API-Version header is missing")
    if version != API_VERSION:
        message = f"API version {version!r} is not supported"
        raise VersionRefused("unsupported_api_version", message, supported=[API_VERSION])
    name, key = request.headers.get("X-AGENT-NAME"), request.headers.get("X-AGENT-KEY")
    if not name or not key:
        raise NotAuthorized("missing_agent_headers", "X-AGENT-NAME or X-AGENT-KEY is missing")
    return store().agents.authenticate(name, key)


def _enabled_caller() -> ManagedAgent:
    agent = _caller()
    if agent.disabled:
        raise NotFound("the agent is disabled")
    return agent


def _preferred_wait() -> int | None:
    """The seconds of `Prefer: wait=N` (RFC 7240), or None."""
    wait = parse_dict_header(request.headers.get("Prefer", "")).get("wait")
    if not store().extensions or wait is None or not wait.isdecimal():
        return None
    return int(wait)


def _hung_up() -> bool:
    """Whether the client has closed the connection on which it waits. Does not yield."""
    connection = cast(socket.socket, request.environ[_SOCKET])
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
