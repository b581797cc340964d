"""How an agent ends: its children are stopped and its results sent, within a given time."""

import time

import gevent
from gevent.event import Event

from agent.error_classes import ErrorClass
from agent.outbox.queue import Outbox
from agent.registry import Entry, TaskRegistry

# The children's share of that time; the rest is for their results.
CHILDREN_SHARE = 0.75
# Seconds for killed children to be gone and their outcomes to be in the outbox.
KILL_TAKES = 1.0


class Drain:
    """A shutdown that has `seconds` from now on; `kill` cuts short whatever it waits for."""

    def __init__(self, registry: TaskRegistry, outbox: Outbox, kill: Event, seconds: float) -> None:
        self._registry = registry
        self._outbox = outbox
        self._kill = kill
        now = time.monotonic()
        self._children_until = now + seconds * CHILDREN_SHARE
        self._until = now + seconds

    def stop_children(self, why: str) -> list[Entry]:
        """Stop every task, and kill the children that do not end in time; returns the tasks."""
        entries = self._registry.stop_all(ErrorClass.INTERRUPTED, why)
        gone = gevent.spawn(lambda: [entry.gone.wait() for entry in entries])
        gevent.wait([gone, self._kill], _left(self._children_until), count=1)
        self._registry.force_all()
        gone.join(KILL_TAKES)
        return entries

    def send_results(self) -> None:
        """Send what waits in the outbox, in the time that is left."""
        flushed = gevent.spawn(self._outbox.flush, _left(self._until))
        gevent.wait([flushed, self._kill], count=1)


def fate(entry: Entry) -> dict[str, object]:
    """What became of a task's child in the shutdown."""
    pid, how = entry.last_child or (0, "")
    if entry.pid:
        pid, how = entry.pid, "left running, and dies with the agent"
    return {"task_id": entry.task.id, "type": entry.kind, "pid": pid, "fate": how}


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
