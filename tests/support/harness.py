"""A dev Manager in the test's process, and real `python -m agent` processes for it."""

import fcntl
import itertools
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir
from threading import Condition
from typing import Any

import gevent
from gevent import subprocess
from gevent.event import Event

from agent.dev.server import DevManager
from agent.dev.store.records import HeartbeatRow, ManagedTask
from agent.dev.store.store import Store
from agent.process.ports import is_listening
from agent.protocol import FINAL_STATUSES

ROOT = Path(__file__).parent.parent.parent
AGENT = (sys.executable, "-m", "agent")
PATIENCE = 30.0


def environment(**variables: str) -> dict[str, str]:
    """What an agent process gets: these variables, and hardly anything of this process's."""
    kept = ("PATH", "HOME", "LANG")
    own = {name: value for name, value in os.environ.items() if name in kept or "COV" in name}
    return {**own, "PYTHONPATH": str(ROOT), **variables}


def with_all_signals() -> None:
    """Let a child have the signals that a shell hides from what it runs in the background."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class AgentProcess:
    """A real agent. `lines` are its log lines so far, decoded; what is no JSON is a text."""

    def __init__(
        self, *arguments: str, cwd: Path, program: Sequence[str] = AGENT, **variables: str
    ) -> None:
        """Start the agent with these arguments and these variables in its environment."""
        self.lines: list[Any] = []
        self._said = Event()
        # Tests that are killed leave no agent behind.
        dying = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self._process = subprocess.Popen(
            [*dying, *program, *arguments],
            cwd=cwd,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=with_all_signals,
        )
        self._reader = gevent.spawn(self._read)

    @property
    def pid(self) -> int:
        """The process id."""
        pid = self._process.pid
        assert pid is not None
        return int(pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait_for(self, message: str, timeout: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Wait for a log line with this message and these fields; fails the test without one."""

        def found() -> dict[str, Any] | None:
            for line in self.lines:
                if isinstance(line, dict) and line.get("message") == message:
                    if all(line.get(name) == value for name, value in fields.items()):
                        return line
            return None

        with gevent.Timeout(timeout, AssertionError(f"no {message!r} {fields} in {self.lines}")):
            while not (line := found()):
                self._said.clear()
                self._said.wait()
        return line

    def exit_code(self, timeout: float = PATIENCE) -> int:
        """Wait for the end and for the last line; fails the test when it goes on."""
        with gevent.Timeout(timeout, AssertionError(f"still running: {self.lines}")):
            self._reader.join()
            code: int = self._process.wait()
        return code

    def close(self) -> None:
        """End it the hard way if a test has left it running."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=5)

    def _read(self) -> None:
        assert self._process.stdout
        for raw in self._process.stdout:
            text = raw.decode(errors="replace").rstrip("\n")
            try:
                self.lines.append(json.loads(text))
            except ValueError:
                self.lines.append(text)
            self._said.set()


class Bench:
    """A dev Manager with two agents, `a1` (id 1) and `a2` (id 2), whose keys are key-1, key-2.

    `program` is the command that starts an agent, where nothing else is said. `running` has, by the
    agent's id, what its last heartbeat said that it runs.
    """

    def __init__(self, store: Store, directory: Path, program: Sequence[str] = AGENT) -> None:
        self.store = store
        self.directory = directory
        self.manager = DevManager(store, "127.0.0.1", 0)
        self.agents: list[AgentProcess] = []
        self.running: defaultdict[int, list[HeartbeatRow]] = defaultdict(list)
        self._changed = Condition()
        self._program = program
        self._listen(store)
        for number in (1, 2):
            store.agents.add(f"a{number}", f"key-{number}")

    def agent(
        self, *arguments: str, number: int = 1, program: Sequence[str] = (), **variables: str
    ) -> AgentProcess:
        """Start agent a1 or a2; variables given go before those that the bench sets."""
        settings = {
            "MANAGER_URL": self.manager.url,
            "AGENT_NAME": f"a{number}",
            "AGENT_KEY": f"key-{number}",
            "STATE_DIR": str(self.directory / f"state-{number}"),
            "CLAIM_INTERVAL": "0.1",
            **variables,
        }
        agent = AgentProcess(
            *arguments, cwd=self.directory, program=program or self._program, **settings
        )
        self.agents.append(agent)
        return agent

    def task(self, task_type: str, number: int = 1, **payload: Any) -> ManagedTask:
        """A pending task for one of the agents.

        A TCP test is held to 100 Mbit/s unless it has a `bitrate`, if only None: without a limit it
        would take both cores from the tests that run beside it.
        """
        if task_type == "iperf_client_run" and not payload.get("udp"):
            payload.setdefault("bitrate", 10**8)
        return self.store.tasks.add(number, task_type, payload)

    def wait(self, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Wait until `condition()` holds at the Manager; fails the test if it never does."""
        if not self.comes_about(condition, timeout):
            raise AssertionError(f"never so: {[t for t in self.store.tasks.find()]}")

    def comes_about(self, condition: Callable[[], object], timeout: float) -> bool:
        """Whether `condition()`, which must not yield, holds after a change at the Manager."""
        with self._changed:
            return bool(self._changed.wait_for(condition, timeout))

    def _listen(self, store: Store) -> None:
        """Hear of each change of the store, and of what each heartbeat says."""
        touch, heartbeat = store.touch, store.agents.heartbeat

        def note_change() -> None:
            touch()
            with self._changed:
                self._changed.notify_all()

        def note_heartbeat(
            agent_id: int, ip_address: str, running: list[HeartbeatRow], instance: str = ""
        ) -> list[str]:
            self.running[agent_id] = running
            return heartbeat(agent_id, ip_address, running, instance)

        setattr(store, "touch", note_change)
        setattr(store.agents, "heartbeat", note_heartbeat)

    def ends_well(self, agent: AgentProcess) -> None:
        """Agent a1 beats, ends with TERM as it should, and has met no bug."""
        before = self.store.agents.get(1).last_heartbeat
        self.wait(lambda: self.store.agents.get(1).last_heartbeat != before)
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
        assert all(isinstance(line, dict) for line in agent.lines), agent.lines

    def ended(self, task: ManagedTask, timeout: float = PATIENCE) -> ManagedTask:
        """Wait until the task has a final status; returns it."""
        self.wait(lambda: task.status in FINAL_STATUSES, timeout)
        return task

    def child_file(self, task: ManagedTask, suffix: str, number: int = 1) -> Path:
        """What an agent's child of that task has, or would have, beside its stdout."""
        children = self.directory / f"state-{number}" / "children"
        (stdout,) = children.glob(f"{task.id}.*.json")
        return stdout.with_suffix(suffix)

    def result(self, task: ManagedTask) -> Any:
        """A task's result, decoded."""
        return json.loads(bytes(task.result))

    def close(self) -> None:
        """End what still runs."""
        for agent in self.agents:
            agent.close()
        self.manager.stop()


