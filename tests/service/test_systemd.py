"""What the agent sends to systemd, on a socket like systemd's own."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from agent.metrics import Metrics
from agent.registry import TaskRegistry
from agent.service import systemd
from tests.support.faulty_manager import Request, raw_reply, well
from tests.support.harness import PATIENCE, Bench, free_port
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager

pytestmark = pytest.mark.process


class Listener:
    """A socket where systemd would listen; `said` keeps the lines that came."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.said: list[str] = []

    def wait_for(self, line: str, timeout: float = PATIENCE) -> None:
        """Read until the line has come; fails the test if it does not."""
        with gevent.Timeout(timeout, AssertionError(f"no {line!r} in {self.said}")):
            while line not in self.said:
                self.said += self._socket.recv(4096).decode().splitlines()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@contextmanager
def listening(path: Path) -> Iterator[Listener]:
    """A listening socket for the block."""
    listener = Listener(path)
    try:
        yield listener
    finally:
        listener.close()


def test_systemd_hears_when_it_is_ready_what_runs_and_that_it_stops(bench: Bench) -> None:
    path = bench.directory / "notify"
    with listening(path) as systemds:
        agent = bench.agent(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="1500000")
        systemds.wait_for("READY=1")
        agent.wait_for("registered")
        systemds.wait_for("STATUS=0 tests and 0 servers running")
        bench.ended(bench.task("iperf_server_start", port=free_port()))
        systemds.wait_for("STATUS=0 tests and 1 servers running")
        systemds.said.clear()
        systemds.wait_for("WATCHDOG=1")
        agent.signal(signal.SIGTERM)
        systemds.wait_for("STOPPING=1")
        assert agent.exit_code() == 0


def test_what_did_not_fit_into_systemds_queue_is_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    metrics, stop = Metrics(), Event()
    metrics.heard_at = 1.0
    with listening(path) as systemds, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                other.sendto(b"X=1", str(path))
        informing = gevent.spawn(systemd.keep_informed, TaskRegistry(), metrics, stop)
        gevent.sleep(1.5)
        systemds.wait_for("READY=1")
        stop.set()
        informing.join()


def test_a_manager_that_is_away_is_no_reason_to_be_restarted(bench: Bench) -> None:
    path = bench.directory / "notify"
    with listening(path) as systemds:
        agent = bench.agent(
            NOTIFY_SOCKET=str(path), WATCHDOG_USEC="600000", HEARTBEAT_INTERVAL="0.2"
        )
        systemds.wait_for("READY=1")
        bench.manager.stop()
        agent.wait_for("no heartbeat; tests go on")
        for _ in range(5):
            systemds.said.clear()
            systemds.wait_for("WATCHDOG=1", timeout=0.6 * 3)


def test_a_stopped_agent_sends_no_watchdog_message(bench: Bench) -> None:
    path = bench.directory / "notify"
    with listening(path) as systemds:
        agent = bench.agent(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="600000")
        systemds.wait_for("READY=1")
        agent.signal(signal.SIGSTOP)
        with pytest.raises(AssertionError, match="no 'never'"):
            systemds.wait_for("never", timeout=0.3)
        systemds.said.clear()
        with pytest.raises(AssertionError):
            systemds.wait_for("WATCHDOG=1", timeout=1.5)
        agent.signal(signal.SIGCONT)
        systemds.wait_for("WATCHDOG=1")


def test_it_is_not_ready_before_a_heartbeat_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with listening(path) as systemds:
        with lone_agent("http://127.0.0.1:1", tmp_path, NOTIFY_SOCKET=str(path)) as agent:
            agent.wait_for("not registered yet")
            with pytest.raises(AssertionError):
                systemds.wait_for("READY=1", timeout=1.5)


def test_systemd_is_asked_for_more_time_until_the_first_heartbeat_is_answered(
    faulty: MakeManager, tmp_path: Path
) -> None:
    def answer(request: Request) -> bytes:
        return raw_reply(b"", 503) if request.call == "heartbeat" else well(request)

    path = tmp_path / "notify"
    with listening(path) as systemds:
        with lone_agent(faulty(answer).url, tmp_path, NOTIFY_SOCKET=str(path)) as agent:
            agent.wait_for("no heartbeat; tests go on")
            systemds.wait_for("EXTEND_TIMEOUT_USEC=10000000")
            assert "READY=1" not in systemds.said


def test_a_missing_socket_does_not_stop_the_agent(bench: Bench) -> None:
    agent = bench.agent(NOTIFY_SOCKET=str(bench.directory / "nowhere"), WATCHDOG_USEC="600000")
    agent.wait_for("systemd does not listen")
    agent.wait_for("registered")
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "\N{SUPERSCRIPT TWO}"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
    ],
)
def test_the_watchdog_interval_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], seconds: float | None
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert systemd.watchdog_seconds() == seconds
