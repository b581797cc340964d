"""The calls, and for each answer in tests/support/answers.py a Manager or a proxy that gives it."""

import json
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any
from unittest.mock import patch

import gevent
import trustme

from agent.config.settings import Config
from agent.manager.api import ManagerClient
from agent.manager.upload import Body
from agent.protocol import Task
from tests.support.endless import CONNECT, FLOODS, flood
from tests.support.faulty_manager import FaultyManager, Request, raw_reply, reply, well
from tests.support.sockets import access, reset, serving, silent

MIB = 1024**2
# Beyond what the client reads, this much may lie in the buffers of both sockets.
BUFFERED = 31 * MIB
PAGE = b"<html><body>Something of a proxy's</body></html>"
# The status that a `started` or a `result` sends.
SENT = {"started": "running", "result": "succeeded"}
# Seconds that stand in for every deadline where an answer never ends.
SOON = 0.3

Call = Callable[[ManagerClient], object]
TASK = Task(1, "iperf_client_run", created_at="2026-01-02T03:04:05Z")
# Each call, as one attempt of it is made.
ASK: dict[str, Call] = {
    "register": lambda client: client.register("10.0.0.1", "Debian"),
    "heartbeat": lambda client: client.send_heartbeat("10.0.0.1", []),
    "claim": lambda client: client.claim("key"),
    "started": lambda client: client.send_started(TASK, 77, "key"),
    "result": lambda client: client.send_result(TASK, Body(b'{"status":"succeeded"}'), "key"),
}


def task(task_id: int) -> Task:
    """A client task of that number."""
    return Task(task_id, "iperf_client_run")


@dataclass(frozen=True)
class Scene:
    """A Manager that gives one answer: the way to it, and what it has read of requests."""

    access: Config
    heard: list[Any]


@contextmanager
def answering(answer: Callable[[Request], bytes]) -> Iterator[Scene]:
    """A Manager that answers so, and then closes the connection."""

    def answer_and_close(request: Request) -> bytes:
        with suppress(OSError):  # the agent may have gone, or the answer have been a reset
            request.socket.sendall(answer(request))
        return b""

    faulty = FaultyManager(answer_and_close)
    try:
        yield Scene(access(faulty.url), faulty.requests)
    finally:
        faulty.stop()


def telling(body: Any, status: int, **headers: str) -> AbstractContextManager[Scene]:
    """A Manager that always gives this JSON."""
    return answering(lambda _: reply(body, status, **headers))


def showing(status: int, **headers: str) -> AbstractContextManager[Scene]:
    """A proxy that always gives its page."""
    return answering(lambda _: raw_reply(PAGE, status, **headers))


def about(**fields: str) -> AbstractContextManager[Scene]:
    """A Manager whose task of that number has these fields."""

    def answer(request: Request) -> bytes:
        told = json.loads(well(request).partition(b"\r\n\r\n")[2])
        return reply({**told, **fields})

    return answering(answer)


def in_state(status: Callable[[str], str]) -> AbstractContextManager[Scene]:
    """A Manager whose task is in a state that does not admit the call; `status` names it."""

    def answer(request: Request) -> bytes:
        details = {"current_status": status(SENT.get(request.call, "running"))}
        return reply({"detail": {"error": "invalid_task_state", "details": details}}, 400)

    return answering(answer)


@contextmanager
def moved() -> Iterator[Scene]:
    """A Manager that points to another host, which must not even be called."""
    callers: list[socket] = []
    with serving(callers.append) as url:
        elsewhere = url.replace("127.0.0.1", "localhost")
        with answering(
            lambda request: raw_reply(b"", 301, Location=elsewhere + request.path)
        ) as scene:
            yield scene
    assert callers == []


@contextmanager
def refusing() -> Iterator[Scene]:
    """A port that is taken and that nobody listens on."""
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Scene(access(f"http://127.0.0.1:{taken.getsockname()[1]}"), [])


@contextmanager
def resetting() -> Iterator[Scene]:
    """A Manager that resets each connection at once."""
    with serving(reset) as url:
        yield Scene(access(url), [])


def read_and_reset(request: Request) -> bytes:
    reset(request.socket)
    return b""


def drip(request: Request) -> bytes:
    """A header without an end; a pause is as much shorter than a second as the deadlines are."""
    request.socket.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        request.socket.sendall(b"x")
        gevent.sleep(SOON / 10)


@contextmanager
def gigabyte(beginning: Callable[[Request], bytes]) -> Iterator[Scene]:
    """An answer of a gigabyte, of which not much more than a MiB may be taken."""
    sent = 0

    def pour(request: Request) -> bytes:
        nonlocal sent
        request.socket.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 1024**3)
        request.socket.sendall(beginning(request))
        while sent < 1024**3:
            request.socket.sendall(b" " * MIB)
            sent += MIB
        return b""

    with answering(pour) as scene:
        yield scene
        assert MIB <= sent <= MIB + BUFFERED


def without_end(request: Request) -> bytes:
    """What the Manager answers, but for the brace at its end."""
    return well(request).partition(b"\r\n\r\n")[2][:-1] + b', "more": "'


