"""A file of lines that many append to, and that one write and one fdatasync serve."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gevent
from gevent.lock import BoundedSemaphore

from agent.errors import StateUnusable
from agent.files import link_or_copy, write_whole
from agent.state.directory import StateDirectory
from agent.state.records import frame

# The file is rewritten when it has this many lines more than are of use.
SPARE_LINES = 1000


class AppendedFile:
    """The lines of one file; `useful` gives those that a file written anew has to have.

    `damaged` is where a file goes that has unreadable lines, before it is written anew.
    """

    def __init__(
        self, state: StateDirectory, path: Path, useful: Callable[[], list[bytes]]
    ) -> None:
        self._state, self._path, self._useful = state, path, useful
        self._file = -1
        # Held while lines are written, and while they are synced, for which no write waits.
        self._writing, self._syncing = BoundedSemaphore(), BoundedSemaphore()
        # False while the file may end in a torn line, after which nothing may be appended.
        self._is_whole = False
        self._pending: list[bytes] = []
        self._lines = self._noted = self._written = self._synced = 0
        self.damaged: Path | None = None

    def note(self, line: bytes) -> None:
        """Note a line, and return at once; the file has it a moment later."""
        self._pending.append(frame(line))
        self._noted += 1
        if len(self._pending) == 1:
            gevent.spawn(self._write_soon)

    def write(self) -> None:
        """Return when the file has what was noted, which then survives the agent's end.

        Raises StateUnusable.
        """
        with self._writing:
            if not self._is_whole:
                self._rewrite()
            elif self._pending:
                noted, lines, self._pending = self._noted, self._pending, []
                self._lines += len(lines)
                # Until it has succeeded, the file may end anywhere.
                self._is_whole = False
                self._state.write(_append, self._file, b"".join(lines))
                self._is_whole, self._written = True, noted

    def sync(self) -> None:
        """Return when all that was noted so far is on the disk; raises StateUnusable."""
        noted = self._noted
        with self._syncing:
            if self._synced >= noted and self._is_whole:
                return
            if self._lines > SPARE_LINES:
                self._is_whole = False
            self.write()
            written = self._written
            if self._synced < written:
                try:
                    with self._writing:
                        # A duplicate, as the file may be written anew during the sync.
                        descriptor = self._state.write(os.dup, self._file)
                    self._state.write(_sync_and_close, descriptor)
                except StateUnusable:
                    self._is_whole = False
                    raise
                self._synced = written

    def _write_soon(self) -> None:
        with suppress(StateUnusable):
            self.write()

    def _rewrite(self) -> None:
        """Replace the file by one that has what is of use."""
        if self.damaged:
            self._state.write(_set_aside, self._path, self.damaged)
            self.damaged = None
        noted, self._pending, self._lines = self._noted, [], 0
        self._state.write(write_whole, self._path, b"".join(map(frame, self._useful())))
        fresh = self._state.write(os.open, self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        before, self._file, self._is_whole = self._file, fresh, True
        if before >= 0:
            # What an NFS reports only now was written again.
            with suppress(OSError):
                os.close(before)
        self._written = self._synced = noted


def _append(descriptor: int, data: bytes) -> None:
    if not os.fstat(descriptor).st_nlink:
        raise OSError("somebody has removed the journal")
    while data:
        data = data[os.write(descriptor, data) :]


def _set_aside(path: Path, aside: Path) -> None:
    with suppress(FileNotFoundError, FileExistsError):
        link_or_copy(path, aside)


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
