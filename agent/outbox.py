"""Messages about tasks, kept until the Manager has them.

Those of one task go in order and one at a time, those of different tasks side by side. A result
is on the disk before it is first sent, and keeps its Idempotency-Key over all its attempts.
"""

import os
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import gevent
import msgspec
import structlog
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from agent.client import ManagerClient
from agent.envelope import LEFT_OUT, SMALLEST, fitting
from agent.errors import (
    AgentUnknown,
    KeyRefused,
    ManagerUnavailable,
    ResultTooLarge,
    StateUnusable,
    TaskRefused,
)
from agent.journal import Journal
from agent.registration import Registration
from agent.registry import TaskRegistry
from agent.spool import Parcel, Spool
from agent.timing import KEY_REFUSED_PAUSE, backoff
from agent.troubles import Trouble
from agent.wire import Claimed, Outcome

# Uploads at a time; more would only share the same line to the Manager.
SLOTS = 4
# A result of more bytes waits for the tests of this host to end, but not for longer than this.
LARGE_RESULT = 1024**2
LARGE_RESULT_WAITS = 60.0
LARGE_RESULT_LOOK = 0.5

log = structlog.get_logger()


@dataclass(eq=False)
class _Message:
    """Either `started` (a pid) or an outcome in its parcel, and how small it has to be."""

    claimed: Claimed
    pid: int = 0
    parcel: Parcel | None = None
    level: int = 0
    born: float = field(default_factory=time.monotonic)
    idempotency_key: str = field(default_factory=lambda: str(uuid.uuid4()))


