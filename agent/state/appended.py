"""A file of lines that many append to, and that one write and one fdatasync serve."""

import os
from contextlib import suppress
from pathlib import Path

import gevent
from gevent.lock import BoundedSemaphore
from gevent.util import wrap_errors

from agent.errors import StateUnusable
from agent.files import frame, link_or_copy, write_whole
from agent.state.directory import StateDirectory

# The file is rewritten when it has this many lines more than are of use.
SPARE_LINES = 1000


class AppendedFile:
    """The lines of one file. `damaged` is where one with damaged lines goes when it is replaced."""

    def __init__(self, state: StateDirectory, path: Path) -> None:
        self._state, self._path = state, path
        self.damaged: Path | None = None
        self._file = -1
        # Whether the file has to be written anew, as it may have a torn line or lack one.
        self._is_unsound = True
        self._pending: list[bytes] = []
        # It alone writes. No line that is written waits for an fdatasync.
        self._writer = gevent.Greenlet()
        self._syncing = BoundedSemaphore()
        # Counts of all lines: those in the file, and those of them on the disk.
        self._written = self._synced = self._rewrite_after = 0

    def useful_lines(self) -> list[bytes]:
        """The lines that a file written anew has to have; raises StateUnusable."""
        raise NotImplementedError

    def append(self, line: bytes) -> None:
        """Note a line, and return at once; the file has it a moment later."""
        self._pending.append(frame(line))
        self.write_soon()

    def write_soon(self) -> gevent.Greenlet:
        """The greenlet that writes what was noted; its value is None, or a StateUnusable."""
        if self._writer.ready():
            # Raises what is no failure of the disk: a bug ends the greenlet that notes the next.
            self._writer.get()
        if not self._writer:
            self._writer = gevent.spawn(wrap_errors(StateUnusable, self._write))
        return self._writer

    def sync(self) -> None:
        """Return when all that was noted so far is on the disk; raises StateUnusable."""
        with self._syncing:
            self._is_unsound |= self._written > self._rewrite_after
            if failure := self.write_soon().get():
                raise failure
            if self._synced < (written := self._written):
                try:
                    self._state.write(os.fdatasync, self._file)
                except StateUnusable:
                    self._is_unsound = True
                    raise
                self._synced = written

    def _write(self) -> None:
        while self._pending or self._is_unsound:
            lines, self._pending = self._pending, []
            is_unsound, self._is_unsound = self._is_unsound, False
            try:
                if is_unsound:
                    self._rewrite()
                else:
                    self._state.write(_append, self._file, b"".join(lines))
                    self._written += len(lines)
            except StateUnusable:
                self._is_unsound = True
                raise

    def _rewrite(self) -> None:
        lines, files = [*map(frame, self.useful_lines())], (self._path, self.damaged, self._file)
        self._file = self._state.write(_write_anew, lines, *files)
        self.damaged, self._synced = None, self._written
        self._rewrite_after = self._written + SPARE_LINES


def _append(descriptor: int, data: bytes) -> None:
    if not os.fstat(descriptor).st_nlink:
        raise OSError("somebody has removed the journal")
    while data:
        data = data[os.write(descriptor, data) :]


def _write_anew(lines: list[bytes], path: Path, aside: Path | None, descriptor: int) -> int:
    """Replace a file, and open it in the place of the old one's descriptor, if there is one."""
    if aside:
        with suppress(FileNotFoundError, FileExistsError):
            link_or_copy(path, aside)
    write_whole(path, lines)
    fresh = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    if descriptor < 0:
        return fresh
    # An fdatasync that is under way keeps its number. What fails for the old file is written.
    os.dup2(fresh, descriptor, inheritable=False)
    os.close(fresh)
    return descriptor
