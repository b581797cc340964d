"""What the agent counts while it works. Each package writes its own numbers; `status` shows them.

Nothing here needs Prometheus or HTTP, which an agent without a status page does not load.
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import structlog
from msgspec.structs import asdict, replace

from agent.errors import ErrorClass
from agent.peers import Peers, test_of
from agent.process.child import Ending
from agent.protocol import PAYLOADS, Diagnosis, Figures, Flow, Outcome, Task, utc_now
from agent.registry import KINDS
from agent.text import shortened

# Of the latest results, and beside these of what a person has ended: a kill_all may end hundreds.
RESULTS_KEPT, STOPPED_KEPT = 50, 5
# Characters of a result's message that are kept, as iperf3 and the Manager may say a megabyte.
MESSAGE_KEPT = 1000
# Upper bounds in seconds: a call to the Manager takes a millisecond on a LAN, and a result of
# 100 MB over a slow link takes minutes.
CALL_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# From a claim to the start of its child: some milliseconds, or the delay in the payload.
WAIT_BOUNDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TASK_BOUNDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 86400)
LATE_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10)
# What the log says of a result.
_LOGGED = "task_id status error_class peer port protocol direction streams".split()

log = structlog.get_logger()


class Histogram:
    """Counts of values up to each bound and above the last one, and the sum of all values."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(frozen=True)
class Reported:
    """One outcome that went into the outbox, as `/status` shows it; `at` is when, in UTC.

    Its `status` is the outcome's, or `stopped` if a person wanted that end.
    A server has one for each test it served, and one for its end. The diagnoses, of each direction
    of the test, are without their evidence. `peer` and what follows say which test it was, as far
    as known.
    """

    at: str
    task_id: int
    type: str
    status: str
    error_class: ErrorClass | Literal[""]
    message: str
    figures: Figures | None
    diagnoses: list[Diagnosis]
    peer: str = ""
    port: int = 0
    streams: int = 0
    protocol: str = ""
    direction: str = ""


def _by(bounds: tuple[float, ...]) -> defaultdict[str, Histogram]:
    return defaultdict(lambda: Histogram(bounds))


# A series that begins with 1 is no increase for Prometheus: these two begin with 0.
def _no_outcomes() -> Counter[tuple[str, str, str]]:
    ends = [("succeeded", ""), *product(("failed",), ErrorClass)]
    return Counter({(kind, *end): 0 for kind, end in product(KINDS, ends)})


def _no_exits() -> Counter[tuple[str, str]]:
    return Counter({(kind, each.name.lower()): 0 for kind, each in product(KINDS.values(), Ending)})


@dataclass
class Metrics:
    """All counts since the agent's start; times are in seconds, moments on the monotonic clock.

    `heard_at` is the moment of the last answered heartbeat, None before the first. That answer may
    have named another host with this agent's name and key: `other_instance` is its address.
    `peers` has the figures of the last tests, and the evidence for what limited them; the way back
    of a bidirectional one has a direction of its own. `limited` has how many directions of tests
    each cause limited, at either side.
    """

    born: float = field(default_factory=time.monotonic)
    heard_at: float | None = None
    other_instance: str = ""
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    request_seconds: defaultdict[str, Histogram] = field(default_factory=lambda: _by(CALL_BOUNDS))
    heartbeat_lateness: Histogram = field(default_factory=lambda: Histogram(LATE_BOUNDS))
    hub_lag: Histogram = field(default_factory=lambda: Histogram(LATE_BOUNDS))
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=_no_outcomes)
    task_seconds: defaultdict[str, Histogram] = field(default_factory=lambda: _by(TASK_BOUNDS))
    wait_seconds: Histogram = field(default_factory=lambda: Histogram(WAIT_BOUNDS))
    child_exits: Counter[tuple[str, str]] = field(default_factory=_no_exits)
    peers: Peers = field(default_factory=Peers)
    limited: Counter[str] = field(default_factory=Counter)
    results: list[Reported] = field(default_factory=list)

    def count_call(self, call: str, status: int, seconds: float) -> None:
        """Count a call to the Manager; a status of 0 stands for no answer."""
        self.requests[call, status] += 1
        self.request_seconds[call].observe(seconds)

    def count_outcome(self, task: Task, outcome: Outcome, seconds: float | None = None) -> None:
        """Count and log an outcome that went into the outbox, and keep it among the latest.

        That a server listens, and that a kill_all has ended all, is not kept. `seconds` is the time
        since the claim, None when this process did not make the claim.
        """
        task_type = task.type if task.type in PAYLOADS else "other"
        figures, report = outcome.figures, outcome.report
        ways = {"": report.diagnosis, "_reverse": report.diagnosis_bidir_reverse}
        error_class: ErrorClass | Literal[""] = report.error_class or ""
        if outcome.final:
            self.outcomes[task_type, outcome.status, error_class] += 1
            if seconds is not None:
                self.task_seconds[task_type].observe(seconds)
        elif figures is None:
            return
        if (task_type, outcome.status) == ("kill_all", "succeeded"):
            return
        role = "server" if task_type == "iperf_server_start" else "client"
        if outcome.final and role == "server" and seconds is not None:
            # They are those of its newest test once more.
            figures, ways = None, {}
        words = shortened(outcome.stderr or report.ended, MESSAGE_KEPT)
        status = "stopped" if report.stopped else outcome.status
        known = {way: found for way, found in ways.items() if found}
        row = Reported(
            *(utc_now(), task.id, task_type, status, error_class, words),
            *(figures, [replace(found, evidence={}) for found in known.values()]),
            **test_of(task, figures),
        )
        self._keep(row)
        self.limited.update(found.limited_by.value for found in known.values())
        if figures:
            for way, flow in zip(ways, figures.flows):
                seen = known[way].evidence if way in known else {}
                kind = (role, figures.direction + way, figures.protocol)
                self.peers.note(row.peer, kind, seen | asdict(flow))

    def _keep(self, row: Reported) -> None:
        """Log and keep it among the latest; what a person has stopped pushes out nothing else."""
        rates = (row.figures or Figures()).of_each_way(Flow.headline)
        log.info("result", rate=rates, **{name: getattr(row, name) for name in _LOGGED})
        self.results.append(row)
        stopped = row.status == "stopped"
        alike = [each for each in self.results if (each.status == "stopped") == stopped]
        if len(alike) > (STOPPED_KEPT if stopped else RESULTS_KEPT):
            self.results.remove(alike[0])
