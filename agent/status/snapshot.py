"""The agent's state at one moment: `/status` shows it as JSON, the page in words."""

import time
from collections.abc import Iterator
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


class Snapshot:
    """The keys of `/status`. Durations are in seconds, sizes in bytes.

    `not_ready` says why the agent could not run a test now, or not report it; it is empty if it
    could. The newest of the `results` come first.
    """

    def __init__(self, context: TaskContext, registration: Registration) -> None:
        metrics, origin, now = context.metrics, registration.origin, time.monotonic()
        entries, messages = context.registry.entries(), context.outbox.messages()
        own = psutil.Process()
        cpu = own.cpu_times()
        self.name = context.config.agent_name
        self.version = __version__
        self.iperf3_version = context.iperf3.version
        self.uptime = now - metrics.born
        self.manager_url = context.config.manager_url
        self.address = registration.address
        self.agent_id = origin.agent_id if origin else None
        self.heard_ago = None if metrics.heard_at is None else now - metrics.heard_at
        due = context.config.heartbeat_interval + ANSWER_TIME
        self.silent = self.heard_ago is not None and self.heard_ago > due
        self.other_instance = metrics.other_instance
        self.not_ready = list(_missing(context, self.agent_id, self.heard_ago))
        self.running = [Running(entry) for entry in entries if entry.kind and entry.pid]
        self.waiting = sum(1 for entry in entries if not entry.pid)
        self.results = metrics.results[::-1]
        self.outbox_messages = len(context.outbox)
        self.outbox_oldest = max((now - message.born for message in messages), default=0.0)
        self.rejected = context.ledger.spool.rejected
        self.state_trouble = context.state.trouble
        self.resident = own.memory_info().rss
        self.cpu_seconds = cpu.user + cpu.system


def _missing(context: TaskContext, agent_id: int | None, heard_ago: float | None) -> Iterator[str]:
    """What an agent lacks that cannot run and report a test."""
    if agent_id is None:
        yield "not registered with the Manager yet"
    elif heard_ago is None or heard_ago > OFFLINE_AFTER:
        yield f"no heartbeat was answered for {OFFLINE_AFTER:g} s"
    if other := context.metrics.other_instance:
        yield f"another agent has this agent's name and key: it reports from {other}"
    if context.state.trouble:
        yield f"the state directory cannot be written: {context.state.trouble}"
    if context.ledger.unread:
        yield f"what the previous run left is unread: {context.ledger.unread}"
    if context.iperf3.features is None:
        yield "no usable iperf3: install it or set IPERF3_PATH"
