"""What an agent owes its Manager: the one place that orders the writes of journal and spool.

An outcome is saved before it is first sent. Once the Manager has it, its record is marked as
settled, and goes when the journal on the disk says so as well. What the disk does not take now is
done when it can be written again.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import structlog
from gevent.lock import BoundedSemaphore

from agent.errors import StateUnusable
from agent.files import discard
from agent.state.directory import StateDirectory
from agent.state.journal import Journal, TaskRecord
from agent.state.message import Message
from agent.state.spool import SETTLED, Spool

log = structlog.get_logger()


class Ledger:
    """The tasks of one agent that are not settled, and the outcomes that wait."""

    def __init__(self, state: StateDirectory) -> None:
        """Read the journal; raises ConfigError when it can never be read."""
        self.state = state
        self.journal = Journal(state)
        self.spool = Spool(state)
        # The claims of which the spool had an outcome; True for a final one.
        self._have_outcome: dict[str, bool] = {}
        # Those whose end a journal that is unread may not know.
        self._settled: list[Message] = []
        self._owed: dict[Message, Callable[[], None]] = {}
        self._mending = BoundedSemaphore()

    @property
    def unread(self) -> str:
        """What of the previous run cannot be read now, and why; empty if all was recovered."""
        files = "; ".join(filter(None, [self.journal.unread, *self.spool.unread]))
        tasks = "the tasks of the previous run are not recovered yet"
        return files or (tasks if self.journal.previous else "")

    @property
    def is_behind(self) -> bool:
        """Whether something waits for the disk."""
        return bool(self.state.trouble or self._owed or self.unread)

    def load_waiting(self) -> list[Message]:
        """The outcomes of the previous run that wait, and that no earlier call returned.

        Raises StateUnusable.
        """
        self.journal.read()
        waiting = []
        for message in self.state.run(self.spool.load):
            key = message.claimed.key
            if message.settled or key in self.journal.settled_before:
                self._settled.append(message)
            else:
                waiting.append(message)
                self._have_outcome[key] = self._have_outcome.get(key, False) or message.is_final
        while self._settled and self.journal.readable.is_set():
            # Perhaps the Manager has a smaller form.
            self.settle(self._settled.pop(), keep_document=True)
        return waiting

    def interrupted(self) -> Iterator[TaskRecord]:
        """The tasks of the previous run whose last outcome it did not save.

        A record counts as seen to when the next one is asked for. There is none while something
        cannot be read that may be the outcome of one of them. Raises StateUnusable.
        """
        if self.journal.unread or self.spool.unread or not self.journal.previous:
            return
        # Set aside just before the end of the previous run, which could not note it any more.
        for message in self.state.run(self.spool.load_rejected):
            self._note_end(message)
        for key, record in list(self.journal.previous.items()):
            record.reported |= key in self._have_outcome
            if not self._have_outcome.get(key):
                yield record
            self.journal.previous.pop(key, None)

    def save(self, message: Message) -> None:
        """Return when the outcome is on the disk, or waits in memory for the disk."""
        self._do(message, partial(self.state.write, self.spool.save, message))

    def settle(self, message: Message, keep_document: bool = False) -> None:
        """Note that the Manager has the outcome; its document is removed, or moved to kept/."""
        self._note_end(message, served=message.document is not None)
        self._do(message, partial(self.state.write, self.spool.settle, message, keep_document))

    def lose_document(self, message: Message, reason: str) -> None:
        """Go on without the document of an outcome, which is set aside if that is possible."""
        self.state.run(self.spool.lose_document, message, reason)

    def set_aside(self, message: Message, answer: bytes) -> None:
        """Move an outcome that the Manager will never take to rejected/, with the reason."""
        self._do(message, partial(self._set_aside, message, answer))

    def mend(self) -> None:
        """Do what the disk did not take before, and tidy up; raises StateUnusable."""
        failure = None
        with self._mending:
            for message, step in list(self._owed.items()):
                try:
                    step()
                    self._owed.pop(message, None)
                except StateUnusable as error:
                    # The next one may be on a sector that is well.
                    failure = error
        settled = self.state.run(self.spool.files, SETTLED)
        self.journal.sync()
        self.state.run(discard, *settled)
        if failure:
            raise failure

    def _do(self, message: Message, step: Callable[[], None]) -> None:
        """Take a step now, or when the disk can be written again, in place of the one before.

        `started` has nothing on the disk.
        """
        if message.outcome is None:
            return
        # `mend` may be at the step before.
        with self._mending if message in self._owed else nullcontext():
            self._take(message, step)

    def _take(self, message: Message, step: Callable[[], None]) -> None:
        try:
            step()
            self._owed.pop(message, None)
        except StateUnusable as error:
            self._owed[message] = step
            words = "the state directory does not take a result now: it waits in memory"
            log.error(words, task_id=message.claimed.task.id, error=str(error))

    def _set_aside(self, message: Message, answer: bytes) -> None:
        self.state.write(self.spool.set_aside, message, answer)
        self._note_end(message)

    def _note_end(self, message: Message, served: bool = False) -> None:
        if message.outcome and self.journal.readable.is_set():
            self.journal.mark_delivered(message.claimed, message.is_final, served)
        elif message.outcome:
            self._settled.append(message)
