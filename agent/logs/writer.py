"""Where log lines go: stdout and a file, written by a native thread and never by the hub.

A full pipe (a stopped `journalctl`, a terminal that was paused) would block every greenlet at the
write. The lines wait in a bounded queue; those that do not fit are counted, and the count is
written when there is room again.
"""

import os
import time
from _queue import Empty, SimpleQueue  # gevent replaces the names in `queue` by its own
from functools import partialmethod
from pathlib import Path
from typing import Any

import msgspec
import structlog
from gevent.monkey import get_original
from structlog.typing import EventDict

MAX_PENDING_LINES = 10_000
STDOUT = 1
# Seconds between two looks at which file the log file's name has.
LOG_FILE_LOOK = 1.0
# The journal's priorities, which are syslog's.
CRITICAL, ERROR, WARNING, INFO, DEBUG = 2, 3, 4, 6, 7
_FIRST_NAMES = ("timestamp", "level", "message")
# A progress bar may stand on a terminal's last line: go to its start and clear it.
CLEAR_LINE = b"\r\x1b[K"

stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)


class LineWriter:
    """Writes lines to stdout, and to `log_file` if given, from a native thread.

    structlog calls the method named after the level. Where stdout is the journal's, each line
    begins with its priority as the journal reads it: `<3>` for an error.
    """

    def __init__(self, log_file: Path | None = None) -> None:
        self._file = LogFile(log_file) if log_file else None
        self._before = CLEAR_LINE if os.isatty(STDOUT) else b""
        self._to_journal = _stdout_is_the_journals()
        self._lines: SimpleQueue[tuple[int, str] | None] = SimpleQueue()
        self._finished: SimpleQueue[None] = SimpleQueue()
        self._dropped = 0
        get_original("_thread", "start_new_thread")(self._write_lines, ())

    def write(self, line: str, priority: int = INFO) -> None:
        """Queue one line and return at once; with too many waiting it is dropped and counted."""
        if self._lines.qsize() >= MAX_PENDING_LINES:
            self._dropped += 1
            return
        self._tell_dropped()
        self._lines.put((priority, line))

    debug = partialmethod(write, priority=DEBUG)
    info = partialmethod(write, priority=INFO)
    warning = partialmethod(write, priority=WARNING)
    error = partialmethod(write, priority=ERROR)
    critical = partialmethod(write, priority=CRITICAL)

    def close(self, timeout: float = 1.0) -> bool:
        """Write what is queued, for at most `timeout` seconds; False when time ran out."""
        self._tell_dropped()
        self._lines.put(None)
        try:
            self._finished.get(timeout=timeout)
        except Empty:
            return False
        return True

    def _tell_dropped(self) -> None:
        if self._dropped:
            event = {"level": "warning", "message": "log lines dropped", "count": self._dropped}
            self._lines.put((WARNING, to_json(stamp(None, "warning", event))))
            self._dropped = 0

    def _write_lines(self) -> None:
        while (item := self._lines.get()) is not None:
            priority, line = item
            data = line.encode(errors="backslashreplace") + b"\n"
            _write_all(STDOUT, self._before + self._for_stdout(priority, data))
            if self._file:
                self._file.write(data)
        self._finished.put(None)

    def _for_stdout(self, priority: int, data: bytes) -> bytes:
        if not self._to_journal:
            return data
        prefix = b"<%d>" % priority
        # The journal makes an entry of each line of a traceback.
        return prefix + data[:-1].replace(b"\n", b"\n" + prefix) + b"\n"


class LogFile:
    """The file beside stdout. It is written by one native thread, and opened anew when another
    file, or none, has its name: logrotate renames it, or copies and then empties it.
    """

    def __init__(self, path: Path) -> None:
        """Open it; raises OSError."""
        self._path = path
        self._looked_at = time.monotonic()
        self._torn = False
        self._descriptor = self._open()

    def write(self, data: bytes) -> None:
        """Write one line; one that a full disk cut short is ended before the next."""
        self._look()
        if self._torn:
            data = b"\n" + data
        left = _write_all(self._descriptor, data)
        if left < len(data):
            self._torn = left > 0

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def _look(self) -> None:
        """See whether the name has another file now; without a new one the old one has to do."""
        now = time.monotonic()
        if now - self._looked_at < LOG_FILE_LOOK:
            return
        self._looked_at = now
        try:
            if _same_file(self._path, self._descriptor):
                return
            descriptor = self._open()
        except OSError:
            return
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._torn = False


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _stdout_is_the_journals() -> bool:
    """Whether systemd says so (`JOURNAL_STREAM`, systemd.exec(5)) of what stdout is by now."""
    status = os.fstat(STDOUT)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _write_all(descriptor: int, data: bytes) -> int:
    """Write one line; returns how many bytes of it are left.

    Where the reader has gone or the disk is full, there is nobody to tell.
    """
    write = get_original("os", "write")
    try:
        while data:
            data = data[write(descriptor, data) :]
    except OSError:
        pass
    return len(data)


def to_json(event: EventDict, **_: Any) -> str:
    """One line: time, level and message first; what JSON does not know becomes a text."""
    first = {name: event[name] for name in _FIRST_NAMES}
    return msgspec.json.encode({**first, **event}, enc_hook=str).decode()
