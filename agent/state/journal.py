"""The journal: which tasks were claimed and are not settled, for an agent that starts again.

The newest line about a task counts. The line of a task also has the key of the next claim: after a
crash at any moment, the agent repeats the claim whose task is not in the journal, and no other.
"""

import uuid
from collections.abc import Callable

import msgspec
import structlog
from gevent.event import Event
from msgspec import Struct

from agent.errors import ConfigError, StateUnusable
from agent.files import Whose, read_if_there, unframe, whose
from agent.process.identity import ProcessIdentity
from agent.protocol import Claimed, Report
from agent.state.appended import AppendedFile
from agent.state.directory import StateDirectory
from agent.state.message import Message
from agent.text import to_json

log = structlog.get_logger()


class ChildRecord(Struct, frozen=True):
    """A child of a task: who it is, and how it was started."""

    identity: ProcessIdentity | None
    report: Report


class TaskRecord(Struct):
    """A claimed task that is not settled.

    `reported` says that the Manager has an outcome of it; only a server goes on after that.
    `served` says that it has a document of it, which no later result may replace by nothing.
    `replaced` says that its number is another task's by now: nothing more of it is sent.
    """

    claimed: Claimed
    child: ChildRecord | None = None
    reported: bool = False
    served: bool = False
    replaced: bool = False


class _JournalLine(Struct, omit_defaults=True):
    key: str = ""
    task: TaskRecord | None = None
    settled: str = ""


class Journal(AppendedFile):
    """The journal of one state directory; `read` and `sync` alone wait for the disk.

    `claim_key` is the Idempotency-Key of the next claim. `previous` has the tasks of the previous
    run that have no final outcome. `settled_before` are the keys of those that it settled, and
    `unmarked` the settled messages, as long as the outbox may not show it. Until the file was read
    and `readable` is set, nothing is written or may be claimed, and `unread` says why. While it
    cannot be written all goes on in memory, and the next `sync` writes everything.
    """

    def __init__(self, state: StateDirectory) -> None:
        """Read what the previous run left; raises ConfigError when that needs a person."""
        super().__init__(state, state.path / "journal")
        self._tasks, self.previous = dict[str, TaskRecord](), dict[str, TaskRecord]()
        self.settled_before, self.unmarked = set[str](), set[Message]()
        self.claim_key = self.unread = ""
        self.readable = Event()
        self._waiting: list[Callable[[], None]] = []
        self.read()

    def read(self) -> None:
        """Read the file, if that was not done yet and can be done now; raises ConfigError."""
        if self.readable.is_set():
            return
        try:
            content = self._state.run(read_if_there, self._path)
        except StateUnusable as error:
            if whose(error) is Whose.OWNER:
                advice = "make the journal a file that this user can read, or set another STATE_DIR"
                raise ConfigError(f"{error}: {advice}") from error
            if not self.unread:
                log.error("the journal cannot be read: nothing is claimed", error=str(error))
            self.unread = str(error)
            return
        if content is not None:
            self._take(content)
        # The line with the next key may be damaged: the key of a known task would bring that task.
        if self.claim_key in {"", *self._tasks, *self.settled_before}:
            self.claim_key = str(uuid.uuid4())
        self.previous = dict(self._tasks)
        self.unread = ""
        self.readable.set()
        while self._waiting:
            self._waiting.pop(0)()

    def when_read(self, call: Callable[[], None]) -> None:
        """Make a call now, or once the file was read."""
        if self.readable.is_set():
            call()
        else:
            self._waiting.append(call)

    def unsettled(self) -> list[TaskRecord]:
        """The tasks that are not settled, in the order of their claims."""
        return list(self._tasks.values())

    def has(self, claimed: Claimed) -> bool:
        """Whether the agent runs this task, or has an outcome of it that waits."""
        return any(claimed.is_same(each.claimed) for each in self._of_number(claimed))

    def of(self, claimed: Claimed) -> TaskRecord:
        """The record of a task; an empty one, which is not kept, if the task is settled."""
        return self._tasks.get(claimed.key) or TaskRecord(claimed)

    def note(self, record: TaskRecord) -> None:
        """Note what was changed in the record of a task that is not settled."""
        if record.claimed.key in self._tasks:
            self.append(to_json(_JournalLine(task=record)))

    def record_claim(self, claimed: Claimed) -> None:
        """Note a task, which replaces others of its number, and the key for the next claim."""
        self._replace_others(claimed)
        record = self._tasks[claimed.key] = TaskRecord(claimed.without_payload)
        self.renew_claim_key(record)

    def enter(self, claimed: Claimed) -> None:
        """Take in a task whose line was lost; another one that has its number is a later one."""
        if claimed.key not in self._tasks:
            others = [each.claimed for each in self._of_number(claimed)]
            record = TaskRecord(claimed, replaced=not all(map(claimed.is_same, others)))
            self._tasks[claimed.key] = self.previous[claimed.key] = record
            self.note(record)
        if claimed.key == self.claim_key:
            self.renew_claim_key()

    def renew_claim_key(self, task: TaskRecord | None = None) -> None:
        """Note a new key, and the task that the claim with the old one brought, if it is new."""
        self.claim_key = str(uuid.uuid4())
        self.append(to_json(_JournalLine(key=self.claim_key, task=task)))

    def mark_delivered(self, claimed: Claimed, is_final: bool, served: bool = False) -> None:
        """Note that the Manager has an outcome; after a final one nothing is left to report."""
        record = self.of(claimed)
        if not is_final:
            record.reported, record.served = True, record.served or served
            self.note(record)
        elif self._tasks.pop(claimed.key, None):
            self.previous.pop(claimed.key, None)
            self.append(to_json(_JournalLine(settled=claimed.key)))

    def _take(self, content: bytes) -> None:
        """Take over what the file has, except for its damaged lines."""
        damaged = 0
        for raw in content.splitlines():
            try:
                line = msgspec.json.decode(unframe(raw), type=_JournalLine)
            except ValueError:
                damaged += 1
                continue
            self.claim_key = line.key or self.claim_key
            if line.settled:
                self.settled_before.add(line.settled)
                self._tasks.pop(line.settled, None)
            if line.task:
                self._replace_others(line.task.claimed)
                self._tasks[line.task.claimed.key] = line.task
        # A journal that the agent wrote has at least one key.
        if damaged or not self.claim_key:
            self.damaged = aside = self._state.rejected / f"journal.{uuid.uuid4()}"
            log.error("the journal has damaged lines", lines=damaged, set_aside=str(aside))

    def _replace_others(self, claimed: Claimed) -> None:
        """A new task takes its number away from all others."""
        if claimed.key not in self._tasks:
            for record in self._of_number(claimed):
                record.replaced = True
                self.note(record)

    def _of_number(self, claimed: Claimed) -> list[TaskRecord]:
        there = [each for each in self._tasks.values() if not each.replaced]
        return [each for each in there if each.claimed.task.id == claimed.task.id]

    def useful_lines(self) -> list[bytes]:
        """The next key, the tasks that are not settled, and the ends that no record shows yet."""
        if not self.readable.is_set():
            raise StateUnusable(f"the journal cannot be read: {self.unread}")
        tasks = [_JournalLine(task=task) for task in self.unsettled()]
        keys = self.settled_before.union(message.claimed.key for message in self.unmarked)
        ends = [_JournalLine(settled=key) for key in keys - self._tasks.keys()]
        return [to_json(each) for each in (_JournalLine(key=self.claim_key), *tasks, *ends)]
