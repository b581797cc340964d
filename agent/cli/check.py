"""`agent-run --check`: prints line by line what is right and what is wrong, and changes nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import structlog

from agent import files, host
from agent.config.key import weakness
from agent.config.settings import Config
from agent.errors import ManagerError, TaskError
from agent.logs.setup import stdout_has_colors
from agent.manager.api import ManagerClient
from agent.tasks.installed import InstalledIperf3
from agent.text import printable, to_json


@dataclass(frozen=True)
class Finding:
    """One line of the check. `fault` is "settings" or "manager", or empty if all is well."""

    name: str
    message: str
    fault: str = ""


def print_findings(config: Config, faults: Mapping[str, str]) -> set[str]:
    """Print a line for each finding, as JSON or in words; returns the kinds of fault found.

    `faults` are those of the settings, by variable, as `check_settings` returns them.
    """
    as_json = config.log_format == "json" and "LOG_FORMAT" not in faults
    # It prints lines of its own.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    kinds = set()
    for finding in _findings(config, faults):
        kinds.add(finding.fault)
        if as_json:
            line = {
                "check": finding.name,
                "ok": not finding.fault,
                "message": finding.message,
                "fault": finding.fault or None,
            }
            click.echo(to_json(line).decode())
        else:
            mark, color = ("not ok ", "red") if finding.fault else ("ok     ", "green")
            words = f"{click.style(mark, fg=color)} {finding.name:16} {printable(finding.message)}"
            click.echo(words, color=stdout_has_colors())
    return kinds - {""}


def _findings(config: Config, faults: Mapping[str, str]) -> Iterator[Finding]:
    """Check one thing after the other, except for what depends on a wrong setting."""
    for fault in faults.values():
        yield Finding("configuration", fault, "settings")
    if not faults:
        warning = weakness(config.agent_key)
        words = f"agent {config.agent_name}, key is set{warning and f'; {warning}'}"
        yield Finding("configuration", words)
    if not faults.keys() & {"STATE_DIR", "AGENT_NAME"}:
        yield _state_directory(config.state)
    if config.log_file:
        yield Finding("log file", _usable(config.log_file))
    try:
        found = InstalledIperf3(config.iperf3_path).ask()
        counts = Path("/proc/self/io").exists()
        whom = "servers as well" if counts else "clients only, as this host counts for no process"
        limits = f"MAX_BITRATE and MAX_TEST_SECONDS hold for {whom}"
        yield Finding("iperf3", f"{found.version} at {found.path}; {limits}")
    except TaskError as error:
        yield Finding("iperf3", str(error), "settings")
    if not any(variable.startswith("MANAGER_") for variable in faults):
        yield from _manager(config)


def _state_directory(path: Path) -> Finding:
    fault = ""
    if not files.is_writable_directory(path):
        # An agent starts there all the same, but runs no test.
        advice = "make it writable, or set STATE_DIR to a directory that this user can write"
        fault = f"{path} is on a read-only disk: {advice}"
    try:
        files.read_if_there(path / "journal")
    except OSError as error:
        fault = f"{error}: make it a file that this user can read, or set another STATE_DIR"
    return Finding("state directory", fault or _usable(path), "settings" if fault else "")


def _usable(path: Path) -> str:
    return str(path) if files.nearest(path) == path else f"{path} can be created"


def _manager(config: Config) -> Iterator[Finding]:
    url = config.manager_url
    try:
        address = config.advertise_address or host.local_address(url)
        message = f"the Manager is told {address}"
        if address.startswith("127.") or address == "::1":
            message += "; for tests with other hosts set ADVERTISE_ADDRESS"
        yield Finding("address", message)
        ManagerClient(config, lambda: config.agent_key).check_health()
    except OSError as error:
        yield Finding("Manager", f"{url}: no route: {error}: check MANAGER_URL", "manager")
    except ManagerError as error:
        yield Finding("Manager", f"{url}: {error}: check MANAGER_URL and the network", "manager")
    else:
        yield Finding("Manager", f"{url} answers")
