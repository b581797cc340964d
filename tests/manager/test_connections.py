"""Connections to the Manager: how they fail, how long they may take, when they are used again."""

import itertools
import json
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket
from typing import Any

import gevent
import pytest
from gevent import sleep
from gevent.event import Event

from agent.errors import ManagerUnavailable
from agent.manager.connection import Adapter
from agent.manager.transport import Transport
from agent.metrics import Metrics
from tests.support.clock import Clock
from tests.support.endless import flood
from tests.support.faulty_manager import Request, reply, well
from tests.support.harness import PATIENCE, until
from tests.support.sockets import MakeManager, access, client_of, reset, serving, silent

SMALL_DEADLINE = 0.3


def beat(url: str, deadline: float = SMALL_DEADLINE) -> None:
    """One call with a small deadline."""
    Transport(access(url), Metrics()).call("/v1/agent/heartbeat", b"{}", {}, deadline)


def test_a_refused_connection_is_an_unavailable_manager() -> None:
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ManagerUnavailable, match="refuses the connection"):
            beat(f"http://127.0.0.1:{taken.getsockname()[1]}")


def test_a_connection_reset_at_once_is_an_unavailable_manager() -> None:
    with serving(reset) as url, pytest.raises(ManagerUnavailable, match="ended the connection"):
        beat(url, deadline=10)


def test_a_connection_reset_after_the_request_is_an_unavailable_manager() -> None:
    def read_and_reset(connection: socket) -> None:
        connection.recv(65536)
        reset(connection)

    with (
        serving(read_and_reset) as url,
        pytest.raises(ManagerUnavailable, match="ended the connection"),
    ):
        beat(url, deadline=10)


@pytest.mark.parametrize("pause", [0.0, 0.2])
def test_an_interim_answer_is_not_the_answer(faulty: MakeManager, pause: float) -> None:
    """What a proxy says before it asks the Manager, and says first (RFC 9110, 15.2)."""

    def hint_and_answer(request: Request) -> bytes:
        request.socket.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        request.socket.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        sleep(pause)
        return reply({"number": len(manager.requests)})

    manager = faulty(hint_and_answer)
    transport = Transport(access(manager.url), Metrics())
    for number in (1, 2):
        answer = transport.call("/v1/agent/heartbeat", b"{}", {}, PATIENCE)
        assert json.loads(answer.content) == {"number": number}


def test_a_dead_address_leaves_time_for_the_next_one_of_the_name(
    faulty: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def later(request: Request) -> bytes:
        sleep(1)
        return well(request)

    manager = faulty(later)
    live = manager.url.rpartition(":")[2]
    with socket() as dead, ExitStack() as stack:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        # Its backlog is full: it takes no connection, and refuses none.
        for _ in range(3):
            waiting = stack.enter_context(socket())
            waiting.setblocking(False)
            waiting.connect_ex(dead.getsockname())
        addresses = [dead.getsockname(), ("127.0.0.1", int(live))]
        found = [(AF_INET, SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_: found)
        beat(f"http://localhost:{live}", deadline=6.0)
    assert manager.calls() == ["heartbeat"]


def test_a_connection_closed_without_an_answer_is_an_unavailable_manager(
    faulty: MakeManager,
) -> None:
    with pytest.raises(ManagerUnavailable, match="ended the connection"):
        beat(faulty(lambda _: b"").url, deadline=10)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(b"", b"", id="silence"),
        pytest.param(b"", b"H", id="status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b" ", id="body"),
    ],
)
def test_a_call_ends_at_its_deadline_however_the_answer_drips(
    faulty: MakeManager, head: bytes, piece: bytes
) -> None:
    def drip(request: Request) -> bytes:
        request.socket.sendall(head)
        while piece:
            request.socket.sendall(piece)
            sleep(0.05)
        return silent(request)

    manager = faulty(drip)
    early, late = Event(), Event()
    gevent.spawn_later(SMALL_DEADLINE * 0.9, early.set)
    gevent.spawn_later(SMALL_DEADLINE * 3, late.set)
    with pytest.raises(ManagerUnavailable, match="no answer within 0.3 s"):
        beat(manager.url)
    assert early.is_set() and not late.is_set()


@pytest.mark.process
def test_others_run_between_the_reads_of_an_answer_without_an_end(faulty: MakeManager) -> None:
    turns = [time.monotonic()]

    def run() -> None:
        while True:
            sleep(0.001)
            turns.append(time.monotonic())

    manager = faulty(lambda request: flood(request.socket, "endless chunks of one byte"))
    others = gevent.spawn(run)
    with pytest.raises(ManagerUnavailable, match="the answer is too long"):
        beat(manager.url, deadline=PATIENCE)
    sleep(0.002)
    others.kill()
    longest = max(later - sooner for sooner, later in itertools.pairwise(turns))
    assert longest < (turns[-1] - turns[0]) / 4, "the whole answer was read at once"


def test_one_connection_takes_any_number_of_answers(faulty: MakeManager) -> None:
    ports = set()

    def answer(request: Request) -> bytes:
        ports.add(request.socket.getpeername()[1])
        return reply({"task": None, "more": "x" * 10**6})

    client = client_of(faulty(answer))
    for number in range(4):
        client.claim(str(number))
    assert len(ports) == 1


def test_a_connection_is_used_again_within_two_seconds_and_not_later(
    faulty: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("agent.manager.transport.time", clock)
    ports: list[int] = []

    def note(request: Request) -> bytes:
        ports.append(request.socket.getpeername()[1])
        return well(request)

    client = client_of(faulty(note))
    client.claim("1")
    clock.now += 1.9
    client.claim("2")
    clock.now += 2
    client.claim("3")
    assert ports[0] == ports[1]
    assert ports[1] != ports[2]


def test_a_connection_that_is_idle_beside_one_in_use_is_closed(faulty: MakeManager) -> None:
    sockets: list[Any] = []

    def both_at_once(request: Request) -> bytes:
        sockets.append(request.socket)
        until(lambda: len(sockets) >= 2)
        return well(request)

    client = client_of(faulty(both_at_once))
    gevent.joinall([gevent.spawn(client.claim, str(number)) for number in range(2)])
    two = sockets[:2]
    with gevent.Timeout(PATIENCE, AssertionError("both connections stay open")):
        while all(each.fileno() >= 0 for each in two):
            client.claim("next")
            sleep(0.1)


def test_no_call_fails_because_the_manager_closed_an_idle_connection(
    faulty: MakeManager,
) -> None:
    def answer_and_close(request: Request) -> bytes:
        request.socket.sendall(well(request))
        return b""

    manager = faulty(answer_and_close)
    client = client_of(manager)
    for number in range(5):
        client.claim(str(number))
        sleep(0.01)
    assert len(manager.requests) == 5


def test_a_file_for_tls_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.touch()
    shown: dict[str, Any] = {"manager_cert_file": missing, "manager_cert_key_file": missing}
    for files in ({"manager_ca_file": missing}, {"manager_ca_file": empty}, shown):
        with pytest.raises(OSError, match=r"(missing|empty).pem cannot be used: "):
            Adapter(replace(access("https://localhost"), **files))
