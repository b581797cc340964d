"""What a server writes: the documents of the tests that it served."""

import errno
import os
from collections import deque
from contextlib import suppress
from pathlib import Path

import gevent
import structlog
from msgspec.structs import replace

from agent.files import Whose, link_or_copy, whose
from agent.iperf3.documents import mended
from agent.iperf3.verdict import Served, last_served
from agent.iperf3.warnings import rate_warnings
from agent.logs.outage import Outage, lost
from agent.process.output import find_data, free_start, in_thread, overwrite, size_of, view_of
from agent.protocol import Claimed, Document, Figures, utc_now

# What a server's output says before it has served a test.
NO_TEST = last_served(b"")
_NOT_OF_A_TEST = ("interrupt - ", "unable to receive cookie", "unable to receive parameters")
_NOT_KEPT = "the document of a served test cannot be kept"
# How often the rest is read while the host is short of descriptors, and every how many seconds.
TRIES, PAUSE = 5, 1.0

log = structlog.get_logger()


def server_output(children: Path, claimed: Claimed) -> Path:
    """Where the server of a task writes; another Manager's task of its number has another key."""
    return children / f"{claimed.task.id}.{claimed.key}.json"


def served_file(stdout: Path) -> Path:
    """Where the newest document of a served test is kept, beside the server's own output."""
    return stdout.with_suffix(".served")


def newest_served(stdout: Path) -> Document | None:
    """The newest document that a server of a previous run left, as far as it can be read."""
    with lost("the output of a server cannot be read"), suppress(FileNotFoundError):
        # The documents before that were copied out of it, and their space was given back.
        start = find_data(stdout)
        if span := _look(stdout, start)[1].span:
            return Document(str(stdout), start + span[0], start + span[1])
    path = served_file(stdout)
    with lost("the document of a served test is lost"), suppress(FileNotFoundError):
        return Document(str(path), 0, path.stat().st_size)
    return None


class ServedTests:
    """The tests that a running server has served, read from its output.

    `read_up_to` is how many bytes need not be read again; `copy` is in use while a document is
    copied; `newest` is the newest test's document, and `last` what the output had when that was
    read; `tests` are to be reported now, each with that. `may_lack_some` says that a part could
    not be read or kept, `incomplete` is how a document without an end begins. The newest document
    `is_due` until it has a name of its own for its report, which a full disk may refuse it.
    """

    def __init__(self, stdout: Path) -> None:
        self._stdout = stdout
        self.copy = stdout.with_suffix(".fresh")
        self.newest: Document | None = None
        self.last = NO_TEST
        self.tests: deque[tuple[Document, Served]] = deque()
        self.incomplete = ""
        self.may_lack_some = self._has_skipped = self._is_due = False
        self._size_read = self.read_up_to = 0
        self._outage = Outage("what the server serves can be kept again")
        # What iperf3 said of tests that failed, and when it last did; up to where that was noted.
        self._failures: dict[str, str] = {}
        self._noted_up_to = -1

    def look(self, size: int, trouble: str) -> bool:
        """Read up to byte `size` at least, unless the disk has `trouble`.

        False after an error of the disk as well: the next look tries again.
        """
        if size > self._size_read and trouble:
            self._outage.record_failure(_NOT_KEPT, OSError(trouble))
        elif size > self._size_read or (self._is_due and not trouble):
            self.read()
        return size <= self._size_read and not self._is_due

    def read(self) -> OSError | None:
        """Keep the newest document of the output, if there is a new one, and have it reported.

        After an error of the disk, which it returns, the next call tries again.
        """
        size = in_thread(size_of, self._stdout)
        error = self._read_up_to(size) if size != self._size_read else None
        return error or (self._give_newest() if self._is_due else None)

    def _read_up_to(self, size: int) -> OSError | None:
        """Copy the newest document out of the output; returns an error of the disk.

        A part with a sector that cannot be read is skipped, as the tests to come may be read.
        """
        try:
            served, copied = in_thread(self._keep_newest)
        except OSError as error:
            self._outage.record_failure(_NOT_KEPT, error)
            self.may_lack_some = True
            # The file tells it from an error of writing the copy.
            if (error.errno, error.filename) == (errno.EIO, str(self._stdout)):
                self._has_skipped = True
                self.read_up_to = self._size_read = size
            return error
        for place, error_class, words in served.failed:
            place += self.read_up_to
            # The last document is read again.
            if place > self._noted_up_to and not words.startswith(_NOT_OF_A_TEST):
                self._noted_up_to = place
                log.warning("a test failed on this server", error_class=error_class, error=words)
                self._failures[words] = utc_now()
        self.may_lack_some = self._has_skipped
        self.read_up_to += served.done
        self._size_read = size
        self.incomplete = served.unread[-1]
        if copied:
            earlier = self.last.moved if self._is_due else []
            self.newest = Document(str(served_file(self._stdout)), 0, copied)
            self.last = replace(served, moved=earlier + served.moved)
            self._is_due = True
        return None

    def _give_newest(self) -> OSError | None:
        """Give the newest document to a report, which takes its file; returns an error of it."""
        assert self.newest
        # Each test is read up to another place.
        own = Path(f"{self.newest.path}.{self.read_up_to}")
        try:
            in_thread(link_or_copy, self.newest.path, own)
        except OSError as error:
            self._outage.record_failure(_NOT_KEPT, error)
            return error
        self._outage.record_success()
        self._is_due = False
        self.tests.append((replace(self.newest, path=str(own)), self.last))
        return None

    def read_rest(self) -> None:
        """Read what an ended server has written; for a while again if the host is short now."""
        for _ in range(TRIES):
            if whose(self.read()) is not Whose.HOST:
                break
            gevent.sleep(PAUSE)
        if self.incomplete:
            log.warning("iperf3 wrote JSON that cannot be read", beginning=self.incomplete)

    def doubts(self, test: Served) -> list[str]:
        """What to know of a test's figures, and of the tests that failed."""
        failed = [f"a test failed here at {at}: {why}" for why, at in self._failures.items()]
        cut = [f"The test was cut short: {test.error}."] if test.figures and test.error else []
        return [*rate_warnings(test.figures or Figures()), *cut, *failed]

    def _keep_newest(self) -> tuple[Served, int]:
        """Copy the newest document; returns its size, too. A link to the one before stays."""
        output, served = _look(self._stdout, self.read_up_to)
        size = 0
        if served.span:
            with open(self.copy, "wb") as file:
                size = file.write(output[slice(*served.span)])
            os.replace(self.copy, served_file(self._stdout))
        free_start(self._stdout, self.read_up_to + served.done)
        return served, size


def _look(stdout: Path, start: int) -> tuple[memoryview, Served]:
    """What a server wrote from byte `start` on, mended if need be. It may be writing."""
    output = view_of(stdout, start)
    served = last_served(output)
    if any(served.unread) and overwrite(stdout, start, mended(output)):
        log.warning("a server's JSON was mended")
        output = view_of(stdout, start)
        served = last_served(output)
    for beginning in filter(None, served.unread[:-1]):
        log.warning("iperf3 wrote JSON that cannot be read", beginning=beginning)
    return output, served
