"""A thousand idle agents and one dev Manager: what they ask of it, and what that costs both sides.

The Manager is a process of its own, `python -m agent.dev`. The agents are greenlets of this process
with the agent's own client, registration, heartbeat loop and claim loop, so that what goes over the
wire is what a thousand agent processes would send. They have no state directory, as nobody gives
them a task. They register within 10 s, which is not measured. Then there are three loads:

- claims held, for 60 s: the Manager knows the long poll;
- polling, a task in the last minute, for 45 s: each agent asks again after CLAIM_INTERVAL. No more
  than this is left of that minute once all have registered;
- polling, none, for 60 s: each asks a third as often.

A call is an error when it has no 200 within the agent's own deadline. A latency is the agent's: the
whole call, with the wait for a turn among a thousand greenlets. On a slow host this one process may
need more than its core, and calls come late and fail for that: each load tells how busy it was.
What 100,000 agents would need is these figures times 100, for a Manager whose cost of a call does
not grow with the number of agents.
All together it takes four minutes.
"""

from gevent import monkey

monkey.patch_all()

import resource  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from types import SimpleNamespace  # noqa: E402
from typing import cast  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from gevent import subprocess  # noqa: E402
from gevent.event import Event  # noqa: E402
from gevent.pool import Group  # noqa: E402

from agent.config.key import Key  # noqa: E402
from agent.config.settings import read_settings  # noqa: E402
from agent.logs.setup import configure_logging  # noqa: E402
from agent.manager.api import ManagerClient  # noqa: E402
from agent.manager.registration import Registration  # noqa: E402
from agent.metrics import Histogram, Metrics  # noqa: E402
from agent.registry import TaskRegistry  # noqa: E402
from agent.service.claims import QUIET_AFTER, ClaimLoop  # noqa: E402
from agent.service.heartbeat import HeartbeatLoop  # noqa: E402
from agent.state.journal import Journal  # noqa: E402
from agent.tasks.runner import TaskRunner  # noqa: E402
from benchmarks.figures import Figure, median, percentile, progress, show  # noqa: E402
from benchmarks.host import cpu_seconds, memory  # noqa: E402
from tests.support.harness import ROOT, environment, free_port  # noqa: E402

AGENTS = 1000
MANY = 100_000
# Seconds over which the agents register, those until all have claimed, and those of a measurement.
SPREAD = 10
SETTLING = 5
SECONDS = 60
KIB, MIB, GIB = 1024, 1024**2, 1024**3


def main() -> Iterator[Figure]:
    """The figures of each load, and those of a hundred times as many agents."""
    configure_logging("error", "json", "crowd", str)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loads = []
    with manager() as one, crowd(one) as calls:
        loads.append(measured("claims held", one, calls, SECONDS))
        yield from figures(loads[-1])
    with manager("--no-extensions") as one, crowd(one) as calls:
        began = time.monotonic()
        left = int(QUIET_AFTER) - SPREAD - SETTLING
        loads.append(measured("polling, a task in the last minute", one, calls, left))
        yield from figures(loads[-1])
        progress("until the last agent asks less often")
        gevent.sleep(began + QUIET_AFTER - time.monotonic())
        loads.append(measured("polling, none", one, calls, SECONDS))
        yield from figures(loads[-1])
    for load in loads:
        yield from on_paper(load)


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
        if len(greenlets) < 2 * AGENTS:
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
    # Without a task a claim loop asks its journal for the next key, and its runner for nothing.
    journal = cast(Journal, SimpleNamespace(claim_key=str(uuid.uuid4())))
    runner = cast(TaskRunner, None)
    claims = ClaimLoop(client, registration, journal, runner, settings.claim_interval)
    claims.run(heartbeats.may_claim, stop)


