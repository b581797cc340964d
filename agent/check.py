"""`agent-run --check`: says line by line what is well and what is not, and changes nothing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from agent import host, logs
from agent.client import ManagerClient
from agent.config import Config, Key
from agent.errors import ManagerError, TaskError
from agent.lifecycle import manager_access
from agent.workbench import probe_iperf3


@dataclass(frozen=True)
class Finding:
    """One line of the check. `fault` is "" when all is well, else "settings" or "manager"."""

    what: str
    says: str
    fault: str = ""


def check(config: Config, as_json: bool) -> set[str]:
    """Print a line for each finding, as a JSON object or in words; returns the faults."""
    logs.silence()
    faults = set()
    for finding in _findings(config):
        if as_json:
            line = msgspec.json.encode(
                {
                    "check": finding.what,
                    "ok": not finding.fault,
                    "message": finding.says,
                    "fault": finding.fault or None,
                }
            ).decode()
        else:
            mark = (
                click.style("not ok ", fg="red")
                if finding.fault
                else click.style("ok     ", fg="green")
            )
            line = f"{mark} {finding.what:16} {finding.says}"
        click.echo(line, color=logs.in_colour())
        faults.add(finding.fault)
    return faults - {""}


def _findings(config: Config) -> Iterator[Finding]:
    """Look at what the agent needs, one thing after the other."""
    yield Finding("configuration", f"agent {config.agent_name}, key is set")
    yield _state(config)
    if config.log_file:
        yield _log_file(config.log_file)
    yield _iperf3(config)
    yield from _manager(config)


def _state(config: Config) -> Finding:
    """The state directory, or the nearest one above it that exists, must be writable."""
    path = config.state
    nearest = path
    # Path.exists() would raise where the way to it may not be walked.
    while not os.path.exists(nearest):
        nearest = nearest.parent
    if _takes_files(nearest):
        return Finding("state directory", str(path) if nearest == path else f"{path} can be made")
    advice = "set STATE_DIR to a directory that this user can write"
    return Finding("state directory", f"{path} cannot be written: {advice}", "settings")


def _log_file(path: Path) -> Finding:
    if os.access(path, os.W_OK) and not path.is_dir():
        return Finding("log file", str(path))
    if not os.path.lexists(path) and _takes_files(path.parent):
        return Finding("log file", f"{path} can be made")
    advice = "set LOG_FILE to a file that this user can write"
    return Finding("log file", f"{path} cannot be written: {advice}", "settings")


def _takes_files(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _iperf3(config: Config) -> Finding:
    try:
        found = probe_iperf3(config.iperf3_path)
    except TaskError as error:
        return Finding("iperf3", str(error), "settings")
    return Finding("iperf3", f"{found.version} at {found.path}")


def _manager(config: Config) -> Iterator[Finding]:
    url = config.manager_url
    try:
        address = config.advertise_address or host.local_address(url)
        says = f"{address} is what the Manager is told"
        if address.startswith("127.") or address == "::1":
            says += "; for tests with other hosts set ADVERTISE_ADDRESS"
        yield Finding("address", says)
        ManagerClient(manager_access(config, Key(config))).healthz()
    except OSError as error:
        yield Finding("Manager", f"{url}: no route: {error}: check MANAGER_URL", "manager")
    except ManagerError as error:
        yield Finding("Manager", f"{url}: {error}: check MANAGER_URL and the network", "manager")
    else:
        yield Finding("Manager", f"{url} answers")
