"""What an agent owes its Manager: the one place that orders the writes of journal and spool.

An outcome is saved before it is first sent, and settled once the Manager has it. What the disk does
not take now is done when it can be written again.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from operator import attrgetter

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
        self.state, self.journal, self.spool = state, Journal(state), Spool(state)
        self._owed: dict[Message, Sequence[Callable[[], None]]] = {}
        self._mending = BoundedSemaphore()

    @property
    def unread(self) -> str:
        """What of the previous run cannot be read now, and why; empty if all was recovered."""
        tasks = "tasks of the previous run are not recovered yet" if self.journal.previous else ""
        return "; ".join(filter(None, [self.journal.unread, *self.spool.unread])) or tasks

    @property
    def is_behind(self) -> bool:
        """Whether something waits for the disk."""
        return bool(self.state.trouble or self._owed or self.unread)

    def load_waiting(self) -> list[Message]:
        """The outcomes of the previous run that wait, none of them twice; raises StateUnusable."""
        self.journal.read()
        found = self.state.run(self.spool.load)
        # The newest first: of two tasks of a number, it is the one that has it.
        for message in reversed(found):
            self.journal.when_read(partial(self._take_over, message))
        for message in filter(attrgetter("settled"), found):
            # Perhaps the Manager has a smaller form.
            self.settle(message, keep_document=True)
        if self.journal.readable.is_set() and not self.spool.unread:
            self.journal.settled_before.clear()
        return [message for message in found if not message.settled]

    def interrupted(self) -> list[TaskRecord]:
        """The tasks of the previous run without a saved final outcome; raises StateUnusable."""
        # What is unread may be the outcome of one of them.
        if self.spool.unread or not self.journal.previous:
            return []
        # Set aside just before the end of the previous run, which could not note it any more.
        for message in self.state.run(lambda: [*self.spool.load_rejected()]):
            self._note_end(message)
        return list(self.journal.previous.values())

    def save(self, message: Message) -> None:
        """Return when the outcome is on the disk, or waits in memory for the disk."""
        self._do(message, partial(self.state.write, self.spool.save, message))
        self._note_saved(message)

    def settle(self, message: Message, keep_document: bool = False) -> None:
        """Note that the Manager has the outcome; its document is removed, or moved to kept/."""
        if message.outcome:
            self.journal.unmarked.add(message)
            self._note_end(message, served=message.document is not None)
            mark = partial(self.state.write, self.spool.settle, message, keep_document)
            self._do(message, mark, partial(self.journal.unmarked.discard, message))

    def set_aside(self, message: Message, answer: bytes) -> None:
        """Move an outcome that the Manager will never take to rejected/, with the reason."""
        if message.outcome:
            move = partial(self.state.write, self.spool.set_aside, message, answer)
            self._do(message, move, partial(self._note_end, message))

    def mend(self) -> None:
        """Do what the disk did not take before, and tidy up; raises StateUnusable."""
        with self._mending:
            # Each of them: the next one may be on a sector that is well.
            for message, steps in list(self._owed.items()):
                self._take(message, steps)
        # The journal may not know the end of one that cannot be read now.
        settled = self.state.run(partial(self.spool.files, SETTLED, loaded=True))
        self.journal.sync()
        self.state.run(discard, *settled)
        if self._owed:
            raise StateUnusable("results wait in memory")

    def _do(self, message: Message, *steps: Callable[[], None]) -> None:
        """Take steps now, or when the disk can be written again, in place of those before."""
        # `mend` may be at those before.
        with self._mending if message in self._owed else nullcontext():
            self._take(message, steps)

    def _take(self, message: Message, steps: Sequence[Callable[[], None]]) -> None:
        try:
            for step in steps:
                step()
            self._owed.pop(message, None)
        except StateUnusable as error:
            if message not in self._owed:
                words = "the state directory does not take a result now: it waits in memory"
                log.error(words, task_id=message.claimed.task.id, error=str(error))
            self._owed[message] = steps

    def _note_end(self, message: Message, served: bool = False) -> None:
        mark = partial(self.journal.mark_delivered, message.claimed, message.is_final, served)
        self.journal.when_read(mark)

    def _take_over(self, message: Message) -> None:
        message.settled |= message.claimed.key in self.journal.settled_before
        if not message.settled:
            self.journal.enter(message.claimed)
            self._note_saved(message)

    def _note_saved(self, message: Message) -> None:
        previous, key = self.journal.previous, message.claimed.key
        if message.is_final:
            previous.pop(key, None)
        elif key in previous:
            previous[key].reported = True
