"""The state directory: private, used by one agent at a time, written by native threads.

format      the number of this layout
lock        locked while an agent runs
journal     the tasks that were claimed and are not settled
children/   what running iperf3 children write
outbox/     results that the Manager does not have
rejected/   results that the Manager will never take, damaged files, and the reasons
kept/       whole documents of which the Manager took a smaller form
"""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog
from gevent.event import Event
from gevent.threadpool import ThreadPool
from gevent.util import wrap_errors

from agent.errors import ConfigError, StateLocked, StateUnusable
from agent.files import write_whole

FORMAT = "1"
# Seconds between two attempts to write in a directory that could not be written.
LOOK = 5.0
# More than one, so that the fsync of a large document does not hold up the journal.
THREADS = 4

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

log = structlog.get_logger()


class StateDirectory:
    """An opened and locked state directory.

    `trouble` says why a write failed, until `watch` finds that the directory can be written again.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Make the directory if need be, and lock it until this process ends.

        `max_bytes` is how much it may hold. Raises StateLocked when another process uses it,
        ConfigError when it cannot be written or has an unknown format.
        """
        self.path = path
        self.children = path / "children"
        self.outbox = path / "outbox"
        self.rejected = path / "rejected"
        self.kept = path / "kept"
        self.trouble = ""
        self._max_bytes = max_bytes
        self._runs = 0
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _open_lock(path / "lock")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _check_format(path)
            for below in (self.children, self.outbox, self.rejected, self.kept):
                below.mkdir(mode=0o700, exist_ok=True)
        except BlockingIOError as error:
            advice = "stop it, or give this one another AGENT_NAME or STATE_DIR"
            raise StateLocked(f"another agent runs in {path}: {advice}") from error
        except OSError as error:
            reason = f"{error.strerror}: must be a directory that this user can write"
            raise ConfigError(f"STATE_DIR {path} cannot be used: {reason}") from error
        self._threads = ThreadPool(THREADS)

    def run(
        self,
        function: Callable[_Arguments, _Result],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Result:
        """Run the function in a native thread while the hub turns; StateUnusable for OSError."""
        self._runs += 1
        # The pool would print the traceback of an error that is raised in it.
        found = self._threads.apply(wrap_errors(OSError, function), args, kwargs)
        if isinstance(found, OSError):
            if not self.trouble:
                log.error("the state directory cannot be written", path=self.path, error=str(found))
            self.trouble = str(found)
            raise StateUnusable(f"the state directory {self.path}: {found}") from found
        result: _Result = found
        return result

    def watch(self, recovered: Callable[[], None], stop: Event) -> None:
        """Until `stop`, try a directory again that could not be written, and enforce the quota.

        `recovered` is called when it can be written again, and may raise StateUnusable. The disk
        is left alone while nothing was read or written since the last look.
        """
        seen = -1
        while not stop.wait(LOOK):
            if self._runs == seen and not self.trouble:
                continue
            # The look itself counts as well.
            seen = self._runs + 1
            # A write that fails during the look is a new trouble, which this look did not try.
            tried = bool(self.trouble)
            try:
                self.run(self._look)
                if tried:
                    recovered()
                    self.trouble = ""
                    log.info("the state directory can be written again", path=self.path)
            except StateUnusable:
                continue

    def _look(self) -> None:
        """Try a write if one failed; remove the oldest kept documents while there are too many."""
        if self.trouble:
            write_whole(self.path / "writable", b"")
        files = sorted(self.kept.iterdir(), key=lambda file: file.stat().st_mtime)
        used = sum(_size(file) for file in self.path.rglob("*") if file.is_file())
        while used > self._max_bytes and files:
            used -= _size(files[0])
            files.pop(0).unlink()
        if used > self._max_bytes:
            advice = "empty rejected/, or raise STATE_MAX_BYTES"
            raise OSError(f"{used} bytes are over STATE_MAX_BYTES: {advice}")


def is_full(path: Path) -> bool:
    """Whether the file system of `path` has no space left for this user."""
    return os.statvfs(path).f_bavail == 0


def _size(file: Path) -> int:
    """The bytes that a file takes on the disk; 0 if it is gone by now."""
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _open_lock(path: Path) -> int:
    """A descriptor to lock.

    On a read-only file system it is open for reading only: NFS locks only what can be written.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _check_format(path: Path) -> None:
    marker = path / "format"
    if not marker.exists():
        write_whole(marker, f"{FORMAT}\n".encode())
    found = marker.read_text(errors="replace").strip()
    if found != FORMAT:
        advice = "use the version that wrote it, or another STATE_DIR"
        words = f"STATE_DIR {path} has the format {found!r}, and this version knows {FORMAT!r}"
        raise ConfigError(f"{words}: {advice}")
