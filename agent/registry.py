"""Who runs now: every task from its claim until its outcome is in the outbox.

Its methods never yield to the hub, so each of those who share it sees it whole.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from gevent.event import Event

from agent.errors import ErrorClass, TaskError
from agent.protocol import Claimed, RunningRow, Task, timestamp

Kind = Literal["server", "client"]
KINDS: dict[str, Kind] = {"iperf_server_start": "server", "iperf_client_run": "client"}
# Enough for a curve: ten minutes of iperf3's own intervals.
INTERVALS_KEPT = 600
# Orders to stop a task: the class of error, the reason, and whether a person wanted that.
Order = tuple[ErrorClass, str, bool]
RETIRES: Order = ErrorClass.INTERRUPTED, "the agent was told to retire (SIGUSR1)", True
CANCELED: Order = ErrorClass.KILLED, "canceled at the Manager", True
KILLED: Order = ErrorClass.KILLED, "stopped by kill_all", True
REPLACED: Order = ErrorClass.INTERRUPTED, "the Manager gave its number to another task", False


@dataclass(eq=False)
class Stop:
    """The order to end one task, and why; `force` is set when its child must end at once."""

    ordered: Event = field(default_factory=Event)
    force: Event = field(default_factory=Event)
    error_class: ErrorClass = ErrorClass.OTHER
    reason: str = ""
    is_wanted: bool = False

    def order(self, error_class: ErrorClass, reason: str, is_wanted: bool = False) -> None:
        """Give the order; only the first one counts."""
        if not self.ordered.is_set():
            self.error_class, self.reason, self.is_wanted = error_class, reason, is_wanted
            self.ordered.set()

    def raise_if_ordered(self, when: str) -> None:
        """Raise TaskError if the order was given; `when` is appended to its reason."""
        if self.ordered.is_set():
            raise TaskError(self.error_class, f"{self.reason}{when}", self.is_wanted)


@dataclass(eq=False)
class Entry:
    """One claimed task.

    `kind` is None for a task that runs no child; `port` is 0 until the payload was read. `pid`
    and `started_at` are of the child that runs now, `last_child` is the pid and the fate of the
    one before. A client `is_waiting` until its first child, and before another one, if it
    `may_retry`; its test `has_begun` when the server has taken it. `has_served` says that a
    server's child has ended or is about to be ended, `was_disturbed` that another test ran on this
    host at the same time. `planned_seconds`, from the child's start to the test's end, is None for
    a test of unknown length. `peer` is the address that its test is with, and since when, as far as
    the kernel tells. `gone` is set when the task has left the registry. A client that streams its
    intervals has its latest rate in `bits_per_second`, all TCP `retransmits` so far, and the rates
    of the latest intervals.
    """

    claimed: Claimed
    kind: Kind | None = None
    port: int = 0
    pid: int = 0
    last_child: tuple[int, str] | None = None
    started_at: datetime | None = None
    is_waiting: bool = True
    has_begun: bool = False
    may_retry: bool = True
    has_served: bool = False
    was_disturbed: bool = False
    planned_seconds: float | None = None
    peer: tuple[str, datetime] | None = None
    bits_per_second: float | None = None
    retransmits: int | None = None
    intervals: list[float] = field(default_factory=list)
    entered: float = field(default_factory=time.monotonic)
    stop: Stop = field(default_factory=Stop)
    gone: Event = field(default_factory=Event)

    @property
    def task(self) -> Task:
        """The task itself."""
        return self.claimed.task

    @property
    def is_leaving(self) -> bool:
        """Whether a server gives its port back without a further order."""
        return self.has_served or self.stop.ordered.is_set()

    def record_start(self, pid: int) -> None:
        """Note the child that was just started."""
        self.pid, self.started_at, self.is_waiting = pid, datetime.now(UTC), False
        self.bits_per_second = self.retransmits = None
        self.intervals, self.has_begun = [], False

    def record_rates(self, rates: list[float], retransmits: int | None) -> None:
        """Note the rates of new intervals, and their retransmits if known.

        A paced test sends in bursts, so only the mean of short intervals is of use.
        """
        self.bits_per_second = sum(rates) / len(rates)
        if retransmits is not None:
            self.retransmits = (self.retransmits or 0) + retransmits
        self.intervals = [*self.intervals, *rates][-INTERVALS_KEPT:]

    def record_end(self, fate: str = "ended by itself") -> None:
        """Note that the child has ended, and how."""
        if self.pid:
            self.last_child = (self.pid, fate)
        self.pid = 0


class TaskRegistry:
    """The current tasks, in the order of their claims: two of a number while one is stopped."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[Entry]:
        """All of them."""
        return list(self._entries.values())

    def enter(self, claimed: Claimed) -> Entry:
        """Add a claimed task."""
        entry = Entry(claimed, KINDS.get(claimed.task.type))
        self._entries[claimed.key] = entry
        return entry

    def leave(self, entry: Entry) -> None:
        """Remove a task whose outcome is in the outbox."""
        del self._entries[entry.claimed.key]
        entry.gone.set()

    def claimed_before(self, entry: Entry) -> list[Entry]:
        """The tasks that have or will have a child, and were claimed before `entry`."""
        entries = self.entries()
        return [other for other in entries[: entries.index(entry)] if other.kind]

    def clients(self) -> list[Entry]:
        """The client tasks, those that still wait for their start included."""
        return [entry for entry in self._entries.values() if entry.kind == "client"]

    def other_running_clients(self, entry: Entry) -> list[Entry]:
        """The client tests other than `entry` that run now."""
        return [other for other in self.clients() if other.pid and other is not entry]

    def server_on(self, port: int, besides: Entry) -> Entry | None:
        """The server task, claimed before `besides`, that has or will have the port."""
        earlier = self.claimed_before(besides)
        return next((each for each in earlier if each.kind == "server" and each.port == port), None)

    def stop(self, claimed: Claimed, order: Order) -> None:
        """Order a task to stop, if it still runs."""
        if entry := self._entries.get(claimed.key):
            entry.stop.order(*order)

    def stop_all(self, error_class: ErrorClass, reason: str) -> list[Entry]:
        """Order every task to stop; returns them."""
        for entry in self._entries.values():
            entry.stop.order(error_class, reason)
        return self.entries()

    def force_all(self) -> None:
        """Let every child end at once."""
        for entry in self.entries():
            entry.stop.force.set()

    def rows(self) -> list[RunningRow]:
        """The heartbeat's rows: one for each child that runs now."""
        return [
            RunningRow(
                type=entry.kind,
                port=entry.port,
                pid=entry.pid,
                task_id=entry.task.id,
                started_at=timestamp(entry.started_at),
                bits_per_second=entry.bits_per_second,
                retransmits=entry.retransmits,
            )
            for entry in self._entries.values()
            if entry.kind and entry.pid and entry.started_at
        ]
