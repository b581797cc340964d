"""The state directory: private, used by one agent at a time, written by native threads.

format      the number of this layout
lock        locked while an agent runs, with its process id and its name
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
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import structlog

from agent.errors import ConfigError, StateLocked, StateUnusable
from agent.files import Whose, read_if_there, whose, write_whole
from agent.native_threads import NativeThreads

FORMAT = "1"
# At most; the journal must not wait while the outcomes of many tests are synced.
THREADS = 8

_Result = TypeVar("_Result")

log = structlog.get_logger()


class StateDirectory:
    """An opened and locked state directory.

    `trouble` says why a write failed, until all can be written. `runs` counts reads and writes.
    """

    def __init__(self, path: Path, agent: str = "") -> None:
        """Make the directory if need be, and lock it until this process ends, for that agent.

        Raises StateLocked when another process uses it, ConfigError when it cannot be written or
        has an unknown format, StateUnusable when the disk fails at the moment.
        """
        self.path, self.trouble, self.runs = path, "", 0
        self.children, self.outbox = path / "children", path / "outbox"
        self.rejected, self.kept = path / "rejected", path / "kept"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_format(path)
            self.make_directories()
            _lock(path / "lock", self.outbox, f"{os.getpid()} {agent}\n")
        except BlockingIOError as error:
            advice = "stop it, or give this one another AGENT_NAME or STATE_DIR"
            raise StateLocked(f"another agent runs in {path}: {advice}") from error
        except OSError as error:
            words = f"STATE_DIR {path} cannot be used: {error.strerror}"
            if whose(error) is Whose.HOST or error.errno in (errno.EIO, errno.ESTALE):
                raise StateUnusable(words) from error
            raise ConfigError(f"{words}: must be a directory that this user can write") from error
        self._threads = NativeThreads(THREADS)

    def run(self, function: Callable[..., _Result], *args: object) -> _Result:
        """Run the function in a native thread while the hub turns; StateUnusable for OSError."""
        self.runs += 1
        try:
            return self._threads.call(function, *args)
        except OSError as error:
            raise StateUnusable(f"the state directory {self.path}: {error}") from error

    def write(self, function: Callable[..., _Result], *args: object) -> _Result:
        """The same for a function that writes: a failure becomes the directory's `trouble`."""
        try:
            return self.run(function, *args)
        except StateUnusable as error:
            if whose(error) is not Whose.HOST:
                if not self.trouble:
                    words = "the state directory cannot be written"
                    log.error(words, path=self.path, error=str(error.__cause__))
                self.trouble = str(error.__cause__)
            raise

    def make_directories(self) -> None:
        """Make what is not there, or what somebody has removed; it blocks, and raises OSError."""
        for below in (self.children, self.outbox, self.rejected, self.kept):
            below.mkdir(mode=0o700, parents=True, exist_ok=True)


def locked_by(path: Path) -> str | None:
    """The words of the user of a locked file; None if it is not locked. Raises OSError."""
    with suppress(FileNotFoundError), open(path, errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read()
    return None


def _lock(path: Path, private: Path, user: str) -> None:
    """Lock a file until this process ends; raises OSError, BlockingIOError if it is locked.

    The file then has the user's words, if the disk takes them. A directory is locked as well, as
    somebody may remove the file. It must be private: whoever may open it can keep it locked.
    """
    flags, exclusively = os.O_RDONLY | os.O_CLOEXEC, fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        # NFS locks only what can be written.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        file = os.open(path, flags)
    fcntl.flock(file, exclusively)
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.write(file, user.encode())
    directory = os.open(private, flags)
    try:
        fcntl.flock(directory, exclusively)
    except OSError as error:
        # NFS locks no directory.
        if isinstance(error, BlockingIOError):
            raise


def _check_format(path: Path) -> None:
    marker = path / "format"
    if (content := read_if_there(marker)) is None:
        write_whole(marker, [f"{FORMAT}\n".encode()])
    elif (found := content.decode(errors="replace").strip()) != FORMAT:
        advice = "use the version that wrote it, or another STATE_DIR"
        words = f"STATE_DIR {path} has the format {found!r}, and this version knows {FORMAT!r}"
        raise ConfigError(f"{words}: {advice}")
