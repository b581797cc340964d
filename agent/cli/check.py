"""`agent-run --check`: says line by line what is well and what is not, and changes nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from agent import files, host
from agent.config.key import Key
from agent.config.settings import Config
from agent.errors import ManagerError, TaskError
from agent.logs.setup import silence_logging, stdout_has_colors
from agent.manager.access import manager_access
from agent.manager.api import ManagerClient
from agent.tasks.installed import InstalledIperf3


@dataclass(frozen=True)
class Finding:
    """One line of the check. `fault` is "" when all is well, else "settings" or "manager"."""

    what: str
    says: str
    fault: str = ""


def check(config: Config, wrong: Mapping[str, str], as_json: bool) -> set[str]:
    """Print a line for each finding, as a JSON object or in words; returns the faults.

    `wrong` are the faults of the settings themselves, by variable, as `config.survey` has them.
    """
    silence_logging()
    faults = set()
    for finding in _findings(config, wrong):
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
        click.echo(line, color=stdout_has_colors())
        faults.add(finding.fault)
    return faults - {""}


def _findings(config: Config, wrong: Mapping[str, str]) -> Iterator[Finding]:
    """Look at what the agent needs, one thing after the other, where its settings are right."""
    for fault in wrong.values():
        yield Finding("configuration", fault, "settings")
    if not wrong:
        yield Finding("configuration", f"agent {config.agent_name}, key is set")
    if not wrong.keys() & {"STATE_DIR", "AGENT_NAME"}:
        yield _state(config)
    if config.log_file:
        yield Finding("log file", _to_be(config.log_file))
    yield _iperf3(config)
    if not any(variable.startswith("MANAGER_") for variable in wrong):
        yield from _manager(config)


def _state(config: Config) -> Finding:
    """The state directory. An agent starts with it on a read-only disk, and tests nothing."""
    path = config.state
    if files.is_writable_directory(path):
        return Finding("state directory", _to_be(path))
    advice = "mend that, or set STATE_DIR to a directory that this user can write"
    return Finding("state directory", f"{path} is on a read-only disk: {advice}", "settings")


def _to_be(path: Path) -> str:
    return str(path) if files.nearest(path) == path else f"{path} can be made"


def _iperf3(config: Config) -> Finding:
    try:
        found = InstalledIperf3(config.iperf3_path).ask()
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
        key = Key(config.agent_key, config.agent_key_file)
        ManagerClient(manager_access(config, key)).check_health()
    except OSError as error:
        yield Finding("Manager", f"{url}: no route: {error}: check MANAGER_URL", "manager")
    except ManagerError as error:
        yield Finding("Manager", f"{url}: {error}: check MANAGER_URL and the network", "manager")
    else:
        yield Finding("Manager", f"{url} answers")
