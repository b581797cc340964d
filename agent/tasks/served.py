"""What a server writes: the documents of the tests that it served."""

import os
from pathlib import Path

import gevent

from agent.iperf3.documents import Span
from agent.iperf3.verdict import last_served
from agent.logs.outage import Outage
from agent.process.output import find_data, free_start, map_file, size_of
from agent.protocol import Claimed, Document, Figures
from agent.state.directory import StateDirectory

COPY_BYTES = 1024**2
_NOT_KEPT = "the document of a served test cannot be kept"


def server_output(children: Path, claimed: Claimed) -> Path:
    """Where the server of a task writes.

    The claim's key in the name keeps it apart from another Manager's task of the same number.
    """
    return children / f"{claimed.task.id}.{claimed.key}.json"


def served_file(stdout: Path) -> Path:
    """Where the newest document of a served test is kept, beside the server's own output."""
    return stdout.with_suffix(".served")


def newest_served(stdout: Path) -> Document | None:
    """The newest document that a server of a previous run left; raises OSError."""
    if stdout.exists():
        # The documents before that were copied out of it, and their space was given back.
        start = find_data(stdout)
        with map_file(stdout, start) as output:
            span = last_served(output).span
        if span:
            return Document(str(stdout), start + span[0], start + span[1])
    kept = served_file(stdout)
    return _whole(kept) if kept.exists() else None


class ServedTests:
    """The tests that a running server has served, read from its output.

    `read_up_to` is how many bytes of it need not be read again; `copy` is a file in use while a
    document is copied out of it.
    """

    def __init__(self, state: StateDirectory, stdout: Path) -> None:
        self._state = state
        self._stdout = stdout
        self._newest = served_file(stdout)
        self.copy = stdout.with_suffix(".fresh")
        self._figures: Figures | None = None
        self._unreported = False
        self._reported = 0
        self._size_read = 0
        self._outage = Outage("what the server serves can be kept again")
        self.read_up_to = 0

    def read(self) -> None:
        """Copy the newest document out of the output, if there is a new one.

        After an error of the disk, the next call tries again.
        """
        size = size_of(self._stdout)
        if size == self._size_read:
            return
        try:
            with map_file(self._stdout, self.read_up_to) as output:
                # A large document takes a while.
                served = self._state.run(last_served, output)
                if served.span:
                    self._keep(output, served.span)
                    self._unreported, self._figures = True, served.figures
            self.read_up_to += served.done
            self._size_read = size
            free_start(self._stdout, self.read_up_to)
        except OSError as error:
            self._outage.record_failure(_NOT_KEPT, error)

    def take_unreported(self) -> tuple[Document, Figures | None] | None:
        """The newest document in a file of its own, and its figures; None when it was taken before.

        After an error of the disk it is None as well, and the next call tries again.
        """
        if not self._unreported:
            return None
        own = Path(f"{self._newest}.{self._reported + 1}")
        try:
            os.link(self._newest, own)
        except OSError as error:
            self._outage.record_failure(_NOT_KEPT, error)
            return None
        self._reported += 1
        self._unreported = False
        self._outage.record_success()
        return _whole(own), self._figures

    def newest(self) -> Document | None:
        """The newest document, whether it was reported or not."""
        return _whole(self._newest) if self._newest.exists() else None

    def _keep(self, output: memoryview, span: Span) -> None:
        """Make it the newest document; the outbox may still hold a link to the one before."""
        with output[slice(*span)] as document, open(self.copy, "wb") as file:
            for start in range(0, len(document), COPY_BYTES):
                file.write(document[start : start + COPY_BYTES])
                gevent.sleep(0)
        os.replace(self.copy, self._newest)


def _whole(path: Path) -> Document:
    return Document(str(path), 0, path.stat().st_size)
