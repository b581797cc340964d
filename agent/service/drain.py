"""How an agent ends: its tasks are stopped and its results sent, within a given time."""

import time

import gevent
from gevent.event import Event

from agent.errors import ErrorClass
from agent.registry import RETIRES, Entry, TaskRegistry

# Seconds between two looks at the client tests.
LOOK = 0.1
# Seconds for killed children to be gone and their outcomes to be in the outbox.
KILL_TAKES = 1.0


def finish_clients(registry: TaskRegistry, ends: list[Event]) -> None:
    """Wait for the client tests that run, or for one of the events; stop those that wait."""
    while clients := registry.clients():
        for entry in clients:
            # One that runs may be refused, and perhaps waits for no moment then.
            entry.may_retry = False
            if entry.is_waiting:
                entry.stop.order(*RETIRES)
        if gevent.wait(ends, timeout=LOOK, count=1):
            return


def stop_tasks(registry: TaskRegistry, why: str, kill: Event, until: float) -> list[Entry]:
    """Stop every task, and force those that go on at `until` or when `kill` is set; returns them.

    `until` is a moment on the monotonic clock.
    """
    entries = registry.stop_all(ErrorClass.INTERRUPTED, why)
    gone = gevent.spawn(lambda: [entry.gone.wait() for entry in entries])
    gevent.wait([gone, kill], max(0.0, until - time.monotonic()), count=1)
    registry.force_all()
    gone.join(KILL_TAKES)
    return entries


def fate(entry: Entry) -> dict[str, object]:
    """What became of a task's child in the shutdown."""
    pid, how = entry.last_child or (0, "")
    if entry.pid:
        pid, how = entry.pid, "left running, and dies with the agent"
    return {"task_id": entry.task.id, "type": entry.kind, "pid": pid, "fate": how}
