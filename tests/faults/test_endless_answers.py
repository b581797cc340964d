"""Answers without an end, as fast as a process can write them: promises 6 and 9.

Every connection of a real agent at work is flooded, in one way for each heartbeat. The heartbeats
fail, but they are sent at their time, and the agent ends when it is told to.
"""

import itertools
import signal
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from socket import create_connection, socket
from typing import Any

import gevent
import pytest
import trustme
from gevent.pool import Pool
from gevent.server import StreamServer

from agent.errors import ManagerUnavailable
from tests.support.answering import ASK
from tests.support.endless import CONNECT, FLOODS, OK, flood
from tests.support.faulty_manager import FaultyManager, well
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager, client_of, relay

INTERVAL = 5.0
OFF_AT_MOST = 0.5
WAYS = {
    "plain": [kind for kind in FLOODS if "TLS" not in kind and kind != CONNECT],
    "TLS": [kind for kind in FLOODS if "TLS" in kind] * 2,
    "proxy": [CONNECT] * 3,
    "TLS proxy": [CONNECT] * 3,
}
MANAGER = "manager.invalid"


class Way:
    """The way to a Manager, "plain", over "TLS", or over TLS and a "proxy"; then a flood.

    A "TLS proxy" is itself spoken to over TLS.
    """

    def __init__(self, way: str, directory: Path) -> None:
        self._way = way
        self._manager = FaultyManager(well)
        self._flood = ""
        authority = trustme.CA()
        self.ca_file, self._own = directory / "ca.pem", directory / "own.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        own = authority.issue_cert("127.0.0.1", MANAGER)
        own.private_key_and_cert_chain_pem.write_to_path(self._own)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.configure_cert(self._context)
        self._connections = Pool()
        self._server = StreamServer(("127.0.0.1", 0), self._serve, spawn=self._connections)
        self._server.start()
        self._inner = StreamServer(("127.0.0.1", 0), self._pass_on, spawn=self._connections)
        self._inner.start()

    @property
    def variables(self) -> dict[str, str]:
        """How an agent gets here."""
        here = f"127.0.0.1:{self._server.server_port}"
        if self._way == "plain":
            return {"MANAGER_URL": f"http://{here}"}
        trust = {"MANAGER_CA_FILE": str(self.ca_file), "ADVERTISE_ADDRESS": "127.0.0.1"}
        if self._way == "TLS":
            return {"MANAGER_URL": f"https://{here}", **trust}
        scheme = "https" if self._way == "TLS proxy" else "http"
        return {"MANAGER_URL": f"https://{MANAGER}", "https_proxy": f"{scheme}://{here}", **trust}

    def flood(self, kind: str) -> None:
        """From now on, all that arrives is flooded so."""
        self._flood = kind
        self._connections.kill()

    def stop(self) -> None:
        """Close everything."""
        self._server.stop(timeout=0.1)
        self._inner.stop(timeout=0.1)
        self._manager.stop()

    def _serve(self, connection: socket, _: object) -> None:
        with suppress(OSError), connection:
            if self._flood:
                over = "TLS" if self._way == "TLS proxy" else ""
                flood(connection, self._flood, str(self._own), over)
                return
            if self._way == "TLS proxy":
                connection = self._context.wrap_socket(connection, server_side=True)
            if "proxy" in self._way:
                while not connection.recv(65536).endswith(b"\r\n\r\n"):
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            # One TLS inside the other: the inner one ends at another listener.
            with create_connection(("127.0.0.1", self._inner.server_port)) as inner:
                relay(connection, inner)

    def _pass_on(self, connection: socket, _: object) -> None:
        with suppress(OSError), connection:
            if self._way != "plain":
                connection = self._context.wrap_socket(connection, server_side=True)
            address = self._manager.url.removeprefix("http://").split(":")
            with create_connection((address[0], int(address[1]))) as manager:
                relay(connection, manager)


@contextmanager
def way_to_manager(way: str, directory: Path) -> Iterator[Way]:
    """That way, for as long as the block lasts."""
    made = Way(way, directory)
    try:
        yield made
    finally:
        made.stop()


def failed_beats(lines: list[Any]) -> list[float]:
    """When each heartbeat began that got no answer, in seconds."""
    return [
        datetime.fromisoformat(line["timestamp"]).timestamp() - line["milliseconds"] / 1000
        for line in lines
        if line["message"] == "request"
        and line["path"].endswith("heartbeat")
        and line["status"] == "none"
    ]


@pytest.mark.parametrize(
    "costly",
    [
        pytest.param(b"Set-Cookie: a=b\r\nSet-Cookie2: " + b"a," * 30_000, id="cookies"),
        pytest.param(b"\r\n".join([b"X: " + b"\rX:y" * 16_000] * 28), id="headers in one line"),
    ],
)
def test_no_header_costs_more_than_its_bytes(faulty: MakeManager, costly: bytes) -> None:
    def took(header: bytes) -> float:
        answer = OK + header + b"\r\nContent-Length: 1\r\n\r\n "
        manager = faulty(lambda request: answer)
        began = time.process_time()
        with pytest.raises(ManagerUnavailable):
            ASK["heartbeat"](client_of(manager))
        return time.process_time() - began

    took(b"")
    plain = took(b"\r\n".join([b"X: " + b"y" * 60_000] * (1 + len(costly) // 64_000)))
    assert took(costly) < 20 * max(plain, 0.01)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_without_an_end_moves_no_heartbeat_and_hides_no_signal(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with way_to_manager(way, tmp_path) as to_manager:
        settings = {"HEARTBEAT_INTERVAL": str(INTERVAL), **to_manager.variables}
        with lone_agent("", tmp_path, "--debug", **settings) as agent:
            agent.wait_for("request", path="/v1/agent/heartbeat", status=200)
            for done, kind in enumerate(WAYS[way]):
                to_manager.flood(kind)
                with gevent.Timeout(INTERVAL * 4, AssertionError(agent.lines)):
                    while len(beats := failed_beats(agent.lines)) == done:
                        gevent.sleep(0.1)
            agent.signal(signal.SIGTERM)
            assert agent.exit_code() == 0
    off = [abs(later - sooner - INTERVAL) for sooner, later in itertools.pairwise(beats)]
    with capsys.disabled():
        for kind, seconds in zip(WAYS[way], off, strict=False):
            print(f"\nafter {kind}: a heartbeat {seconds:.2f} s off")
    assert max(off) < OFF_AT_MOST
