"""`agent-run --check`: says line by line what is well and what is not, and changes nothing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from agent import host
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


def findings(config: Config) -> Iterator[Finding]:
    """Look at what the agent needs, one thing after the other."""
    yield Finding("configuration", f"agent {config.agent_name}, key is set")
    yield _state(config)
    yield _iperf3(config)
    yield from _manager(config)


def _state(config: Config) -> Finding:
    """The state directory, or the nearest one above it that exists, must be writable."""
    path = config.state
    nearest = path
    while not nearest.exists():
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return Finding("state directory", str(path) if nearest == path else f"{path} can be made")
    advice = "set STATE_DIR to a directory that this user can write"
    return Finding("state directory", f"{path} cannot be written: {advice}", "settings")


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
        yield Finding("address", f"{address} is what the Manager is told")
        ManagerClient(manager_access(config, Key(config))).healthz()
    except OSError as error:
        yield Finding("Manager", f"{url}: no route: {error}: check MANAGER_URL", "manager")
    except ManagerError as error:
        yield Finding("Manager", f"{url}: {error}: check MANAGER_URL and the network", "manager")
    else:
        yield Finding("Manager", f"{url} answers")
