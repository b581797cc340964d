"""Logging: one JSON object a line, and the key never in it. `writer` takes the lines away."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agent.logs.writer import STDOUT, LineWriter, stamp, to_json


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
            stamp,
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


def in_colour() -> bool:
    """Whether stdout is for colours: a terminal, of somebody who has not said NO_COLOR."""
    return os.isatty(STDOUT) and not os.environ.get("NO_COLOR")


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
            colors=in_colour(),
            event_key="message",
            exception_formatter=structlog.dev.plain_traceback,
        )
    return structlog.processors.JSONRenderer(serializer=to_json)