@contextmanager
def tls(
    name: str = "127.0.0.1", known: bool = True, until: datetime | None = None
) -> Iterator[Scene]:
    """A Manager whose certificate is for that name, of a known authority, and good until then."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    begin = until - timedelta(days=1) if until else None
    authority.issue_cert(name, not_before=begin, not_after=until).configure_cert(context)
    heard: list[Any] = []

    def serve(connection: socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
            heard.append(secured.recv(1))
            secured.sendall(reply({"id": 1, "pull_tasks": True, "task": None}))
            while secured.recv(MIB):
                pass

    configured = authority if known else trustme.CA()
    with serving(serve) as url, configured.cert_pem.tempfile() as ca_file:
        secured = access(url.replace("http", "https"))
        yield Scene(replace(secured, manager_ca_file=Path(ca_file)), heard)


@contextmanager
def flooding(kind: str) -> Iterator[Scene]:
    """A Manager, or a proxy before it, that never ends what it says and is fast at it."""
    with answering(lambda request: flood(request.socket, kind)) as scene:
        if kind != CONNECT:
            yield scene
            return
        with patch.dict(os.environ, https_proxy=scene.access.manager_url):
            yield replace(scene, access=access("https://manager.invalid"))


@contextmanager
def flooding_tls(kind: str) -> Iterator[Scene]:
    """A Manager that never gets to the answer, as its TLS has no end."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    with authority.cert_pem.tempfile() as ca_file, certificate.tempfile() as own:

        def pour(connection: socket) -> None:
            flood(connection, kind, own)

        with serving(pour) as url:
            secured = access(url.replace("http", "https"))
            yield Scene(replace(secured, manager_ca_file=Path(ca_file)), [])


PLAYS: dict[str, Callable[[], AbstractContextManager[Scene]]] = {
    "200 with the expected JSON": partial(answering, well),
    "200 with another task's `created_at`": partial(about, created_at="2026-01-02T03:04:09Z"),
    "200 with another task's `type`": partial(about, type="iperf_server_start"),
    "200 with an HTML page": partial(showing, 200),
    "200 cut short": partial(answering, lambda request: well(request)[:-2]),
    "204": partial(answering, lambda _: b"HTTP/1.1 204 No Content\r\n\r\n"),
    "301 to another host": moved,
    "400 `invalid_task_state`, with the status that was sent": partial(in_state, lambda sent: sent),
    "400 `invalid_task_state`, with `canceled`": partial(in_state, lambda _: "canceled"),
    "400 `invalid_task_state`, with another status": partial(in_state, lambda _: "failed"),
    "400 `task_not_found`": partial(telling, {"detail": {"error": "task_not_found"}}, 400),
    "400 with any other `error`": partial(
        telling, {"detail": {"error": "unsupported_api_version"}}, 400
    ),
    "400 with a proxy's page": partial(showing, 400),
    "401": partial(telling, {"detail": {"error": "invalid_agent_key"}}, 401),
    "401 with a proxy's page": partial(showing, 401),
    "403": partial(telling, {"error": "forbidden"}, 403),
    "403 with a proxy's page": partial(showing, 403),
    "404 `not_found`, `agent_not_found`, `agent_disabled`": partial(
        telling, {"error": "not_found", "message": "no agent is named 'a1'"}, 404
    ),
    "404 with a proxy's page": partial(showing, 404),
    "407 of a proxy": partial(showing, 407),
    "409": partial(telling, {"error": "conflict"}, 409),
    "409 with a proxy's page": partial(showing, 409),
    "410": partial(telling, {"detail": {"error": "gone"}}, 410),
    "410 with a proxy's page": partial(showing, 410),
    "413": partial(showing, 413),
    "422": partial(telling, {"detail": [{"msg": "does not fit"}]}, 422),
    "422 with a proxy's page": partial(showing, 422),
    "426": partial(telling, {"detail": {"error": "unsupported_api_version"}}, 426),
    "426 with a proxy's page": partial(showing, 426),
    "429 with `Retry-After`": partial(showing, 429, Retry_After="17"),
    "429 without `Retry-After`": partial(showing, 429),
    "500": partial(telling, {"detail": "Internal Server Error"}, 500),
    "502": partial(showing, 502),
    "503 with `Retry-After`": partial(showing, 503, Retry_After="17"),
    "503 without `Retry-After`": partial(showing, 503),
    "504": partial(showing, 504),
    "connection refused": refusing,
    "reset before the request was read": resetting,
    "reset after the request was read": partial(answering, read_and_reset),
    "no answer": partial(answering, silent),
    "one byte a second": partial(answering, drip),
    "a gigabyte that begins with the expected JSON": partial(gigabyte, without_end),
    "a gigabyte of anything else": partial(gigabyte, lambda _: PAGE),
    "TLS certificate for another name": partial(tls, "manager.example"),
    "TLS certificate that has expired": partial(tls, until=datetime.now(UTC)),
    "TLS certificate of an unknown authority": partial(tls, known=False),
    **{kind: partial(flooding_tls if "TLS" in kind else flooding, kind) for kind in FLOODS},
}
