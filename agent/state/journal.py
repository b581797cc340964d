"""The journal: which tasks were claimed and are not settled, for an agent that starts again.

It is a file of lines, each with a checksum, and the newest line about a task stands. The key of
the next claim stands in the line of the task that the last one obtained: a crash at any moment
repeats a claim whose task is not in the journal, and no other.
"""

import os
import uuid
from collections import deque
from dataclasses import dataclass

import msgspec
import structlog
from gevent.lock import BoundedSemaphore
from msgspec import Struct

from agent.errors import RecordDamaged, StateUnusable
from agent.files import write_whole
from agent.process.identity import ProcessIdentity
from agent.protocol import Claimed, Report
from agent.state.directory import StateDirectory
from agent.state.records import frame, unframe

# The file is written anew when it has this many lines more than there are tasks.
SPARE_LINES = 1000

log = structlog.get_logger()


class ChildRecord(Struct, frozen=True):
    """A child of a task: who it is, and how it was started."""

    identity: ProcessIdentity | None
    report: Report


class TaskRecord(Struct):
    """A claimed task that is not settled.

    `reported` says that the Manager has an outcome of it, which only a server outlives.
    """

    claimed: Claimed
    child: ChildRecord | None = None
    reported: bool = False


class _JournalLine(Struct, omit_defaults=True):
    key: str = ""
    task: TaskRecord | None = None
    settled: str = ""


@dataclass
class _Content:
    key: str
    tasks: dict[str, TaskRecord]
    settled: set[str]
    lines: int
    damaged: int


class Journal:
    """The journal of one state directory. `claim_key` is for the next claim.

    While the directory cannot be written the journal goes on in memory; each method that writes
    then raises StateUnusable, and the next one that can writes it all.
    """

    def __init__(self, state: StateDirectory) -> None:
        """Read what a former life left; damaged lines are set aside."""
        self._state = state
        self._path = state.path / "journal"
        self._file = -1
        self._lock = BoundedSemaphore()
        there = self._path.exists()
        content = _read(self._path.read_bytes() if there else b"")
        # With a damaged line the key after a task may be lost: its own would obtain it again.
        spent = content.key in content.tasks
        self.claim_key = str(uuid.uuid4()) if spent or not content.key else content.key
        self._tasks = content.tasks
        # The keys of tasks that a former life settled: what it still has of them is not sent.
        self.settled_before = content.settled
        # What may still lie in the outbox: a file that is written anew must not forget it.
        self._lately_settled: deque[str] = deque(maxlen=SPARE_LINES)
        self._lines = content.lines
        # Nothing is appended behind a line that may be torn.
        self._whole = False
        # From its first moment on it has a line.
        if content.damaged or (there and not content.lines):
            aside = state.rejected / f"journal.{uuid.uuid4()}"
            log.error("the journal has damaged lines", lines=content.damaged, set_aside=str(aside))
            try:
                os.link(self._path, aside)
            except OSError as error:
                log.error("the damaged journal cannot be set aside", error=str(error))

    def unsettled(self) -> list[TaskRecord]:
        """The tasks that are not settled, in the order of their claims."""
        return list(self._tasks.values())

    def record_claim(self, claimed: Claimed) -> None:
        """Note a task, and with it that the next claim has a new key."""
        self.claim_key = str(uuid.uuid4())
        self._tasks[claimed.key] = record = TaskRecord(claimed.on_disk)
        self._append(_JournalLine(key=self.claim_key, task=record))

    def renew_claim_key(self) -> None:
        """Take a new key without a task: the old one obtained what is settled already."""
        self.claim_key = str(uuid.uuid4())
        self._append(_JournalLine(key=self.claim_key))

    def sync(self) -> None:
        """Return when all that was noted is on the disk."""
        with self._lock:
            if self._file >= 0:
                self._state.run(os.fdatasync, self._file)

    def record_child(self, claimed: Claimed, child: ChildRecord) -> None:
        """Note the child that a task has now."""
        if record := self._tasks.get(claimed.key):
            record.child = child
            self._append(_JournalLine(task=record))

    def mark_reported(self, claimed: Claimed) -> None:
        """Note, and have on the disk, that the Manager has an outcome of a task that goes on."""
        if (record := self._tasks.get(claimed.key)) and not record.reported:
            record.reported = True
            self._append(_JournalLine(task=record))
            self.sync()

    def mark_settled(self, claimed: Claimed) -> None:
        """Note, and have on the disk, that there is nothing more to tell of a task."""
        if self._tasks.pop(claimed.key, None):
            self._lately_settled.append(claimed.key)
            self._append(_JournalLine(settled=claimed.key))
            self.sync()

    def mend(self) -> None:
        """Write everything anew if something could not be written."""
        with self._lock:
            if not self._whole:
                self._rewrite()

    def _append(self, line: _JournalLine) -> None:
        data = frame(msgspec.json.encode(line))
        with self._lock:
            self._lines += 1
            if not self._whole or self._lines > len(self._tasks) + SPARE_LINES:
                self._rewrite()
                return
            try:
                self._state.run(_write_all, self._file, data)
            except StateUnusable:
                self._whole = False
                raise

    def _rewrite(self) -> None:
        """Put a new file in place of the old one, with what memory holds and nothing else."""
        self._whole = False
        lines = [
            _JournalLine(key=self.claim_key),
            *(_JournalLine(task=task) for task in self._tasks.values()),
        ]
        lines += [_JournalLine(settled=key) for key in self._lately_settled]
        data = b"".join(frame(msgspec.json.encode(line)) for line in lines)
        self._state.run(write_whole, self._path, data)
        fresh = self._state.run(os.open, self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if self._file >= 0:
            os.close(self._file)
        self._file = fresh
        self._whole = True
        self._lines = len(lines)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read(data: bytes) -> _Content:
    content = _Content("", {}, set(), 0, 0)
    for raw in data.splitlines():
        try:
            line = msgspec.json.decode(unframe(raw), type=_JournalLine)
        except (RecordDamaged, msgspec.MsgspecError):
            content.damaged += 1
            continue
        content.lines += 1
        content.key = line.key or content.key
        if line.settled:
            content.settled.add(line.settled)
            content.tasks.pop(line.settled, None)
        if line.task:
            content.tasks[line.task.claimed.key] = line.task
    return content
