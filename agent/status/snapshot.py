"""The agent's state at one moment: `/status` shows it as JSON, and the page in words."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil
from msgspec import Struct

from agent import __version__
from agent.manager.registration import Registration
from agent.metrics import Reported
from agent.protocol import timestamp
from agent.registry import Entry
from agent.tasks.context import TaskContext

# After as many seconds without a heartbeat the Manager calls the agent offline.
OFFLINE_AFTER = 15.0
# A heartbeat that is not answered within this many seconds is overdue.
ANSWER_TIME = 1.0


class Running(Struct):
    """A running child. Rates are in bits per second, that of the latest interval last.

    `peer` is the address that its test is with, since `peer_since`; empty where none is known.
    """

    task_id: int
    type: str
    port: int
    pid: int
    started_at: str
    seconds: float
    seconds_left: float | None
    bits_per_second: float | None
    retransmits: int | None
    rates: list[float]
    peer: str
    peer_since: str


class Snapshot(Struct):
    """All that the page shows. Durations are in seconds, sizes in bytes."""

    name: str
    version: str
    iperf3_version: str
    uptime: float
    manager_url: str
    address: str
    agent_id: int | None
    heard_ago: float | None
    silent: bool
    other_instance: str
    not_ready: list[str]
    running: list[Running]
    waiting: int
    results: list[Reported]
    outbox_messages: int
    outbox_oldest: float
    rejected: int
    state_trouble: str
    resident: int
    cpu_seconds: float


@dataclass(frozen=True)
class AgentState:
    """The current state of one agent, for reading only."""

    context: TaskContext
    registration: Registration

    def not_ready(self) -> list[str]:
        """Why the agent could not run a test now, or not report it; empty if it could."""
        reasons = []
        heard_ago = self.heard_ago()
        if self.registration.origin is None:
            reasons.append("not registered with the Manager yet")
        elif heard_ago is None or heard_ago > OFFLINE_AFTER:
            reasons.append(f"no heartbeat was answered for {OFFLINE_AFTER:g} s")
        if other := self.context.metrics.other_instance:
            reasons.append(f"another agent has this agent's name and key: it reports from {other}")
        if self.context.state.trouble:
            reasons.append(f"the state directory cannot be written: {self.context.state.trouble}")
        if self.context.ledger.unread:
            reasons.append(f"what the previous run left is unread: {self.context.ledger.unread}")
        if self.context.iperf3.features is None:
            reasons.append("no usable iperf3: install it or set IPERF3_PATH")
        return reasons

    def heard_ago(self) -> float | None:
        """Seconds since the last answered heartbeat; None before the first."""
        heard_at = self.context.metrics.heard_at
        return None if heard_at is None else time.monotonic() - heard_at

    def outbox_oldest(self) -> float:
        """The age of the oldest message that waits in seconds; 0 when there is none."""
        messages = self.context.outbox.messages()
        return max((time.monotonic() - message.born for message in messages), default=0.0)

    def take_snapshot(self) -> Snapshot:
        """The whole state, with the newest results first."""
        context, metrics, origin = self.context, self.context.metrics, self.registration.origin
        heard_ago, due = self.heard_ago(), context.config.heartbeat_interval + ANSWER_TIME
        entries = context.registry.entries()
        own = psutil.Process()
        cpu = own.cpu_times()
        return Snapshot(
            name=context.config.agent_name,
            version=__version__,
            iperf3_version=context.iperf3.version,
            uptime=time.monotonic() - metrics.born,
            manager_url=context.config.manager_url,
            address=self.registration.address,
            agent_id=origin.agent_id if origin else None,
            heard_ago=heard_ago,
            silent=heard_ago is not None and heard_ago > due,
            other_instance=metrics.other_instance,
            not_ready=self.not_ready(),
            running=[_running(entry) for entry in entries if entry.kind and entry.pid],
            waiting=sum(1 for entry in entries if not entry.pid),
            results=list(reversed(metrics.results)),
            outbox_messages=len(context.outbox),
            outbox_oldest=self.outbox_oldest(),
            rejected=context.ledger.spool.rejected,
            state_trouble=context.state.trouble,
            resident=own.memory_info().rss,
            cpu_seconds=cpu.user + cpu.system,
        )


def _running(entry: Entry) -> Running:
    assert entry.started_at
    peer, since = entry.peer or ("", None)
    seconds = (datetime.now(UTC) - entry.started_at).total_seconds()
    planned = entry.planned_seconds
    return Running(
        task_id=entry.task.id,
        type=entry.task.type,
        port=entry.port,
        pid=entry.pid,
        started_at=timestamp(entry.started_at),
        seconds=max(0.0, seconds),
        seconds_left=None if planned is None else max(0.0, planned - seconds),
        bits_per_second=entry.bits_per_second,
        retransmits=entry.retransmits,
        rates=entry.intervals,
        peer=peer,
        peer_since=timestamp(since) if since else "",
    )
