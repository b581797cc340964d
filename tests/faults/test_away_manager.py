"""A Manager that is killed in the middle of tests, and comes back: with its state, or empty."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from gevent import subprocess

from agent.records import unframe
from agent.spool import Parcel
from tests.dev.api import Api
from tests.harness import (
    ROOT,
    AgentProcess,
    environment,
    free_port,
    iperf3_server,
    is_running,
    until,
)
from tests.lone_agent import lone_agent

# Seconds that the Manager is away.
AWAY = 60.0
# Of twenty tests, in seconds: two end before it goes, fourteen while it is away, and four later.
LENGTHS = (1, 1, *range(16, 58, 3), 75, 76, 77, 78)
# Slow enough that twenty of them disturb nobody: bits per second.
BITRATE = 100_000
# What is promised; tests wait for three times as long.
RESULTS_WITHIN, HEARTBEAT_WITHIN = 35.0, 5.0
LOOK = 0.5


class Manager:
    """`python -m agent.dev` on one port, with agent a1; `api` is the operator's way to it."""

    def __init__(self, *options: str) -> None:
        self._port = free_port()
        self._options = options
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it, and log in."""
        listen = ("--listen", f"127.0.0.1:{self._port}", "--agent", "a1:key-1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent.dev", *listen, *self._options],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        assert b"listening" in self._process.stdout.readline()
        self.back_at = datetime.now(UTC)
        self.api = Api(self.url)
        assert self.api.login().ok

    def kill(self) -> None:
        """End it without a chance to write anything."""
        self.api.session.close()
        self._process.kill()
        self._process.wait()

    def add(self, task_type: str, **payload: Any) -> int:
        """Give a1 a task; returns its id."""
        task = {"agent_id": 1, "type": task_type, "payload": payload}
        return int(self.api.call("POST", "tasks", task).json()["id"])

    def tasks(self, *task_ids: int) -> list[dict[str, Any]]:
        """What it knows of these tasks."""
        return [self.api.call("GET", f"tasks/{task_id}").json() for task_id in task_ids]

    def wait_for_status(self, status: str, *task_ids: int, timeout: float = 30.0) -> None:
        """Wait until all of these tasks have this status; fails the test if they never do."""
        others = {0: ""}
        with gevent.Timeout(timeout, AssertionError(others)):
            while others:
                gevent.sleep(LOOK)
                found = {task["id"]: task for task in self.tasks(*task_ids)}
                others.clear()
                others |= {
                    n: t["error"] or t["status"] for n, t in found.items() if t["status"] != status
                }

    def wait_for_heartbeat(self) -> float:
        """How many seconds after its start a heartbeat came; fails the test when none does."""

        def came() -> Any:
            last = self.api.call("GET", "agents/1").json()["last_heartbeat"]
            return last and datetime.fromisoformat(last) >= self.back_at

        until(came, 3 * HEARTBEAT_WITHIN)
        return self.age()

    def age(self) -> float:
        """The seconds since its start."""
        return (datetime.now(UTC) - self.back_at).total_seconds()


@contextmanager
def killable(*options: str) -> Iterator[Manager]:
    """A Manager that is not left behind."""
    manager = Manager(*options)
    try:
        yield manager
    finally:
        manager.kill()


def ended(agent: AgentProcess) -> set[int]:
    """The client tests of which the agent has said that they have ended well."""
    lines = [line for line in agent.lines if isinstance(line, dict)]
    good = {"message": "client ended", "exit_code": 0}
    return {line["task_id"] for line in lines if good.items() <= line.items()}


def delivered(agent: AgentProcess, task_id: int) -> int:
    """How many results of a task the agent says that the Manager took."""
    lines = [line for line in agent.lines if isinstance(line, dict)]
    said = [(line["message"], line.get("task_id")) for line in lines]
    return said.count(("result delivered", task_id))


def files_in(directory: Path) -> list[Path]:
    """What waits in the agent's outbox, or was set aside."""
    state = directory / "state"
    return [file for below in ("outbox", "rejected") for file in (state / below).iterdir()]


