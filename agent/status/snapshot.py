"""The state of the agent at one moment, as `/status` has it in JSON and the page in words."""

import time
from datetime import UTC, datetime

from msgspec import Struct

from agent import __version__
from agent.manager.registration import Registration
from agent.metrics import Reported
from agent.protocol import timestamp
from agent.registry import Entry
from agent.tasks.context import TaskContext

# After three heartbeats that were not answered the Manager calls the agent offline.
HEARD_WITHIN = 15.0
# A heartbeat that was not answered after so many seconds is worth a word.
HEARTBEAT_TAKES = 1.0


class Running(Struct):
    """A child that runs now. Rates are in bits per second, those of the latest intervals last."""

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


class Snapshot(Struct):
    """All that the page shows. Times are in seconds, sizes in bytes."""

    name: str
    version: str
    iperf3_version: str
    uptime: float
    manager_url: str
    address: str
    agent_id: int | None
    heard_ago: float | None
    silent: bool
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


class View:
    """Looks into the rooms of one agent, and changes nothing in them."""

    def __init__(self, context: TaskContext, registration: Registration) -> None:
        self.context = context
        self.registration = registration

    def not_ready(self) -> list[str]:
        """Why the agent could not run a test now, or not report it; empty when it could."""
        reasons = []
        heard_ago = self.heard_ago()
        if self.registration.life is None:
            reasons.append("not registered with the Manager yet")
        elif heard_ago is None or heard_ago > HEARD_WITHIN:
            reasons.append(f"no heartbeat was answered for {HEARD_WITHIN:g} s")
        if self.context.state.trouble:
            reasons.append(f"the state directory cannot be written: {self.context.state.trouble}")
        if self.context.iperf3.features is None:
            reasons.append("no usable iperf3: install it or set IPERF3_PATH")
        return reasons

    def heard_ago(self) -> float | None:
        """Seconds since the last answered heartbeat; None before the first."""
        heard_at = self.context.metrics.heard_at
        return None if heard_at is None else time.monotonic() - heard_at

    def _is_silent(self) -> bool:
        """Whether a heartbeat is overdue, which is no reason yet to call the agent not ready."""
        heard_ago = self.heard_ago()
        overdue = self.context.config.heartbeat_interval + HEARTBEAT_TAKES
        return heard_ago is not None and heard_ago > overdue

    def snapshot(self) -> Snapshot:
        """Everything at this moment, the newest results first."""
        # An agent without a status page is smaller without it.
        import psutil

        context, metrics, life = self.context, self.context.metrics, self.registration.life
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
            agent_id=life.agent_id if life else None,
            heard_ago=self.heard_ago(),
            silent=self._is_silent(),
            not_ready=self.not_ready(),
            running=[_running(entry) for entry in entries if entry.kind and entry.pid],
            waiting=sum(1 for entry in entries if not entry.pid),
            results=list(reversed(metrics.results)),
            outbox_messages=len(context.outbox),
            outbox_oldest=context.outbox.oldest(),
            rejected=context.outbox.rejected(),
            state_trouble=context.state.trouble,
            resident=own.memory_info().rss,
            cpu_seconds=cpu.user + cpu.system,
        )


def _running(entry: Entry) -> Running:
    assert entry.started_at
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
    )
