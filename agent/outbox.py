"""Messages about tasks, kept until the Manager has them.

Those of one task go in order and one at a time, those of different tasks side by side. Every
message keeps its Idempotency-Key over all its attempts. For now they wait in memory; the
documents that iperf3 wrote wait in its own files.
"""

import os
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import msgspec
import structlog
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from agent.client import Body, ManagerClient
from agent.errors import (
    AgentUnknown,
    KeyRefused,
    ManagerUnavailable,
    ResultTooLarge,
    TaskError,
    TaskRefused,
)
from agent.iperf3 import documents
from agent.timing import KEY_REFUSED_PAUSE, backoff
from agent.wire import Document, Outcome

# Uploads at a time; more would only share the same line to the Manager.
SLOTS = 4
# What the smaller forms of a document leave out, by level.
LEFT_OUT = ("", "the streams of each interval", "the intervals")

log = structlog.get_logger()


@dataclass(eq=False)
class _Message:
    """Either `started` (a pid) or an outcome, and how small it has to be."""

    pid: int = 0
    outcome: Outcome | None = None
    level: int = 0
    idempotency_key: str = field(default_factory=lambda: str(uuid.uuid4()))


class Outbox:
    """The one place that results go to.

    `spawn` starts a greenlet whose unforeseen end stops the agent; `canceled` is told the id of
    a task that the Manager says was canceled.
    """

    def __init__(
        self,
        client: ManagerClient,
        max_result_bytes: int,
        spawn: Callable[..., object],
        canceled: Callable[[int], object],
    ) -> None:
        self._client = client
        self._max_result_bytes = max_result_bytes
        self._spawn = spawn
        self._canceled = canceled
        self._queues: dict[int, deque[_Message]] = {}
        self._slots = BoundedSemaphore(SLOTS)
        self._stop = Event()
        self._empty = Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many messages the Manager does not have yet."""
        return sum(len(queue) for queue in self._queues.values())

    def started(self, task_id: int, pid: int) -> None:
        """Say that the task's process runs. Of no use once its result waits, and then dropped."""
        self._enqueue(task_id, _Message(pid=pid))

    def put(self, task_id: int, outcome: Outcome) -> None:
        """Take an outcome over, with the file of its document, which is removed when delivered."""
        self._enqueue(task_id, _Message(outcome=outcome))

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until the Manager has everything; False if it has not.

        Ends early when nothing more will be sent.
        """
        gevent.wait([self._empty, self._stop], timeout, count=1)
        return bool(self._empty.is_set())

    def stop(self) -> None:
        """Send nothing more."""
        self._stop.set()

    def _enqueue(self, task_id: int, message: _Message) -> None:
        self._empty.clear()
        queue = self._queues.get(task_id)
        if queue is None:
            queue = self._queues[task_id] = deque()
            self._spawn(self._deliver_all, task_id, queue)
        queue.append(message)

    def _deliver_all(self, task_id: int, queue: deque[_Message]) -> None:
        structlog.contextvars.bind_contextvars(task_id=task_id)
        while queue:
            if not self._deliver(task_id, queue):
                return
            queue.popleft()
        del self._queues[task_id]
        if not self._queues:
            self._empty.set()

    def _deliver(self, task_id: int, queue: deque[_Message]) -> bool:
        """Send the queue's first message until it is settled; False when told to stop."""
        message = queue[0]
        for delay in backoff():
            try:
                with self._slots:
                    self._send(task_id, message)
                return True
            except (ResultTooLarge, TaskError) as error:
                if not self._make_smaller(message, str(error)):
                    return True
                continue
            except TaskRefused as error:
                self._settle_refusal(task_id, message, error)
                return True
            except AgentUnknown:
                self.stop()
                raise
            except KeyRefused as error:
                delay = KEY_REFUSED_PAUSE
                log.error("the Manager refuses the key", error=str(error))
            except ManagerUnavailable as error:
                delay = max(delay, error.retry_after or 0)
                log.warning("not delivered yet", error=str(error), retry_in=round(delay, 1))
            if message.pid and len(queue) > 1:
                return True
            if self._stop.wait(delay):
                return False
        raise AssertionError("backoff never ends")

    def _send(self, task_id: int, message: _Message) -> None:
        if message.outcome is None:
            self._client.started(task_id, message.pid, message.idempotency_key)
            return
        body = self._body(message, message.outcome)
        self._client.result(task_id, body, message.idempotency_key)
        _remove_document(message.outcome)
        log.info("result delivered", status=message.outcome.status, bytes=len(body))

    def _body(self, message: _Message, outcome: Outcome) -> Body:
        body = encode(outcome, message.level)
        while len(body) > self._max_result_bytes and message.level < len(LEFT_OUT) - 1:
            message.level += 1
            body = encode(outcome, message.level)
        return body

    def _make_smaller(self, message: _Message, error: str) -> bool:
        message.level += 1
        if message.outcome is None or message.level >= len(LEFT_OUT):
            log.error("the Manager takes no result of this size: given up", error=error)
            _remove_document(message.outcome)
            return False
        log.warning("too large for the Manager", error=error, left_out=LEFT_OUT[message.level])
        return True

    def _settle_refusal(self, task_id: int, message: _Message, error: TaskRefused) -> None:
        """A final answer: after a lost reply it may mean that the message did arrive."""
        sent = message.outcome.status if message.outcome else "running"
        if error.current_status == "canceled":
            log.info("the task was canceled at the Manager")
            self._canceled(task_id)
        elif error.current_status == sent:
            log.info("the Manager has it already", status=sent)
        else:
            log.error("the Manager refuses it: given up", status=sent, error=str(error))
        _remove_document(message.outcome)


def encode(outcome: Outcome, level: int = 0) -> Body:
    """The body of a `result` call: iperf3's own document, untouched, and the key `agent`.

    The document's part of its file is spliced in behind that key and never decoded, unless
    `level` asks for one of the smaller forms in LEFT_OUT.
    """
    report = msgspec.structs.replace(outcome.report, truncated=LEFT_OUT[level])
    head: dict[str, Any] = {
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "stderr": outcome.stderr,
        "result": {**outcome.answer, "agent": report},
    }
    opened = msgspec.json.encode(head)[:-2]
    if outcome.document is None:
        return Body(opened + b"}}")
    if level:
        return Body(opened + b"," + documents.shrink(_content(outcome.document), level)[1:] + b"}")
    inside = Document(outcome.document.path, outcome.document.start + 1, outcome.document.end)
    return Body(opened + b",", inside, b"}")


def _content(document: Document) -> bytes:
    with open(document.path, "rb") as file:
        file.seek(document.start)
        return file.read(document.end - document.start)


def _remove_document(outcome: Outcome | None) -> None:
    """The Manager has it, or will never take it."""
    if outcome and outcome.document:
        os.unlink(outcome.document.path)
