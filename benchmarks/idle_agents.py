"""A dev Manager in a process of its own, and a thousand idle agents in this one.

The agents are greenlets with the agent's own client, registration, heartbeat loop and claim loop.
What goes over the wire is what a thousand agent processes would send. They have no state directory,
as nobody gives them a task.
"""

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import gevent
import psutil
from gevent import subprocess
from gevent.event import Event
from gevent.pool import Group

from agent.config.key import Key
from agent.config.settings import read_settings
from agent.manager.api import ManagerClient
from agent.manager.registration import Gate, Registration
from agent.metrics import Histogram, Metrics
from agent.native_threads import Resolver
from agent.registry import TaskRegistry
from agent.service.claims import ClaimLoop
from agent.service.heartbeat import HeartbeatLoop
from agent.state.journal import Journal
from agent.tasks.runner import TaskRunner
from benchmarks.figures import progress
from benchmarks.host import memory
from tests.support.harness import ROOT, environment, free_port

AGENTS = 1000
# Seconds over which the agents register, and those until all have claimed.
SPREAD = 10
SETTLING = 5
# As in an agent's own process.
gevent.config.resolver = Resolver


@dataclass(frozen=True)
class Manager:
    """A running dev Manager. `empty` is its memory in bytes before any agent came."""

    pid: int
    url: str
    empty: int

    def connections(self) -> int:
        """How many connections it has."""
        found = psutil.Process(self.pid).net_connections("tcp")
        return sum(each.status != psutil.CONN_LISTEN for each in found)


@contextmanager
def manager(*options: str) -> Iterator[Manager]:
    """A dev Manager that knows all the agents, in a process of its own until the block's end."""
    port = free_port()
    known = [word for number in range(AGENTS) for word in ("--agent", f"a{number}:key-{number}")]
    argv = [sys.executable, "-m", "agent.dev", "--listen", f"127.0.0.1:{port}", *known, *options]
    with subprocess.Popen(argv, cwd=ROOT, env=environment(), stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            url = f"http://127.0.0.1:{port}"
            yield Manager(process.pid, url, memory(process.pid, "VmRSS"))
        finally:
            process.kill()


class Calls(Metrics):
    """What all agents note: each call with its status and seconds, and how late heartbeats were."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, int, float]] = []
        self.heartbeat_lateness = self.late = Values()

    def count_call(self, call: str, status: int, seconds: float) -> None:
        """Note a call to the Manager; a status of 0 stands for no answer."""
        self.made.append((call, status, seconds))


class Values(Histogram):
    """A histogram that has each of its values."""

    def __init__(self) -> None:
        super().__init__(())
        self.values: list[float] = []

    def observe(self, value: float) -> None:
        """Keep one value."""
        self.values.append(value)


@contextmanager
def crowd(of: Manager) -> Iterator[Calls]:
    """All the agents, registered, until the block's end; RuntimeError when one ends before."""
    calls = Calls()
    greenlets = Group()
    progress(f"{AGENTS:,} agents register")
    for number in range(AGENTS):
        greenlets.spawn(idle_agent, number, of.url, calls, greenlets)
    gevent.sleep(SPREAD + SETTLING)
    try:
        yield calls
        if len(greenlets) < 3 * AGENTS:
            raise RuntimeError("an agent has ended by itself")
    finally:
        greenlets.kill()


def idle_agent(number: int, url: str, calls: Calls, greenlets: Group) -> None:
    """Register when it is this agent's turn, and then live like one without tasks."""
    gevent.sleep(number * SPREAD / AGENTS)
    given = {"manager_url": url, "agent_name": f"a{number}"}
    settings = read_settings(given, {"AGENT_KEY": f"key-{number}"})
    key = Key(settings.agent_key, settings.agent_key_file)
    client = ManagerClient(settings, key, calls)
    registration = Registration(settings, client, lambda: None)
    registration.register()
    stop = Event()
    heartbeats = HeartbeatLoop(
        client, registration, TaskRegistry(), calls, settings.heartbeat_interval
    )
    greenlets.spawn(heartbeats.run, stop)
    greenlets.spawn(registration.run, stop)
    # Without a task a claim loop asks its journal for the next key, and its runner for nothing.
    readable = Event()
    readable.set()
    journal = cast(Journal, SimpleNamespace(claim_key=str(uuid.uuid4()), readable=readable))
    runner = cast(TaskRunner, None)
    claims = ClaimLoop(client, Gate(registration), journal, runner, settings.claim_interval)
    claims.run(heartbeats.may_claim, stop, stop)
