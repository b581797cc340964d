"""One attempt to bring one message to the Manager, and what its answer means for the message."""

import time
from dataclasses import dataclass
from functools import partial

import structlog

from agent.errors import ResultTooLarge, TaskRefused, TaskReplaced
from agent.manager.api import ManagerClient
from agent.manager.registration import Gate
from agent.manager.upload import fitting
from agent.protocol import Form
from agent.registry import CANCELED, REPLACED, TaskRegistry
from agent.state.ledger import Ledger
from agent.state.message import Message

# A result of more bytes takes a slow link for seconds.
LONG_RESULT = 64 * 1024
# One of more waits until no test runs on this host, for so many seconds at most.
LARGE_RESULT = 1024**2
LARGE_RESULT_WAITS = 60.0

log = structlog.get_logger()


def size_class(message: Message) -> int:
    """By its document: 1 for more than LONG_RESULT bytes, 2 for more than LARGE_RESULT, else 0."""
    size = found.end - found.start if (found := message.document) else 0
    return 2 if size > LARGE_RESULT else int(size > LONG_RESULT)


@dataclass
class Delivery:
    """Sends messages and settles them. `registry` is told which tasks the Manager has no more."""

    client: ManagerClient
    gate: Gate
    ledger: Ledger
    registry: TaskRegistry
    max_result_bytes: int

    def would_disturb(self, message: Message) -> bool:
        """Whether a large result should wait for a test that runs on this host, and still may."""
        waited = time.monotonic() - message.born
        may_wait = size_class(message) == 2 and waited < LARGE_RESULT_WAITS
        return may_wait and any(entry.pid for entry in self.registry.clients())

    def attempt(self, message: Message) -> None:
        """Send it, and less if it is too large. Raises StateUnusable, and as the gate does."""
        was_tried = message.tried
        try:
            self.gate.attempt(partial(self._send, message))
        except TaskReplaced as error:
            self.registry.stop(message.claimed, REPLACED)
            record = self.ledger.journal.of(message.claimed)
            record.replaced = True
            self.ledger.journal.note(record)
            log.error("not sent: set aside", why=str(error))
            self.ledger.set_aside(message, str(error).encode())
        except TaskRefused as error:
            smaller = message.form.next_smaller
            if isinstance(error, ResultTooLarge) and message.outcome and smaller:
                log.warning("too large for the Manager", error=str(error), left_out=smaller.value)
                message.form = smaller
                self.attempt(message)
            else:
                self._settle_refusal(message, error, was_tried)

    def _send(self, message: Message) -> None:
        claimed, origin = message.claimed, self.gate.registration.origin
        if not origin or not claimed.origin.is_same(origin):
            raise TaskReplaced("the task is of another Manager, or of another record there")
        self._check_current(message)
        if message.outcome is None:
            self.client.send_started(claimed.task, message.pid, message.idempotency_key)
        elif message.settled or (not message.document and self.ledger.journal.of(claimed).served):
            log.warning("not sent: the Manager has it, or a document whose place it would take")
            self.ledger.settle(message, keep_document=True)
        else:
            self._send_result(message)

    def _send_result(self, message: Message) -> None:
        """Send the largest form that the Manager takes, without a document that is damaged."""
        run = self.ledger.state.run
        run(self.ledger.spool.verify, message)
        assert (outcome := message.outcome)
        body, message.form = run(fitting, outcome, message.form, self.max_result_bytes)
        body.before_each.append(partial(self._check_current, message))
        message.tried = True
        self.client.send_result(message.claimed.task, body, message.idempotency_key)
        log.info("result delivered", status=outcome.status, bytes=len(body))
        self.ledger.settle(message, keep_document=message.form is not Form.WHOLE)

    def _check_current(self, message: Message) -> None:
        """Raise TaskReplaced once a claim has brought another task of the number."""
        if self.ledger.journal.of(message.claimed).replaced:
            raise TaskReplaced("the Manager gave the task's number to another task")

    def _settle_refusal(self, message: Message, error: TaskRefused, was_tried: bool) -> None:
        """Act on a final answer; after a lost reply it may say that the message did arrive."""
        sent = message.outcome.status if message.outcome else "running"
        # A server has succeeded since it listens: that says nothing of its documents.
        is_served = message.document and message.claimed.task.type == "iperf_server_start"
        if error.current_status == "canceled":
            log.info("the task was canceled at the Manager")
            self.registry.stop(message.claimed, CANCELED)
            self.ledger.settle(message)
        elif error.current_status == sent and (was_tried or not message.outcome) and not is_served:
            log.info("the Manager has it already", status=sent)
            # Perhaps in a smaller form: an earlier run of the agent may have sent it.
            self.ledger.settle(message, keep_document=True)
        else:
            log.error("the Manager refuses it: set aside", status=sent, error=str(error))
            self.ledger.set_aside(message, error.answer)