@dataclass(frozen=True)
class Load:
    """What was seen for some seconds. CPU is in seconds, memory in bytes, lateness in seconds."""

    what: str
    seconds: float
    made: list[tuple[str, int, float]]
    manager_cpu: float
    crowd_cpu: float
    memory: int
    empty: int
    connections: int
    late: list[float]

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.made) / self.seconds

    @property
    def crowd_busy(self) -> float:
        """The share of one core that the agents' process had; near 1 it is the limit."""
        return self.crowd_cpu / self.seconds

    @property
    def per_call(self) -> float:
        """Milliseconds of the Manager's CPU."""
        return self.manager_cpu / len(self.made) * 1000

    @property
    def per_agent(self) -> float:
        """Bytes of the Manager's memory, with those of the agent's connections."""
        return (self.memory - self.empty) / AGENTS

    def times(self, call: str) -> list[float]:
        """The milliseconds of each of these calls that was answered."""
        return [took * 1000 for name, status, took in self.made if (name, status) == (call, 200)]


def measured(what: str, of: Manager, calls: Calls, seconds: int) -> Load:
    """Watch both sides for some seconds."""
    progress(f"{AGENTS:,} agents, {what}: {seconds} s")
    calls.made.clear()
    calls.late.values.clear()
    began, theirs, ours = time.monotonic(), cpu_seconds(of.pid), time.process_time()
    gevent.sleep(seconds)
    return Load(
        what,
        time.monotonic() - began,
        calls.made.copy(),
        cpu_seconds(of.pid) - theirs,
        time.process_time() - ours,
        memory(of.pid, "VmRSS"),
        of.empty,
        of.connections(),
        calls.late.values.copy(),
    )


def figures(load: Load) -> Iterator[Figure]:
    """What a load was, and what it cost."""
    of = f"{AGENTS:,} agents, {load.what}"
    failed = Counter(f"{call} {status}" for call, status, _ in load.made if status != 200)
    words = "".join(f"{count} of {name}; " for name, count in failed.items())
    made = f"{words}{len(load.made):,} calls in {load.seconds:.0f} s"
    busy = f"{made}; the process of all agents was busy for {load.crowd_busy:.0%} of the time"
    yield Figure(f"{of}: errors", failed.total(), "calls", most=0, spread=busy)
    kinds = Counter(call for call, _, _ in load.made)
    words = ", ".join(f"{count / load.seconds:.3g} of {call}" for call, count in kinds.items())
    yield Figure(f"{of}: calls", load.rate, "a second", spread=words)
    beats = load.times("heartbeat")
    yield median(f"{of}: answer to a heartbeat", beats, "ms")
    yield Figure(f"{of}: the same, 99th percentile", percentile(beats, 99), "ms")
    cpu = load.manager_cpu / load.seconds * 1000
    words = f"{load.per_call:.2f} ms a call"
    yield Figure(f"{of}: Manager's CPU", cpu, "ms a second", spread=words)
    words = f"{load.empty / MIB:.0f} MiB without agents, {load.per_agent / KIB:.0f} KiB for each"
    yield Figure(f"{of}: Manager's memory", load.memory / MIB, "MiB", spread=words)
    yield Figure(f"{of}: open connections", load.connections, "")
    cost = load.crowd_busy * 1000 / AGENTS
    worst = max(load.late) * 1000
    words = f"its calls and timers alone; the latest heartbeat began {worst:.0f} ms late"
    yield Figure(f"{of}: CPU of one agent", cost, "ms a second", spread=words)


def on_paper(load: Load) -> Iterator[Figure]:
    """What MANY agents would need at the measured costs."""
    of, times = f"{MANY:,} agents on paper, {load.what}", MANY / AGENTS
    yield Figure(f"{of}: calls", load.rate * times / 1000, "thousand a second")
    yield Figure(f"{of}: open connections", load.connections * times / 1000, "thousand")
    cores = load.manager_cpu / load.seconds * times
    words = f"at {load.per_call:.2f} ms a call"
    yield Figure(f"{of}: Manager's CPU", cores, "cores", spread=words)
    words = f"at {load.per_agent / KIB:.0f} KiB an agent"
    yield Figure(f"{of}: Manager's memory", load.per_agent * MANY / GIB, "GiB", spread=words)


if __name__ == "__main__":
    show(main())
