"""What the page's lists say of agents and tests."""

from dataclasses import dataclass
from datetime import datetime

from agent import quantities
from agent.dev.store.records import ManagedAgent, ManagedTask, Test
from agent.dev.store.store import Store
from agent.iperf3.figures import figures_in, of_each_way, throughput
from agent.protocol import Flow

PHASES = {"queued": "not started", "accepted": "about to begin", "timed_out": "timed out"}


@dataclass(frozen=True)
class TestRow:
    """A test in the list. `phase` says its `status` in words; `lost` is for UDP.

    `elapsed`, in seconds, and `rate_now` are of a running test; the rate is empty when unknown.
    """

    test: Test
    client: str
    server: str
    kind: str
    begun: datetime
    status: str
    phase: str
    elapsed: int | None
    rate_now: str
    rate: str
    lost: str


def seen(agent: ManagedAgent, now: datetime) -> str:
    """Whether the agent is online, and if not, how long ago it was heard."""
    if agent.last_heartbeat is None:
        return "never registered"
    if agent.status == "online":
        return "online"
    silent = (now - agent.last_heartbeat).total_seconds()
    return f"offline, last heard {quantities.duration(silent)} ago"


def under_way(store: Store, test: Test) -> bool:
    """Whether the test's exercise has started and not ended."""
    exercise = store.exercises.get(test.exercise_id)
    return exercise.started_at is not None and exercise.ended_at is None


def test_row(store: Store, test: Test, now: datetime) -> TestRow:
    """One test as the list shows it."""
    task = store.tasks.get(test.client_task_id)
    client, server = store.agents.get(test.client_agent_id), store.agents.get(test.server_agent_id)
    status, phase = _state(store, test, client)
    figures = figures_in(task.result)
    elapsed = int((now - (task.started_at or now)).total_seconds())
    running = store.agents.running(client.id)
    rates = [row.bits_per_second for row in running if row.task_id == task.id]
    return TestRow(
        test=test,
        client=client.name,
        server=server.name,
        kind=_kind(test, task),
        begun=task.started_at or task.created_at,
        status=status,
        phase=phase,
        elapsed=max(0, min(test.time_seconds, elapsed)) if task.status == "running" else None,
        rate_now=next((quantities.rate(rate) for rate in rates if rate is not None), ""),
        rate=throughput(figures),
        lost=of_each_way(figures, _lost),
    )


def _lost(flow: Flow) -> str:
    return f"{flow.lost_percent:.3g} % lost" if flow.lost_percent else ""


def _kind(test: Test, task: ManagedTask) -> str:
    protocol = "UDP" if test.udp else "TCP"
    streams = "1 stream" if test.parallel == 1 else f"{test.parallel} streams"
    way = ", both ways" if task.payload.get("bidir") else ""
    if task.payload.get("reverse"):
        way = ", from server to client"
    return f"{protocol}, {streams}, {test.time_seconds} s{way}"


def _state(store: Store, test: Test, client: ManagedAgent) -> tuple[str, str]:
    """The test's status, which is the client task's in all cases but one, and words for it."""
    task, server_task = store.tasks.get(test.client_task_id), store.tasks.get(test.server_task_id)
    ended = store.exercises.get(test.exercise_id).ended_at
    if task.status == "pending":
        absent = "" if client.status == "online" else f", which is {client.status}"
        return task.status, f"waiting for {client.name}{absent}"
    if (task.status, server_task.status) == ("succeeded", "failed"):
        # Another server answered at that address and port.
        return "failed", "client succeeded, server failed"
    if task.status == "failed" and task.finished_at and ended and ended < task.finished_at:
        return task.status, "stopped"
    return task.status, PHASES.get(task.status, task.status)
