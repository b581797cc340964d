"""The journal: which tasks were claimed and are not settled, for an agent that starts again.

It is a file of lines, each with a checksum, and the newest line about a task counts. The line of
a task also has the key of the next claim: after a crash at any moment, the agent repeats the claim
whose task is not in the journal, and no other.
"""

import os
import uuid
from collections import deque

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
from agent.text import to_json

# The file is rewritten when it has this many lines more than there are tasks.
SPARE_LINES = 1000

log = structlog.get_logger()


class ChildRecord(Struct, frozen=True):
    """A child of a task: who it is, and how it was started."""

    identity: ProcessIdentity | None
    report: Report


class TaskRecord(Struct):
    """A claimed task that is not settled.

    `reported` says that the Manager has an outcome of it; only a server goes on after that.
    """

    claimed: Claimed
    child: ChildRecord | None = None
    reported: bool = False


class _JournalLine(Struct, omit_defaults=True):
    key: str = ""
    task: TaskRecord | None = None
    settled: str = ""


class Journal:
    """The journal of one state directory.

    `claim_key` is the Idempotency-Key of the next claim, and `settled_before` has the keys of the
    tasks that the previous run settled, whose results are not sent again.

    While the directory cannot be written the journal goes on in memory. Each method that writes
    then raises StateUnusable, and the next one that succeeds writes everything.
    """

    def __init__(self, state: StateDirectory) -> None:
        """Read what the previous run left; a journal with damaged lines is kept in rejected/."""
        self._state = state
        self._path = state.path / "journal"
        self._file = -1
        self._lock = BoundedSemaphore()
        self._lines = 0
        # False while the file may end in a torn line, after which nothing may be appended.
        self._whole = False
        self._tasks: dict[str, TaskRecord] = {}
        # The results of these may still be in the outbox, so that a rewritten file names them too.
        self._lately_settled: deque[str] = deque(maxlen=SPARE_LINES)
        self.settled_before: set[str] = set()
        self.claim_key = ""
        self._read()

    def unsettled(self) -> list[TaskRecord]:
        """The tasks that are not settled, in the order of their claims."""
        return list(self._tasks.values())

    def record_claim(self, claimed: Claimed) -> None:
        """Note a task, and with it the new key for the next claim."""
        self.claim_key = str(uuid.uuid4())
        self._tasks[claimed.key] = record = TaskRecord(claimed.without_payload)
        self._append(_JournalLine(key=self.claim_key, task=record))

    def renew_claim_key(self) -> None:
        """Note a new key without a task: the claim with the old one brought nothing new."""
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
        """Note on the disk that the Manager has an outcome of a task that goes on."""
        if (record := self._tasks.get(claimed.key)) and not record.reported:
            record.reported = True
            self._append(_JournalLine(task=record))
            self.sync()

    def mark_settled(self, claimed: Claimed) -> None:
        """Note on the disk that there is nothing more to report of a task."""
        if self._tasks.pop(claimed.key, None):
            self._lately_settled.append(claimed.key)
            self._append(_JournalLine(settled=claimed.key))
            self.sync()

    def mend(self) -> None:
        """Rewrite the file if something could not be written."""
        with self._lock:
            if not self._whole:
                self._rewrite()

    def _read(self) -> None:
        there = self._path.exists()
        damaged = 0
        for raw in self._path.read_bytes().splitlines() if there else ():
            try:
                line = msgspec.json.decode(unframe(raw), type=_JournalLine)
            except (RecordDamaged, msgspec.MsgspecError):
                damaged += 1
                continue
            self._lines += 1
            self.claim_key = line.key or self.claim_key
            if line.settled:
                self.settled_before.add(line.settled)
                self._tasks.pop(line.settled, None)
            if line.task:
                self._tasks[line.task.claimed.key] = line.task
        # The line with the next key may be damaged: the key of a known task would bring that task.
        if not self.claim_key or self.claim_key in self._tasks:
            self.claim_key = str(uuid.uuid4())
        # A journal that the agent wrote has at least one line.
        if damaged or (there and not self._lines):
            aside = self._state.rejected / f"journal.{uuid.uuid4()}"
            log.error("the journal has damaged lines", lines=damaged, set_aside=str(aside))
            try:
                os.link(self._path, aside)
            except OSError as error:
                log.error("the damaged journal cannot be set aside", error=str(error))

    def _append(self, line: _JournalLine) -> None:
        data = frame(to_json(line))
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
        """Replace the file by one that has what is in memory and nothing else."""
        self._whole = False
        lines = [
            _JournalLine(key=self.claim_key),
            *(_JournalLine(task=task) for task in self._tasks.values()),
            *(_JournalLine(settled=key) for key in self._lately_settled),
        ]
        data = b"".join(frame(to_json(line)) for line in lines)
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