@pytest.mark.timeout(400)
def test_a_manager_that_was_away_for_a_minute_gets_every_result(tmp_path: Path) -> None:
    """Some 90 s. The results that waited are there within 30 s of the Manager's return, which is
    the longest pause between two attempts, and 35 s are promised; a heartbeat within 5 s."""
    state = str(tmp_path / "manager.json")
    with killable("--state", state) as manager:
        with lone_agent(manager.url, tmp_path, HEARTBEAT_INTERVAL="5") as agent:
            ports = [free_port() for _ in LENGTHS]
            servers = [manager.add("iperf_server_start", port=port) for port in ports]
            manager.wait_for_status("succeeded", *servers)
            clients = [
                manager.add(
                    "iperf_client_run",
                    server_ip="127.0.0.1",
                    port=port,
                    time=seconds,
                    bitrate=BITRATE,
                )
                for port, seconds in zip(ports, LENGTHS, strict=True)
            ]
            manager.wait_for_status("succeeded", *clients[:2])
            manager.wait_for_status("running", *clients[2:])
            manager.kill()
            gevent.sleep(AWAY)
            assert ended(agent) == set(clients[:16]), "tests go on and come to their ends"
            manager.start()
            heartbeat = manager.wait_for_heartbeat()
            manager.wait_for_status("succeeded", *clients[2:16], timeout=3 * RESULTS_WITHIN)
            arrived = manager.age()
            manager.wait_for_status("succeeded", *clients, timeout=3 * RESULTS_WITHIN)
            until(lambda: all("end" in task["result"] for task in manager.tasks(*servers)))
            until(lambda: not files_in(tmp_path))
            print(f"away for {AWAY:g} s: a heartbeat {heartbeat:.1f} s after its return,")
            print(f"the 14 results that had waited {arrived:.1f} s after it")
            for seconds, task in zip(LENGTHS, manager.tasks(*clients), strict=True):
                assert task["result"]["end"]["sum_sent"]["seconds"] >= seconds - 1, "it went on"
                assert delivered(agent, task["id"]) == 1


@pytest.mark.timeout(120)
def test_an_empty_managers_task_gets_no_result_of_an_old_one(tmp_path: Path) -> None:
    """Some 15 s: the old results go to rejected/ when the agent has registered again.

    The new task 7 is a server, which takes further results: nothing but the agent's knowledge
    of the Manager's lives keeps the old one's away from it.
    """
    with ExitStack() as stack:
        ports = [free_port() for _ in range(4)]
        for port in ports[:3]:
            stack.enter_context(iperf3_server(port))
        manager = stack.enter_context(killable())
        agent = stack.enter_context(lone_agent(manager.url, tmp_path))
        fillers = [manager.add("kill_all") for _ in range(6)]
        manager.wait_for_status("succeeded", *fillers)
        old = [
            manager.add("iperf_client_run", server_ip="127.0.0.1", port=port, time=seconds)
            for port, seconds in zip(ports[:3], (4, 4, 60), strict=True)
        ]
        assert old == [7, 8, 9]
        manager.wait_for_status("running", *old)
        manager.kill()
        for task_id in (7, 8):
            agent.wait_for("client ended", task_id=task_id, exit_code=0)
            agent.wait_for("not delivered yet", task_id=task_id)
        running = agent.wait_for("client started", task_id=9)["pid"]
        assert is_running(running), "tests go on"
        manager.start()
        assert [manager.add("kill_all") for _ in range(6)] == fillers
        new = [
            manager.add("iperf_server_start", port=ports[3]),
            manager.add("iperf_client_run", server_ip="127.0.0.1", port=ports[0], time=1),
        ]
        assert new == [7, 8]
        heartbeat = manager.wait_for_heartbeat()
        manager.wait_for_status("succeeded", *fillers, *new)
        until(lambda: set_aside(tmp_path) == {7, 8, 9})
        print(f"a heartbeat {heartbeat:.1f} s after the return, all old results aside by")
        print(f"{manager.age():.1f} s after it")
        assert not is_running(running), "nobody waits for this test any more"
        server, client = manager.tasks(*new)
        assert server["result"]["port"] == ports[3] and "end" not in server["result"]
        assert client["result"]["start"]["test_start"]["duration"] == 1
        for task in manager.tasks(*fillers):
            assert task["result"]["killed"]


def set_aside(directory: Path) -> set[int]:
    """The tasks whose results lie in rejected/; each has its reason beside it."""
    found = set()
    for path in (directory / "state" / "rejected").glob("*.result"):
        answer = path.with_suffix(".answer")
        if answer.exists():
            assert "another life" in answer.read_text()
            parcel = msgspec.json.decode(unframe(path.read_bytes()), type=Parcel)
            found.add(parcel.claimed.task.id)
    return found