def until(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Look every 10 ms until `condition()` holds; fails the test if it never does."""
    with gevent.Timeout(timeout, AssertionError("it never came about")):
        while not condition():
            gevent.sleep(0.01)


@contextmanager
def hub_gaps() -> Iterator[list[float]]:
    """How long the hub let a greenlet wait that asked for a millisecond, each time meanwhile."""
    gaps: list[float] = []

    def tick() -> None:
        while True:
            began = time.monotonic()
            gevent.sleep(0.001)
            gaps.append(time.monotonic() - began)

    ticking = gevent.spawn(tick)
    try:
        yield gaps
    finally:
        ticking.kill()


@contextmanager
def iperf3_server(port: int, *options: str, program: str = "iperf3") -> Iterator[subprocess.Popen]:
    """An iperf3 server that no agent knows of, from its listening until the block's end."""
    argv = [program, "-s", "-p", str(port), *options]
    with open(os.devnull, "wb") as nowhere, subprocess.Popen(argv, stdout=nowhere) as server:
        try:
            until(lambda: is_listening(server.pid or 0, port))
            yield server
        finally:
            server.kill()


def free_port() -> int:
    """A TCP port that nobody listens on at this moment, of both families.

    It lies below those that the kernel gives to outgoing connections.
    """
    while True:
        port = next(_PORTS)
        with socket.socket(socket.AF_INET6) as probe, suppress(OSError):
            probe.bind(("::", port))
            return port


def _ports() -> Iterator[int]:
    """The ports of a thousand that this process has for itself, among all that run tests."""
    for first in random.sample(range(10_000, 30_000, 1_000), 20):
        lock = os.open(f"{gettempdir()}/iperf-agent-tests-{first}", os.O_CREAT | os.O_RDONLY, 0o644)
        with suppress(BlockingIOError):
            # Held until the process ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return itertools.cycle(range(first, first + 1_000))
        os.close(lock)
    raise RuntimeError("20 processes run tests already")


_PORTS = _ports()


def is_running(pid: int) -> bool:
    """Whether a process of that id is there and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
