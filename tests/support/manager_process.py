"""A dev Manager that is a process of its own, and can be killed."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import gevent
from gevent import subprocess

from tests.support.dev_client import Api
from tests.support.harness import ROOT, environment, free_port, until

# Three times what is promised, in seconds.
HEARTBEAT_WITHIN = 15.0
# Seconds between two looks at tasks.
LOOK = 0.5


class ManagerProcess:
    """`python -m agent.dev` on one port, with agent a1; `api` is the operator's way to it."""

    def __init__(self, *options: str) -> None:
        self._port = free_port()
        self._options = options
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self, password: str = "admin123") -> None:
        """Start it, and log in."""
        listen = ("--listen", f"127.0.0.1:{self._port}", "--agent", "a1:key-1")
        own = (*listen, "--admin-password", password, *self._options)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent.dev", *own],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        assert b"listening" in self._process.stdout.readline()
        self._began = datetime.now(UTC)
        self.api = Api(self.url)
        assert self.api.login(password).ok

    def kill(self) -> None:
        """End it without a chance to write anything."""
        self.api.session.close()
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Have it hang: connections are made, and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

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

    def wait_for_heartbeat(self) -> None:
        """Wait until the agent is heard of again; a registration would count as well."""
        now = datetime.now(UTC)

        def came() -> bool:
            last = self.api.call("GET", "agents/1").json()["last_heartbeat"]
            return datetime.fromisoformat(last) >= now

        until(came, HEARTBEAT_WITHIN)

    def age(self, line: dict[str, Any] | None = None) -> float:
        """The seconds from its start until now, or until a line of an agent's log."""
        moment = datetime.fromisoformat(line["timestamp"]) if line else datetime.now(UTC)
        return (moment - self._began).total_seconds()


@contextmanager
def killable(*options: str) -> Iterator[ManagerProcess]:
    """A Manager that is not left behind."""
    manager = ManagerProcess(*options)
    try:
        yield manager
    finally:
        manager.kill()