class Outbox:
    """The one place that results go to, from `start` until `stop`.

    `spawn` starts a greenlet whose unforeseen end stops the agent; `registry` is told which
    tasks the Manager calls canceled.
    """

    def __init__(
        self,
        client: ManagerClient,
        registration: Registration,
        journal: Journal,
        spool: Spool,
        registry: TaskRegistry,
        max_result_bytes: int,
        spawn: Callable[..., object],
    ) -> None:
        self._client = client
        self._registration = registration
        self._journal = journal
        self._spool = spool
        self._registry = registry
        self._max_result_bytes = max_result_bytes
        self._spawn = spawn
        self._queues: dict[int, deque[_Message]] = {}
        self._slots = BoundedSemaphore(SLOTS)
        self._trouble = Trouble("results are delivered again")
        self._started = False
        self._hurry = Event()
        self._stop = Event()
        self._empty = Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many messages the Manager does not have yet."""
        return sum(len(queue) for queue in self._queues.values())

    def start(self) -> None:
        """Begin to deliver."""
        self._started = True
        for task_id in self._queues:
            self._spawn(self._deliver_all, task_id)

    def started(self, claimed: Claimed, pid: int) -> None:
        """Say that the task's process runs. Of no use once its result waits, and then dropped."""
        self._enqueue(_Message(claimed, pid=pid))

    def put(self, claimed: Claimed, outcome: Outcome) -> None:
        """Take an outcome over, with the file of its document, and return when it is on the disk.

        When the disk does not take it, it waits in memory and the disk is tried again.
        """
        message = _Message(claimed)
        message.parcel = self._spool.parcel(claimed, outcome, message.idempotency_key)
        try:
            self._spool.save(message.parcel)
        except StateUnusable as error:
            log.error("a result waits in memory only", task_id=claimed.task.id, error=str(error))
        self._enqueue(message)

    def restore(self, parcel: Parcel) -> None:
        """Take over what a former life has left on the disk."""
        message = _Message(parcel.claimed, parcel=parcel)
        message.idempotency_key = parcel.idempotency_key
        self._enqueue(message)

    def save_all(self) -> None:
        """Bring to the disk what waits in memory only; raises StateUnusable."""
        for message in self._messages():
            if message.parcel:
                self._spool.save(message.parcel)

    def oldest(self) -> float:
        """The age of the oldest message in seconds; 0 when there is none."""
        now = time.monotonic()
        return max((now - message.born for message in self._messages()), default=0.0)

    def size(self) -> int:
        """How many bytes of documents wait."""
        outcomes = [message.parcel.outcome for message in self._messages() if message.parcel]
        return sum(o.document.end - o.document.start for o in outcomes if o.document)

    def rejected(self) -> int:
        """How many results were set aside for good."""
        return self._spool.rejected

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until the Manager has everything; False if it has not.

        What waits for its next attempt has it now. Ends early when nothing more will be sent.
        """
        self._registration.hurry()
        self._hurry.set()
        gevent.wait([self._empty, self._stop], timeout, count=1)
        return bool(self._empty.is_set())

    def stop(self) -> None:
        """Send nothing more."""
        self._stop.set()

    def _messages(self) -> list[_Message]:
        return [message for queue in self._queues.values() for message in queue]

    def _enqueue(self, message: _Message) -> None:
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
        self._trouble.over(task_id)
        if not self._queues:
            self._empty.set()

    def _deliver(self, queue: deque[_Message]) -> bool:
        """Send the queue's first message until it is settled; False when told to stop."""
        message = queue[0]
        task_id = message.claimed.task.id
        delays = backoff()
        while True:
            self._wait_for_quiet(message)
            try:
                with self._slots:
                    self._send(message)
                return True
            except ResultTooLarge as error:
                if not self._make_smaller(message, error):
                    return True
                continue
            except TaskRefused as error:
                self._settle_refusal(message, error)
                return True
            except AgentUnknown:
                self.stop()
                raise
            except KeyRefused as error:
                delay = KEY_REFUSED_PAUSE
                self._trouble.failed("the Manager refuses the key", error, task_id)
            except ManagerUnavailable as error:
                delay = error.pause(delays)
                retry_in = round(delay, 1)
                self._trouble.failed("not delivered yet", error, task_id, retry_in=retry_in)
            if message.pid and len(queue) > 1:
                return True
            if not self._pause(delay):
                return False

    def _pause(self, delay: float) -> bool:
        """Wait for the next attempt; False when there will be none. A flush cuts one wait."""
        hurried = self._hurry.is_set()
        gevent.wait([self._stop] if hurried else [self._stop, self._hurry], delay, count=1)
        return not self._stop.is_set()

    def _send(self, message: _Message) -> None:
        claimed, parcel = message.claimed, message.parcel
        life = self._registration.confirm()
        if claimed.life != life:
            log.error("a result of another Manager, or another life of it, is set aside")
            self._set_aside(message, b"the task belongs to another Manager, or another life of it")
        elif parcel is None:
            self._client.started(claimed.task.id, message.pid, message.idempotency_key)
        else:
            self._send_result(message, parcel)

    def _send_result(self, message: _Message, parcel: Parcel) -> None:
        outcome = _as_it_is_now(parcel.outcome)
        body, message.level = fitting(outcome, message.level, self._max_result_bytes)
        self._client.result(message.claimed.task.id, body, message.idempotency_key)
        log.info("result delivered", status=outcome.status, bytes=len(body))
        self._settle(message, self._spool.keep if message.level else self._spool.remove)

    def _wait_for_quiet(self, message: _Message) -> None:
        """Let no large upload disturb a test on this host, for a while."""
        document = message.parcel and message.parcel.outcome.document
        if not document or document.end - document.start <= LARGE_RESULT:
            return
        until = message.born + LARGE_RESULT_WAITS
        while self._registry.is_measuring() and time.monotonic() < until:
            if gevent.wait([self._stop, self._hurry], LARGE_RESULT_LOOK, count=1):
                return

    def _make_smaller(self, message: _Message, error: ResultTooLarge) -> bool:
        message.level += 1
        if message.parcel is None or message.level > SMALLEST:
            log.error("the Manager takes no result of this size: given up", error=str(error))
            self._set_aside(message, error.answer)
            return False
        log.warning("too large for the Manager", error=str(error), left_out=LEFT_OUT[message.level])
        return True

    def _settle_refusal(self, message: _Message, error: TaskRefused) -> None:
        """A final answer: after a lost reply it may mean that the message did arrive."""
        task_id, parcel = message.claimed.task.id, message.parcel
        sent = parcel.outcome.status if parcel else "running"
        if error.current_status == "canceled":
            log.info("the task was canceled at the Manager")
            self._registry.cancel(task_id)
            self._settle(message, self._spool.remove)
        elif error.current_status == sent:
            log.info("the Manager has it already", status=sent)
            self._settle(message, self._spool.remove)
        else:
            log.error("the Manager refuses it: set aside", status=sent, error=str(error))
            self._set_aside(message, error.answer)

    def _set_aside(self, message: _Message, answer: bytes) -> None:
        self._settle(message, lambda parcel: self._spool.set_aside(parcel, answer))

    def _settle(self, message: _Message, dispose: Callable[[Parcel], None]) -> None:
        """Nothing more is to be sent of the message: note that first, and then let go of it.

        A crash in between sends it once more, and the Manager says that it has it.
        """
        parcel = message.parcel
        if parcel is None:
            return
        note = self._journal.settled if parcel.outcome.final else self._journal.reported
        # On a full disk the parcel may take the room that the journal needs, which has a second
        # chance when that is free.
        for step in (partial(note, message.claimed), partial(dispose, parcel), self._journal.mend):
            try:
                step()
            except StateUnusable as error:
                log.error("the disk lacks that a result is settled", error=str(error))


def _as_it_is_now(outcome: Outcome) -> Outcome:
    """The outcome, without its document when somebody took that from the state directory."""
    document = outcome.document
    if document is None or _size(document.path) >= document.end:
        return outcome
    log.error("the document of a result is gone", file=document.path)
    warnings = [*outcome.report.warnings, "The document was lost on the agent's disk."]
    report = msgspec.structs.replace(outcome.report, warnings=warnings)
    return msgspec.structs.replace(outcome, report=report, document=None)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
