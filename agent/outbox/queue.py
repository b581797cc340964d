"""Messages about tasks, kept until the Manager has them.

The messages of one task go one after the other, those of different tasks side by side. A result
is on the disk before it is first sent, and keeps its Idempotency-Key for all attempts.
"""

import time
from collections import deque
from collections.abc import Callable

import gevent
import structlog
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from agent.errors import AgentUnknown, KeyRefused, ManagerUnavailable, StateUnusable
from agent.logs.outage import Outage
from agent.manager.registration import Registration
from agent.outbox.delivery import Delivery, Message
from agent.protocol import Claimed, Outcome
from agent.state.spool import Parcel, Spool
from agent.timing import Backoff

# Uploads at a time; more would only share the bandwidth to the Manager.
SLOTS = 4
# Seconds between two looks at whether a large result would still disturb a test.
LARGE_RESULT_LOOK = 0.5

log = structlog.get_logger()


class Outbox:
    """Takes all messages, and delivers them from `start` until `stop`.

    `spawn` starts a greenlet; the agent stops if that one crashes.
    """

    def __init__(
        self,
        delivery: Delivery,
        registration: Registration,
        spool: Spool,
        spawn: Callable[..., object],
    ) -> None:
        self._delivery = delivery
        self._registration = registration
        self._spool = spool
        self._spawn = spawn
        self._queues: dict[int, deque[Message]] = {}
        self._slots = BoundedSemaphore(SLOTS)
        self._outage = Outage("results are delivered again")
        self._started = False
        self._flushing = Event()
        self._stop = Event()
        self._empty = Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many messages the Manager does not have yet."""
        return sum(len(queue) for queue in self._queues.values())

    def start(self) -> None:
        """Begin to deliver what waits and what is to come."""
        self._started = True
        for task_id in self._queues:
            self._spawn(self._deliver_all, task_id)

    def send_started(self, claimed: Claimed, pid: int) -> None:
        """Queue `started`. If an attempt fails while a result waits behind it, it is given up."""
        self._enqueue(Message(claimed, pid=pid))

    def put(self, claimed: Claimed, outcome: Outcome) -> None:
        """Take over an outcome and its document's file; return when it is on the disk.

        While the disk cannot be written the outcome waits in memory, until `save_all`.
        """
        message = Message(claimed)
        message.parcel = self._spool.new_parcel(claimed, outcome, message.idempotency_key)
        try:
            self._spool.save(message.parcel)
        except StateUnusable as error:
            log.error("a result waits in memory only", task_id=claimed.task.id, error=str(error))
        self._enqueue(message)

    def restore(self, parcel: Parcel) -> None:
        """Take over a parcel that the previous run left on the disk."""
        key = parcel.idempotency_key
        self._enqueue(Message(parcel.claimed, parcel=parcel, idempotency_key=key))

    def save_all(self) -> None:
        """Write to the disk what waits in memory only; raises StateUnusable."""
        for message in self._messages():
            with message.lock:
                if message.parcel and not message.settled:
                    self._spool.save(message.parcel)

    def oldest_age(self) -> float:
        """The age of the oldest message in seconds; 0 when there is none."""
        now = time.monotonic()
        return max((now - message.born for message in self._messages()), default=0.0)

    def waiting_bytes(self) -> int:
        """How many bytes the waiting documents have."""
        outcomes = [message.parcel.outcome for message in self._messages() if message.parcel]
        return sum(o.document.end - o.document.start for o in outcomes if o.document)

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until the Manager has everything; False if it has not.

        Each message that waits for its next attempt is tried now. Returns early after `stop`.
        """
        self._registration.retry_now()
        self._flushing.set()
        gevent.wait([self._empty, self._stop], timeout, count=1)
        return bool(self._empty.is_set())

    def stop(self) -> None:
        """Begin no more attempts; what is in flight may still arrive."""
        self._stop.set()

    def _messages(self) -> list[Message]:
        return [message for queue in self._queues.values() for message in queue]

    def _enqueue(self, message: Message) -> None:
        self._empty.clear()
        task_id = message.claimed.task.id
        if queue := self._queues.get(task_id):
            queue.append(message)
            return
        self._queues[task_id] = deque([message])
        if self._started:
            self._spawn(self._deliver_all, task_id)

    def _deliver_all(self, task_id: int) -> None:
        structlog.contextvars.bind_contextvars(task_id=task_id)
        queue = self._queues[task_id]
        while queue:
            if not self._deliver(queue):
                return
            queue.popleft()
        del self._queues[task_id]
        self._outage.record_success(task_id)
        if not self._queues:
            self._empty.set()

    def _deliver(self, queue: deque[Message]) -> bool:
        """Send the queue's first message until it is settled or given up; False after `stop`."""
        message = queue[0]
        backoff = Backoff()
        while not self._stop.is_set():
            if self._delivery.would_disturb(message) and not self._flushing.is_set():
                gevent.wait([self._stop, self._flushing], LARGE_RESULT_LOOK, count=1)
                continue
            delay = 0.0
            try:
                with self._slots:
                    # The wait for a slot may have been long.
                    if not self._stop.is_set() and self._delivery.attempt(message):
                        return True
            except AgentUnknown:
                self.stop()
                raise
            except (KeyRefused, ManagerUnavailable) as error:
                delay = backoff.next(error)
                refused = isinstance(error, KeyRefused)
                what = "the Manager refuses the key" if refused else "not delivered yet"
                task_id = message.claimed.task.id
                self._outage.record_failure(what, error, task_id, retry_in=round(delay, 1))
                # A result says more than `started`: do not hold it up.
                if message.pid and len(queue) > 1:
                    return True
            # A flush cuts one wait short. It stays set, so later waits must not end by it, or the
            # loop would spin.
            ends = [self._stop] if self._flushing.is_set() else [self._stop, self._flushing]
            gevent.wait(ends, delay, count=1)
        return False
