"""Logging: one JSON object a line, without the registration key. `writer` writes the lines."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agent.logs.writer import STDOUT, LineWriter, stamp, to_json


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
            partial(_add_agent_name, agent_name),
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            partial(_redact, secret),
            _renderer(style),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *args: writer,
        cache_logger_on_first_use=False,
    )
    return writer


def silence_logging() -> None:
    """Log nothing, for a command that prints its own lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))


def stdout_has_colors() -> bool:
    """Whether stdout is a terminal and NO_COLOR is not set."""
    return os.isatty(STDOUT) and not os.environ.get("NO_COLOR")


def _add_agent_name(agent_name: str, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {**event, "agent_name": agent_name}


def _redact(secret: Callable[[], str], _: WrappedLogger, __: str, event: EventDict) -> EventDict:
    key = secret()
    return {name: _without(key, value) for name, value in event.items()}


def _without(key: str, value: Any) -> Any:
    """`value` with the key removed from each text; what is not a JSON value becomes a text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): _without(key, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without(key, item) for item in value]
    # A file name need not be UTF-8, but a log line must be.
    text = str(value).encode(errors="backslashreplace").decode()
    return text.replace(key, "[hidden]") if key else text


def _renderer(style: str) -> Processor:
    if style == "console":
        return structlog.dev.ConsoleRenderer(
            colors=stdout_has_colors(),
            event_key="message",
            exception_formatter=structlog.dev.plain_traceback,
        )
    return structlog.processors.JSONRenderer(serializer=to_json)
