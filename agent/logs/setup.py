"""Logging: one JSON object a line, without the registration key. `writer` writes the lines."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from gevent.hub import Hub
from structlog.typing import Processor

from agent.logs.writer import STDOUT, LineWriter, stamp, to_json
from agent.text import encodable, map_texts, printable, shortened

# Characters of one text in a line, such as a traceback. A Manager's answer may have a megabyte.
MAX_TEXT = 16 * 1024

log = structlog.get_logger()


def configure_logging(
    level: str,
    style: str,
    agent_name: str,
    secret: Callable[[], str],
    log_file: Path | None = None,
) -> LineWriter:
    """Configure structlog for the whole process. The returned writer must be closed at the end.

    `level` is debug, info, warning or error, and `style` is json or console. `secret` returns
    the current registration key, which is removed from every text that is logged. Raises OSError
    if `log_file` cannot be opened.
    """
    writer = LineWriter(log_file)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            lambda _, __, event: {**event, "agent_name": agent_name},
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            lambda _, __, event: map_texts(partial(_without, secret()), event),
            _renderer(style),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *args: writer,
        cache_logger_on_first_use=False,
    )
    # gevent would print a traceback, which is no JSON, and may have the key in it.
    Hub.print_exception = _log_failure  # type: ignore[method-assign]
    return writer


def stdout_has_colors() -> bool:
    """Whether stdout is a terminal and NO_COLOR is not set."""
    return os.isatty(STDOUT) and not os.environ.get("NO_COLOR")


def _log_failure(_: Hub, context: object, *error: Any) -> None:
    """Log what no greenlet and no callback caught."""
    log.error("a bug: nobody caught an error", where=repr(context), exc_info=error)


def _without(key: str, text: str) -> str:
    """A text that can be encoded, has an end, and does not have the key in it."""
    plain = encodable(text)
    return shortened(plain.replace(key, "[hidden]") if key else plain, MAX_TEXT)


def _by_line(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _renderer(style: str) -> Processor:
    if style == "console":
        renderer = structlog.dev.ConsoleRenderer(
            colors=stdout_has_colors(),
            event_key="message",
            exception_formatter=structlog.dev.plain_traceback,
        )
        # What came from the Manager or from iperf3 must not steer the terminal.
        return lambda log, method, event: renderer(log, method, map_texts(_by_line, event))
    return structlog.processors.JSONRenderer(serializer=to_json)
