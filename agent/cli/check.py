"""`agent-run --check`: prints line by line what is right and what is wrong, and changes nothing."""

from collections.abc import Iterator, Mapping
from itertools import chain

import click
import structlog

from agent.cli.host_check import Finding, check_host
from agent.cli.manager_check import check_manager
from agent.config.key import weakness
from agent.config.settings import Config
from agent.logs.setup import stdout_has_colors
from agent.text import printable, to_json

_MARKS = {"": ("ok", "green"), "warning": ("warning", "yellow")}


def print_findings(
    config: Config, faults: Mapping[str, str], slips: list[str], try_key: bool
) -> set[str]:
    """Print a line for each finding, as JSON or in words; returns the kinds of fault found.

    `faults` are those of the settings, by variable, as `check_settings` returns them, and `slips`
    what was written and is ignored. With `try_key` the agent is registered.
    """
    as_json = config.log_format == "json" and "LOG_FORMAT" not in faults
    # It prints lines of its own.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    kinds = set()
    ignored = (Finding("configuration", slip, "warning") for slip in slips)
    for finding in chain(ignored, _findings(config, faults, try_key)):
        kinds.add(finding.fault)
        if as_json:
            line = {
                "check": finding.name,
                "ok": finding.fault in _MARKS,
                "message": finding.message,
                "fault": finding.fault or None,
            }
            click.echo(to_json(line).decode())
        else:
            mark, color = _MARKS.get(finding.fault, ("not ok", "red"))
            mark = click.style(f"{mark:7}", fg=color)
            words = f"{mark} {finding.name:16} {printable(finding.message)}"
            click.echo(words, color=stdout_has_colors())
    return kinds


def _findings(config: Config, faults: Mapping[str, str], try_key: bool) -> Iterator[Finding]:
    for fault in faults.values():
        yield Finding("configuration", fault, "settings")
    if not faults:
        warning = weakness(config.agent_key)
        words = f"agent {config.agent_name}, key is set{warning and f'; {warning}'}"
        yield Finding("configuration", words)
    yield from check_host(config, faults)
    if not any(variable.startswith("MANAGER_") for variable in faults):
        yield from check_manager(config, try_key and not faults)
