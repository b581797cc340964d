"""The agent's state at one moment: `/status` shows it as JSON, and the page in words."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from agent import __version__
from agent.manager.registration import Registration
from agent.protocol import timestamp
from agent.registry import Entry
from agent.tasks.context import TaskContext

# After as many seconds without a heartbeat the Manager calls the agent offline.
OFFLINE_AFTER = 15.0
# A heartbeat that is not answered within this many seconds is overdue.
ANSWER_TIME = 1.0


class Running:
    """A running child. Rates are in bits per second, that of the latest interval last.

    `peer` is the address that its test is with, since `peer_since`; empty where none is known.
    """

    def __init__(self, entry: Entry) -> None:
        assert entry.started_at
        peer, since = entry.peer or ("", None)
        seconds = (datetime.now(UTC) - entry.started_at).total_seconds()
        planned = entry.planned_seconds
        self.task_id = entry.task.id
        self.type = entry.task.type
        self.port = entry.port
        self.pid = entry.pid
        self.started_at = timestamp(entry.started_at)
        self.seconds = max(0.0, seconds)
        self.seconds_left = None if planned is None else max(0.0, planned - seconds)
        self.bits_per_second = entry.bits_per_second
        self.retransmits = entry.retransmits
        self.rates = entry.intervals
        self.peer = peer
        self.peer_since = timestamp(since) if since else ""


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


class Snapshot:
    """All that the page shows, by the keys of `/status`. Durations are in seconds, sizes in bytes.

    The newest of the `results` come first.
    """

    def __init__(self, agent: AgentState) -> None:
        context, metrics, origin = agent.context, agent.context.metrics, agent.registration.origin
        entries = context.registry.entries()
        own = psutil.Process()
        cpu = own.cpu_times()
        self.name = context.config.agent_name
        self.version = __version__
        self.iperf3_version = context.iperf3.version
        self.uptime = time.monotonic() - metrics.born
        self.manager_url = context.config.manager_url
        self.address = agent.registration.address
        self.agent_id = origin.agent_id if origin else None
        self.heard_ago = agent.heard_ago()
        due = context.config.heartbeat_interval + ANSWER_TIME
        self.silent = self.heard_ago is not None and self.heard_ago > due
        self.other_instance = metrics.other_instance
        self.not_ready = agent.not_ready()
        self.running = [Running(entry) for entry in entries if entry.kind and entry.pid]
        self.waiting = sum(1 for entry in entries if not entry.pid)
        self.results = list(reversed(metrics.results))
        self.outbox_messages = len(context.outbox)
        self.outbox_oldest = agent.outbox_oldest()
        self.rejected = context.ledger.spool.rejected
        self.state_trouble = context.state.trouble
        self.resident = own.memory_info().rss
        self.cpu_seconds = cpu.user + cpu.system
