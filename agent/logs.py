"""Logging: one JSON object a line, the key never in it, and the hub never waiting for a reader.

A full pipe (a stopped `journalctl`, a terminal that was paused) would block every greenlet at the
write, so a native thread does the writing, from a bounded queue. Lines that do not fit are
counted, and the count is written when there is room again.
"""

import os
from _queue import Empty, SimpleQueue  # gevent replaces the names in `queue` by its own
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
from gevent.monkey import get_original
from structlog.typing import EventDict, Processor, WrappedLogger

MAX_PENDING_LINES = 10_000
STDOUT = 1
_FIRST_NAMES = ("timestamp", "level", "message")
_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
# A progress bar may stand on a terminal's last line: go to its start and clear it.
CLEAR_LINE = b"\r\x1b[K"


class LineWriter:
    """Writes lines to stdout, and to `log_file` if given, from a native thread.

    structlog calls the method named after the level; they are all the same.
    """

    def __init__(self, log_file: Path | None = None) -> None:
        self._file = -1
        if log_file:
            self._file = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._before = CLEAR_LINE if os.isatty(STDOUT) else b""
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._finished: SimpleQueue[None] = SimpleQueue()
        self._dropped = 0
        get_original("_thread", "start_new_thread")(self._write_lines, ())

    def write(self, line: str) -> None:
        """Queue one line and return at once; with too many waiting it is dropped and counted."""
        if self._lines.qsize() >= MAX_PENDING_LINES:
            self._dropped += 1
            return
        self._tell_dropped()
        self._lines.put(line)

    debug = info = warning = error = critical = write

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
            self._lines.put(_to_json(_stamp(None, "warning", event)))
            self._dropped = 0

    def _write_lines(self) -> None:
        while (line := self._lines.get()) is not None:
            data = line.encode(errors="backslashreplace") + b"\n"
            _write_all(STDOUT, self._before + data)
            if self._file >= 0:
                _write_all(self._file, data)
        self._finished.put(None)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write one line; where the reader has gone or the disk is full, there is nobody to tell."""
    write = get_original("os", "write")
    try:
        while data:
            data = data[write(descriptor, data) :]
    except OSError:
        return


def configure(
    level: str,
    style: str,
    agent_name: str,
    secret: Callable[[], str],
    log_file: Path | None = None,
) -> LineWriter:
    """Set structlog up for the whole process; close the returned writer as the last thing.

    `level` is debug, info, warning or error, `style` is json or console. `secret` gives the
    registration key as it is now; whatever is logged, each text that holds it loses it. Raises
    OSError when `log_file` cannot be opened.
    """
    writer = LineWriter(log_file)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _named(agent_name),
            structlog.processors.add_log_level,
            _stamp,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _redacting(secret),
            _renderer(style),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *args: writer,
        cache_logger_on_first_use=False,
    )
    return writer


def silence() -> None:
    """Log nothing: for a command that speaks for itself."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))


def _named(agent_name: str) -> Processor:
    def add_agent_name(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["agent_name"] = agent_name
        return event

    return add_agent_name


def _redacting(secret: Callable[[], str]) -> Processor:
    def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        key = secret()
        return {name: _without(key, value) for name, value in event.items()}

    return redact


def _without(key: str, value: Any) -> Any:
    """`value` with the key cut out of each text in it; what is no JSON value becomes a text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): _without(key, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without(key, item) for item in value]
    # A name of a file need not be UTF-8, but a line of the log is.
    text = str(value).encode(errors="backslashreplace").decode()
    return text.replace(key, "[hidden]") if key else text


def _renderer(style: str) -> Processor:
    if style == "console":
        return structlog.dev.ConsoleRenderer(
            colors=os.isatty(STDOUT),
            event_key="message",
            exception_formatter=structlog.dev.plain_traceback,
        )
    return structlog.processors.JSONRenderer(serializer=_to_json)


def _to_json(event: EventDict, **_: Any) -> str:
    first = {name: event[name] for name in _FIRST_NAMES}
    return msgspec.json.encode({**first, **event}, enc_hook=str).decode()
