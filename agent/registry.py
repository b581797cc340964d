"""Who runs now: every task from its claim until its outcome is in the outbox.

The registry is what the loops and the task greenlets share. Its methods never yield to the hub,
so what one of them sees is whole.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from gevent.event import Event

from agent.error_classes import ErrorClass
from agent.errors import TaskError
from agent.protocol import Claimed, RunningRow, Task, timestamp

Kind = Literal["server", "client"]
KINDS: dict[str, Kind] = {"iperf_server_start": "server", "iperf_client_run": "client"}
# Enough for a curve; ten minutes at iperf3's own pace.
INTERVALS_KEPT = 600


@dataclass(eq=False)
class Stop:
    """The order to end one task: an event to wait on, and why it was given.

    `force` is set when there is no more time for a child to end in peace.
    """

    ordered: Event = field(default_factory=Event)
    force: Event = field(default_factory=Event)
    error_class: ErrorClass = ErrorClass.OTHER
    reason: str = ""

    def order(self, error_class: ErrorClass, reason: str) -> None:
        """Give the order; the first reason stays."""
        if not self.ordered.is_set():
            self.error_class, self.reason = error_class, reason
            self.ordered.set()

    def raise_if_ordered(self, when: str) -> None:
        """Raise TaskError if the order was given; `when` are the words behind its reason."""
        if self.ordered.is_set():
            raise TaskError(self.error_class, f"{self.reason}{when}")


@dataclass(eq=False)
class Entry:
    """One claimed task.

    `kind` is None for what runs no child; `port` is known once the payload was read. `pid` and
    `started_at` are those of the child that runs at this moment, if any; `last_child` is the pid
    and the fate of the one before. `accompanied` says that another test was measured on this host
    at the same time. `planned_seconds` is how long a test is to take, None when only its end will
    tell. `gone` is set when the task has left the registry.

    What a client that streams its intervals has said so far: `bits_per_second` lately, TCP
    `retransmits` since the start, and in `intervals` the rates of the latest ones.
    """

    claimed: Claimed
    kind: Kind | None = None
    port: int = 0
    pid: int = 0
    last_child: tuple[int, str] | None = None
    started_at: datetime | None = None
    accompanied: bool = False
    planned_seconds: float | None = None
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

    def note_start(self, pid: int) -> None:
        """Note the child that was just started."""
        self.pid, self.started_at = pid, datetime.now(UTC)
        self.bits_per_second = self.retransmits = None
        self.intervals = []

    def note_rates(self, rates: list[float], retransmits: int | None) -> None:
        """Note the intervals since the last time: their rates, and their retransmits if known.

        A test that is paced sends in bursts: of short intervals, only the mean is of use.
        """
        self.bits_per_second = sum(rates) / len(rates)
        if retransmits is not None:
            self.retransmits = (self.retransmits or 0) + retransmits
        self.intervals = [*self.intervals, *rates][-INTERVALS_KEPT:]

    def note_end(self, fate: str = "ended by itself") -> None:
        """Note that the child has ended, and how."""
        if self.pid:
            self.last_child = (self.pid, fate)
        self.pid = 0


class TaskRegistry:
    """The tasks in hand, in the order of their claims. The only owner of that knowledge."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, task_id: int) -> bool:
        return task_id in self._entries

    def entries(self) -> list[Entry]:
        """All of them, in the order of their claims."""
        return list(self._entries.values())

    def enter(self, claimed: Claimed) -> Entry:
        """Take a claimed task in; a task of that id must not be in hand already."""
        entry = Entry(claimed, KINDS.get(claimed.task.type))
        self._entries[claimed.task.id] = entry
        return entry

    def leave(self, entry: Entry) -> None:
        """Let a task go, its outcome being in the outbox."""
        del self._entries[entry.task.id]
        entry.gone.set()

    def claimed_before(self, entry: Entry) -> list[Entry]:
        """The tasks with a child, present or to come, claimed before `entry`."""
        found = []
        for other in self._entries.values():
            if other is entry:
                break
            if other.kind:
                found.append(other)
        return found

    def count_starts(self) -> int:
        """How many start tasks are in hand."""
        return sum(1 for entry in self._entries.values() if entry.kind)

    def other_running_clients(self, entry: Entry) -> list[Entry]:
        """The other client tests that run at this moment."""
        return [other for other in self.clients() if other.pid and other is not entry]

    def clients(self) -> list[Entry]:
        """The client tasks in hand: those that run, and those that wait to."""
        return [entry for entry in self._entries.values() if entry.kind == "client"]

    def is_measuring(self) -> bool:
        """Whether a client test runs at this moment."""
        return any(entry.pid for entry in self.clients())

    def server_on(self, port: int, besides: Entry) -> Entry | None:
        """The server task of ours that was claimed before and holds, or will hold, the port."""
        for other in self.claimed_before(besides):
            if other.kind == "server" and other.port == port:
                return other
        return None

    def cancel(self, task_id: int) -> bool:
        """Stop one task because the Manager says that it was canceled; False if not in hand."""
        entry = self._entries.get(task_id)
        if entry is None:
            return False
        entry.stop.order(ErrorClass.KILLED, "canceled at the Manager")
        return True

    def stop_all(self, error_class: ErrorClass, reason: str) -> list[Entry]:
        """Order every task to stop; returns them."""
        entries = list(self._entries.values())
        for entry in entries:
            entry.stop.order(error_class, reason)
        return entries

    def force_all(self) -> None:
        """Give no child any more time."""
        for entry in self._entries.values():
            entry.stop.force.set()

    def rows(self) -> list[RunningRow]:
        """The heartbeat's rows: one for each child that runs now."""
        return list(self._rows())

    def _rows(self) -> Iterator[RunningRow]:
        for entry in self._entries.values():
            if entry.kind and entry.pid and entry.started_at:
                yield RunningRow(
                    type=entry.kind,
                    port=entry.port,
                    pid=entry.pid,
                    task_id=entry.task.id,
                    started_at=timestamp(entry.started_at),
                    bits_per_second=entry.bits_per_second,
                    retransmits=entry.retransmits,
                )
