"""Messages that wait: those of one task go one after the other, those of others side by side.

A result is on the disk before it is first sent, and keeps its Idempotency-Key for all attempts.
"""

from collections import deque
from collections.abc import Callable

import gevent
import structlog
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from agent.errors import AgentUnknown, KeyRefused, ManagerUnavailable, StateUnusable
from agent.logs.outage import Outage
from agent.outbox.delivery import Delivery, size_class
from agent.protocol import Claimed, Outcome
from agent.state.message import Message
from agent.timing import Backoff

# Messages at a time by their size class: none waits for a larger one. Each further upload would
# take from the others' progress, and from heartbeats, what a slow link carries.
SLOTS, LONG_SLOTS, LARGE_SLOTS = 8, 2, 2
# Seconds between two looks at whether a large result would still disturb a test.
LARGE_RESULT_LOOK = 0.5


class Outbox:
    """Takes all messages, and delivers them from `start` until `stop`, in greenlets of `spawn`."""

    def __init__(self, delivery: Delivery, spawn: Callable[..., gevent.Greenlet]) -> None:
        self._delivery, self._ledger, self._spawn = delivery, delivery.ledger, spawn
        self._queues: dict[str, deque[Message]] = {}
        self._saving: dict[Message, gevent.Greenlet] = {}
        self._slots = [*map(BoundedSemaphore, (SLOTS, LONG_SLOTS, LARGE_SLOTS))]
        self._outage = Outage("results are delivered again")
        self._started, self._flushing, self._stop, self._empty = (Event() for _ in range(4))
        self._empty.set()

    def __len__(self) -> int:
        return len(self.messages())

    def messages(self) -> list[Message]:
        """The messages that the Manager does not have yet."""
        return [message for queue in self._queues.values() for message in queue]

    def start(self) -> None:
        """Begin to deliver what waits and what is to come."""
        self._started.set()

    def send_started(self, claimed: Claimed, pid: int) -> None:
        """Queue `started`. If an attempt fails while a result waits behind it, it is given up."""
        self.enqueue(Message(claimed.without_payload, pid=pid))

    def put(self, claimed: Claimed, outcome: Outcome) -> None:
        """Take over an outcome and its document's file; a final one is then in the ledger."""
        number = self._ledger.spool.next_number()
        message = Message(claimed.without_payload, outcome, number=number)
        if outcome.final:
            self._ledger.save(message)
        else:
            # The server goes on, and must hear an order to stop while the disk is slow.
            self._saving[message] = self._spawn(self._ledger.save, message)
        self.enqueue(message)

    def enqueue(self, message: Message) -> None:
        """Take over a message that needs no saving."""
        self._empty.clear()
        queue = self._queues.setdefault(message.claimed.key, deque())
        queue.append(message)
        if len(queue) == 1:
            self._spawn(self._deliver_all, message.claimed.key)

    def flush(self, timeout: float, *ends: Event) -> bool:
        """Try each message now; whether the Manager has all within `timeout` seconds.

        The wait is over sooner when the outbox is stopped, or one of the events is set.
        """
        self._delivery.gate.open()
        self._flushing.set()
        gevent.wait([self._empty, self._stop, *ends], timeout, count=1)
        return bool(self._empty.is_set())

    def stop(self) -> None:
        """Begin no more attempts; what is in flight may still arrive."""
        self._stop.set()

    def _deliver_all(self, key: str) -> None:
        self._started.wait()
        queue = self._queues[key]
        task_id = queue[0].claimed.task.id
        structlog.contextvars.bind_contextvars(task_id=task_id)
        while queue:
            if not self._deliver(queue):
                return
            queue.popleft()
        del self._queues[key]
        self._outage.record_success(task_id)
        if not self._queues:
            self._empty.set()

    def _deliver(self, queue: deque[Message]) -> bool:
        """Send the queue's first message until it is settled or given up; False after `stop`."""
        message, backoff = queue[0], Backoff()
        if saving := self._saving.pop(message, None):
            saving.join()
        while not self._stop.is_set():
            # A flush cuts one wait short. As it stays set, the loop would spin if all ended by it.
            ends = [self._stop] if self._flushing.is_set() else [self._stop, self._flushing]
            delay = self._attempt(message, backoff)
            # A result says more than `started`: do not hold it up.
            if delay is None or (message.pid and len(queue) > 1):
                return True
            gevent.wait(ends, delay, count=1)
        return False

    def _attempt(self, message: Message, backoff: Backoff) -> float | None:
        """Send it when there is a slot; the seconds until the next attempt, None if settled."""
        if self._delivery.would_disturb(message) and not self._flushing.is_set():
            return LARGE_RESULT_LOOK
        with self._slots[size_class(message)]:
            delay = self._delivery.gate.closed_for
            # The wait for the slot may have been long.
            if delay or self._stop.is_set():
                return delay
            try:
                self._delivery.attempt(message)
                return None
            except AgentUnknown:
                self.stop()
                raise
            except (KeyRefused, ManagerUnavailable, StateUnusable) as error:
                delay = self._delivery.gate.closed_for or backoff.next(error)
                refused = isinstance(error, KeyRefused)
                what = "the Manager refuses the key" if refused else "not delivered yet"
                task_id = message.claimed.task.id
                self._outage.record_failure(what, error, task_id, retry_in=round(delay, 1))
                return delay
