"""A thousand idle agents and one dev Manager: what they ask of it, and what that costs both sides.

The Manager is a process of its own, `python -m agent.dev`. The agents are greenlets of this process
(`benchmarks/idle_agents.py`). They register within 10 s, which is not measured. Then there are
three loads:

- claims held, for 40 s: the Manager knows the long poll;
- polling each second, for 45 s: each agent asks again after CLAIM_INTERVAL. After a minute without
  a task it asks less often, and no more than this is left of it once all have registered;
- polling each 3 s, for 40 s.

A call is an error when it has no 200 within the agent's own deadline. A latency is the agent's: the
whole call, with the wait for a turn among a thousand greenlets. On a slow host this one process may
need more than its core, and calls come late and fail for that: each load tells how busy it was.
What 100,000 agents would need is these figures times 100, for a Manager whose cost of a call does
not grow with the number of agents.
All together it takes three minutes.
"""

from gevent import monkey

monkey.patch_all()

import resource  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from dataclasses import dataclass  # noqa: E402

import gevent  # noqa: E402

from agent.logs.setup import configure_logging  # noqa: E402
from agent.service.claims import QUIET_AFTER  # noqa: E402
from benchmarks.figures import (  # noqa: E402
    Figure,
    Floor,
    Range,
    median,
    once,
    p99,
    progress,
    show,
    spread,
)
from benchmarks.host import cpu_seconds, memory, rates  # noqa: E402
from benchmarks.idle_agents import (  # noqa: E402
    AGENTS,
    SETTLING,
    SPREAD,
    Calls,
    Manager,
    crowd,
    manager,
)

MANY = 100_000
SECONDS = 40
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
        loads.append(measured("polling each second", one, calls, left))
        yield from figures(loads[-1])
        progress("until the last agent asks less often")
        gevent.sleep(began + QUIET_AFTER - time.monotonic())
        loads.append(measured("polling each 3 s", one, calls, SECONDS))
        yield from figures(loads[-1])
    for load in loads:
        yield from on_paper(load)


@dataclass(frozen=True)
class Load:
    """What was seen for some seconds.

    CPU is in milliseconds a second, memory in bytes, lateness in seconds.
    """

    what: str
    seconds: float
    made: list[tuple[str, int, float]]
    manager_cpu: Range
    crowd_cpu: Range
    rate: Range
    memory: int
    empty: int
    connections: int
    late: list[float]

    @property
    def crowd_busy(self) -> float:
        """The share of one core that the agents' process had; near 1 it is the limit."""
        return self.crowd_cpu.value / 1000

    @property
    def per_call(self) -> float:
        """Milliseconds of the Manager's CPU."""
        return self.manager_cpu.value / self.rate.value

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
    began = time.monotonic()
    theirs, ours, rate = rates(
        seconds,
        lambda: cpu_seconds(of.pid) * 1000,
        lambda: time.process_time() * 1000,
        lambda: len(calls.made),
    )
    return Load(
        what,
        time.monotonic() - began,
        calls.made.copy(),
        theirs,
        ours,
        rate,
        memory(of.pid, "VmRSS"),
        of.empty,
        of.connections(),
        calls.late.values.copy(),
    )


def figures(load: Load) -> Iterator[Figure]:
    """What a load was, and what it cost."""
    of = f"{AGENTS:,} agents, {load.what}"
    failed = Counter(f"{call} {status}" for call, status, _ in load.made if status != 200)
    note = "".join(f"{count} of {name}; " for name, count in failed.items())
    note += f"{len(load.made):,} calls in {load.seconds:.0f} s; "
    note += f"the process of all agents was busy for {load.crowd_busy:.0%} of the time"
    yield Figure(f"{of}: errors", once(failed.total()), "calls", most=0, note=note)
    kinds = Counter(call for call, _, _ in load.made)
    note = ", ".join(f"{count / load.seconds:.3g} of {call}" for call, count in kinds.items())
    yield Figure(f"{of}: calls", load.rate, "a second", note=note)
    beats, request, calls = load.times("heartbeat"), (Floor.REQUEST,), (Floor.CALLS,)
    yield median(f"{of}: answer to a heartbeat", beats, "ms", floors=request)
    yield Figure(f"{of}: answer to a heartbeat, p99", spread(beats, p99), "ms", floors=request)
    note = f"{load.per_call:.2f} ms a call"
    yield Figure(f"{of}: Manager's CPU", load.manager_cpu, "ms/s", floors=calls, note=note)
    note = f"{load.empty / MIB:.0f} MiB without agents, {load.per_agent / KIB:.0f} KiB for each"
    yield Figure(f"{of}: Manager's memory", once(load.memory / MIB), "MiB", note=note)
    yield Figure(f"{of}: open connections", once(load.connections), "")
    cost = load.crowd_cpu.times(1 / AGENTS)
    worst = max(load.late) * 1000
    note = f"its calls and timers alone; the latest heartbeat began {worst:.0f} ms late"
    yield Figure(f"{of}: CPU of one agent", cost, "ms/s", floors=calls, note=note)


def on_paper(load: Load) -> Iterator[Figure]:
    """What MANY agents would need at the measured costs."""
    times = MANY / AGENTS

    def figure(what: str, value: float, unit: str, note: str = "") -> Figure:
        of = f"{MANY:,} agents on paper, {load.what}: {what}"
        return Figure(of, once(value), unit, note=note, compared=False)

    yield figure("calls", load.rate.value * times / 1000, "thousand a second")
    yield figure("open connections", load.connections * times / 1000, "thousand")
    cores = load.manager_cpu.value * times / 1000
    yield figure("Manager's CPU", cores, "cores", f"at {load.per_call:.2f} ms a call")
    note = f"at {load.per_agent / KIB:.0f} KiB an agent"
    yield figure("Manager's memory", load.per_agent * MANY / GIB, "GiB", note)


if __name__ == "__main__":
    show(main())
