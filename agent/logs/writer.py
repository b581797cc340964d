"""Log lines go to stdout and a file, written by a native thread and never by the hub.

A full pipe (a stopped `journalctl`, a paused terminal) would block every greenlet at the write.
The lines wait in a bounded queue. Those that do not fit are counted, and the count is written
once there is room again.
"""

import os
from _queue import Empty, SimpleQueue  # gevent replaces the classes in `queue`
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from typing import Any

import msgspec
import structlog
from gevent.monkey import get_original
from structlog.typing import EventDict

MAX_PENDING_LINES = 10_000
MAX_PENDING_BYTES = 16 * 1024**2
STDOUT = 1
# The journal's priorities are those of syslog.
CRITICAL, ERROR, WARNING, INFO, DEBUG = 2, 3, 4, 6, 7
_FIRST_NAMES = ("timestamp", "level", "message")
# Removes a progress bar from a terminal's last line: carriage return, clear to the end of line.
CLEAR_LINE = b"\r\x1b[K"

stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)


class LineWriter:
    """Writes lines to stdout, and to `log_file` if given, from a native thread.

    structlog calls the method named after the level. If stdout goes to the journal, each line
    starts with its priority in the journal's notation: `<3>` for an error.
    """

    def __init__(self, log_file: Path | None = None) -> None:
        """Start the thread. Raises OSError if the log file cannot be opened."""
        self._file = LogFile(log_file) if log_file else None
        self._before = CLEAR_LINE if os.isatty(STDOUT) else b""
        # systemd names its stream there: see systemd.exec(5).
        status = os.fstat(STDOUT)
        self._to_journal = os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
        self._lines: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        self._finished: SimpleQueue[None] = SimpleQueue()
        self._dropped = 0
        # Bytes. Each has one thread that changes it; the difference is what waits.
        self._queued = self._written = 0
        get_original("_thread", "start_new_thread")(self._write_lines, ())

    def write(self, line: str, priority: int = INFO) -> None:
        """Queue a line and return at once. If too much waits, it is dropped and counted."""
        data = line.encode(errors="backslashreplace") + b"\n"
        pending = self._queued - self._written + len(data)
        if self._lines.qsize() >= MAX_PENDING_LINES or pending > MAX_PENDING_BYTES:
            self._dropped += 1
            return
        self._report_dropped()
        self._put(data, priority)

    debug = partialmethod(write, priority=DEBUG)
    info = partialmethod(write, priority=INFO)
    warning = partialmethod(write, priority=WARNING)
    error = partialmethod(write, priority=ERROR)
    critical = partialmethod(write, priority=CRITICAL)

    def close(self, timeout: float = 1.0) -> bool:
        """Write the queued lines within `timeout` seconds; False if the time was too short."""
        self._report_dropped()
        self._lines.put(None)
        try:
            self._finished.get(timeout=timeout)
        except Empty:
            return False
        return True

    def _report_dropped(self) -> None:
        if self._dropped:
            event = {"level": "warning", "message": "log lines dropped", "count": self._dropped}
            self._put(to_json(stamp(None, "warning", event)).encode() + b"\n", WARNING)
            self._dropped = 0

    def _put(self, data: bytes, priority: int) -> None:
        self._queued += len(data)
        self._lines.put((priority, data))

    def _write_lines(self) -> None:
        while (item := self._lines.get()) is not None:
            priority, data = item
            shown = data
            if self._to_journal:
                prefix = b"<%d>" % priority
                # The journal makes an entry of each line of a traceback.
                shown = prefix + data[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
            _write_all(STDOUT, self._before + shown)
            if self._file:
                self._file.write(data)
            self._written += len(data)
        self._finished.put(None)


class LogFile:
    """The log file. Only the writer's thread writes it.

    It is opened again once its name belongs to another file or to none: logrotate renames the
    file, or copies and then empties it.
    """

    def __init__(self, path: Path) -> None:
        """Open it; raises OSError."""
        self._path = path
        self._ends_amid_line = False
        self._descriptor = self._open()

    def write(self, data: bytes) -> None:
        """Write a line. A line that a full disk cut short is ended before the next one."""
        self._follow_name()
        if self._ends_amid_line:
            data = b"\n" + data
        left = _write_all(self._descriptor, data)
        if left < len(data):
            self._ends_amid_line = left > 0

    def _open(self) -> int:
        # A named pipe that nobody reads would make the open wait; now it fails.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o640)
        os.set_blocking(descriptor, True)
        return descriptor

    def _follow_name(self) -> None:
        """Open the file that has the name now; keep the old one if that is not possible."""
        try:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                    return
            descriptor = self._open()
        except OSError:
            return
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._ends_amid_line = False


def _write_all(descriptor: int, data: bytes) -> int:
    """Write the data; returns how many bytes are left.

    Errors are ignored: without a reader or on a full disk there is no place to report them.
    """
    with suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]
    return len(data)


def to_json(event: EventDict, **_: Any) -> str:
    """A line with time, level and message first; values that JSON does not have become texts."""
    first = {name: event[name] for name in _FIRST_NAMES}
    return msgspec.json.encode({**first, **event}, enc_hook=str).decode()
