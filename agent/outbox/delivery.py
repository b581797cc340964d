"""One attempt to bring one message to the Manager, and what its answer means for the message."""

import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import msgspec
import structlog
from gevent.lock import BoundedSemaphore

from agent.errors import ManagerUnavailable, ResultTooLarge, StateUnusable, TaskRefused
from agent.manager.api import ManagerClient
from agent.manager.registration import Registration
from agent.outbox.body import Form, fitting
from agent.protocol import Claimed, Outcome
from agent.registry import TaskRegistry
from agent.state.ledger import Ledger
from agent.state.spool import Parcel

# A result of more bytes waits until no test runs on this host, for so many seconds at most.
LARGE_RESULT = 1024**2
LARGE_RESULT_WAITS = 60.0
# Seconds for which it is certain enough that the Manager is still the same one. Another Manager's
# task of the same number must not get a result.
RESULT_SURE_FOR = 5.0

log = structlog.get_logger()


@dataclass(eq=False)
class Message:
    """Either `started` (a pid) or an outcome in its parcel, and the form to send it in.

    `lock` is held while the parcel is written or removed; one that is `settled` is not written.
    """

    claimed: Claimed
    pid: int = 0
    parcel: Parcel | None = None
    form: Form = Form.WHOLE
    born: float = field(default_factory=time.monotonic)
    idempotency_key: str = field(default_factory=lambda: str(uuid.uuid4()))
    settled: bool = False
    lock: BoundedSemaphore = field(default_factory=BoundedSemaphore)


class Delivery:
    """Sends messages and settles them. `registry` is told which tasks were canceled."""

    def __init__(
        self,
        client: ManagerClient,
        registration: Registration,
        ledger: Ledger,
        registry: TaskRegistry,
        max_result_bytes: int,
    ) -> None:
        self._client = client
        self._registration = registration
        self._ledger = ledger
        self._spool = ledger.spool
        self._registry = registry
        self._max_result_bytes = max_result_bytes

    def would_disturb(self, message: Message) -> bool:
        """Whether a large result should wait for a test that runs on this host, and still may."""
        document = message.parcel and message.parcel.outcome.document
        if not document or document.end - document.start <= LARGE_RESULT:
            return False
        too_long = time.monotonic() - message.born >= LARGE_RESULT_WAITS
        return not too_long and any(entry.pid for entry in self._registry.clients())

    def attempt(self, message: Message) -> bool:
        """Send it once; True when it is settled, False to send it again at once in a smaller form.

        Raises ManagerUnavailable, KeyRefused and AgentUnknown, with the message unsettled.
        """
        try:
            self._send(message)
        except ResultTooLarge as error:
            return self._settle_too_large(message, error)
        except TaskRefused as error:
            self._settle_refusal(message, error)
        return True

    def _send(self, message: Message) -> None:
        claimed, parcel = message.claimed, message.parcel
        life = self._registration.confirm(RESULT_SURE_FOR if parcel else None)
        if claimed.life != life:
            log.error("the task is another Manager's, or an earlier installation's: set aside")
            self._set_aside(message, b"the task is another Manager's, or an earlier installation's")
        elif parcel is None:
            self._client.send_started(claimed.task.id, message.pid, message.idempotency_key)
        else:
            self._send_result(message, parcel)

    def _send_result(self, message: Message, parcel: Parcel) -> None:
        outcome = _without_lost_document(parcel.outcome)
        try:
            body, message.form = self._ledger.state.run(
                fitting, outcome, message.form, self._max_result_bytes
            )
        except StateUnusable as error:
            raise ManagerUnavailable(f"the document cannot be read now: {error}") from error
        self._client.send_result(message.claimed.task.id, body, message.idempotency_key)
        log.info("result delivered", status=outcome.status, bytes=len(body))
        shortened = message.form is not Form.WHOLE
        if shortened:
            self._try("a whole document could not be kept", partial(self._spool.keep, parcel))
        self._settle(message, partial(self._spool.remove, but_document=shortened))

    def _settle_too_large(self, message: Message, error: ResultTooLarge) -> bool:
        """Set it aside when there is no smaller form; False when there is one to send now."""
        smaller = message.form.next_smaller
        if message.parcel is None or smaller is None:
            log.error("the Manager takes no result of this size: given up", error=str(error))
            self._set_aside(message, error.answer)
            return True
        message.form = smaller
        log.warning("too large for the Manager", error=str(error), left_out=smaller.value)
        return False

    def _settle_refusal(self, message: Message, error: TaskRefused) -> None:
        """Act on a final answer; after a lost reply it may say that the message did arrive."""
        sent = message.parcel.outcome.status if message.parcel else "running"
        if error.current_status == "canceled":
            log.info("the task was canceled at the Manager")
            self._registry.cancel(message.claimed.task.id)
        elif error.current_status == sent:
            log.info("the Manager has it already", status=sent)
        else:
            log.error("the Manager refuses it: set aside", status=sent, error=str(error))
            self._set_aside(message, error.answer)
            return
        self._settle(message, self._spool.remove)

    def _set_aside(self, message: Message, answer: bytes) -> None:
        self._settle(message, lambda parcel, _: self._spool.set_aside(parcel, answer))

    def _settle(self, message: Message, dispose: Callable[[Parcel, bool], None]) -> None:
        """Note that nothing more is to be sent of the message, and then dispose of its parcel.

        After a crash in between it is sent once more, and the Manager answers that it has it.
        """
        parcel = message.parcel
        if parcel is None:
            return
        journal = self._ledger.journal
        note = journal.mark_settled if parcel.outcome.final else journal.mark_reported
        with message.lock:
            message.settled = True
            # On a full disk the parcel may take the space that the journal needs; the journal is
            # tried again once the parcel is gone.
            what = "that a result is settled could not be written"
            noted = self._try(what, partial(note, message.claimed))
            self._try(what, partial(dispose, parcel, noted))
            if not noted:
                self._try(what, self._ledger.mend)

    def _try(self, what: str, step: Callable[[], None]) -> bool:
        try:
            step()
        except StateUnusable as error:
            log.error(what, error=str(error))
            return False
        return True


def _without_lost_document(outcome: Outcome) -> Outcome:
    """The outcome, without its document if somebody removed that from the state directory."""
    if (document := outcome.document) is None:
        return outcome
    with suppress(FileNotFoundError):
        if os.stat(document.path).st_size >= document.end:
            return outcome
    log.error("the document of a result is gone", file=document.path)
    warnings = [*outcome.report.warnings, "The document was lost on the agent's disk."]
    report = msgspec.structs.replace(outcome.report, warnings=warnings)
    return msgspec.structs.replace(outcome, report=report, document=None)
