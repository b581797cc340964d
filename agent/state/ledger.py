"""What an agent owes its Manager: the one place that orders the writes of journal and spool.

An outcome is saved before it is first sent, and settled once the Manager has it. What the disk does
not take now is done when it can be written again.
"""

from collections.abc import Callable, Sequence
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
        self._owed: dict[Message, Sequence[Callable[[], None]]] = {}
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
        """The outcomes of the previous run that wait, none of them twice; raises StateUnusable."""
        self.journal.read()
        waiting = []
        for message in self.state.run(self.spool.load):
            if message.settled or message.claimed.key in self.journal.settled_before:
                # Perhaps the Manager has a smaller form.
                self.settle(message, keep_document=True)
            else:
                waiting.append(message)
                self.journal.when_read(partial(self._note_saved, message))
        return waiting

    def interrupted(self) -> list[TaskRecord]:
        """The tasks of the previous run without a saved final outcome; raises StateUnusable."""
        # What is unread may be the outcome of one of them.
        if self.spool.unread or not self.journal.previous:
            return []
        # Set aside just before the end of the previous run, which could not note it any more.
        for message in self.state.run(self.spool.load_rejected):
            self._note_end(message)
        return list(self.journal.previous.values())

    def save(self, message: Message) -> None:
        """Return when the outcome is on the disk, or waits in memory for the disk."""
        self._do(message, partial(self.state.write, self.spool.save, message))
        self._note_saved(message)

    def settle(self, message: Message, keep_document: bool = False) -> None:
        """Note that the Manager has the outcome; its document is removed, or moved to kept/."""
        self._note_end(message, served=message.document is not None)
        self._do(message, partial(self.state.write, self.spool.settle, message, keep_document))

    def set_aside(self, message: Message, answer: bytes) -> None:
        """Move an outcome that the Manager will never take to rejected/, with the reason."""
        move = partial(self.state.write, self.spool.set_aside, message, answer)
        self._do(message, move, partial(self._note_end, message))

    def mend(self) -> None:
        """Do what the disk did not take before, and tidy up; raises StateUnusable."""
        with self._mending:
            # Each of them: the next one may be on a sector that is well.
            for message, steps in list(self._owed.items()):
                self._take(message, steps)
        settled = self.state.run(self.spool.files, SETTLED)
        self.journal.sync()
        self.state.run(discard, *settled)
        if self._owed:
            raise StateUnusable("results wait in memory")

    def _do(self, message: Message, *steps: Callable[[], None]) -> None:
        """Take steps now, or when the disk can be written again, in place of those before."""
        # `started` has nothing on the disk.
        if message.outcome:
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
        if message.outcome:
            mark = partial(self.journal.mark_delivered, message.claimed, message.is_final, served)
            self.journal.when_read(mark)

    def _note_saved(self, message: Message) -> None:
        previous, key = self.journal.previous, message.claimed.key
        if message.is_final:
            previous.pop(key, None)
        elif key in previous:
            previous[key].reported = True
