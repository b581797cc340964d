"""Agents on a machine that is booted for a test, and the user data that put them there."""

from typing import Any

from agent import __version__
from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from agent.protocol import FINAL_STATUSES
from tests.support.harness import ROOT, free_port, until
from tests.support.machine import LONG, RELEASE, WHEELHOUSE, Machine, constraints, released
from tests.support.network import MANAGER, Network

UNIT = "iperf-agent.service"
# The lines that have pip install this version from the wheels of a release, and reach no index.
OFFLINE = (
    "--no-index",
    f"--find-links {RELEASE}/{WHEELHOUSE}",
    f"--constraint {RELEASE}/{WHEELHOUSE}/{constraints(__version__)}",
    f"iperf-orchestrator-agent=={__version__}",
)
INSTALL = "/opt/iperf-agent/install"
REQUIREMENTS = "/etc/iperf-agent/requirements.txt"
# Where the Manager of a Deployment listens.
MANAGER_PORT = 8000
_LINES = released("https://packages.example.com", __version__)
_NEXT_LINE = "\n      "


class Deployment:
    """A machine, and the Manager that its agents know."""

    def __init__(self, machine: Machine, store: Store, network: Network, name: str) -> None:
        """`name` is that of the agent of UNIT, of which the Manager knows."""
        self.machine = machine
        self.store = store
        self.network = network
        self.name = name
        self.store.agents.add(name, key_of(name))

    def is_online(self, name: str) -> bool:
        """Whether the Manager has heard of the agent within the last seconds."""
        agent = self.store.agents.named(name)
        return agent is not None and agent.status == "online"

    def give(self, name: str, key: str) -> None:
        """Put the files of another agent into place."""
        self.machine.write(f"etc/iperf-agent/{name}.env", f"MANAGER_URL={_manager()}\n")
        self.machine.write(f"etc/iperf-agent/{name}.key", f"{key}\n", 0o600)

    def retires(self, unit: str, pid: str) -> bool:
        """Whether the unit's process of that id has been told to."""
        lines = self.machine.output("journalctl", f"--unit={unit}", f"_PID={pid}", "--output=cat")
        return '"message":"agent retires"' in lines

    def is_new(self, unit: str, pid: str) -> bool:
        """Whether the unit is active with a process that is not the one of that id."""
        state = self.machine.state(unit, "ActiveState")
        return state == "active" and self.machine.state(unit, "MainPID") != pid

    def task(self, name: str, task_type: str, **payload: Any) -> ManagedTask:
        """A pending task for an agent."""
        agent = self.store.agents.named(name)
        assert agent
        return self.store.tasks.add(agent.id, task_type, payload)

    def ended(self, task: ManagedTask) -> ManagedTask:
        """Wait until the task has a final status."""
        until(lambda: task.status in FINAL_STATUSES, LONG)
        return task

    def server(self) -> int:
        """Start an iperf3 server on the agent of UNIT; returns its port."""
        port = free_port()
        started = self.ended(self.task(self.name, "iperf_server_start", port=port))
        assert started.status == "succeeded", started
        return port

    def iperf3s(self) -> list[str]:
        """The ids of the machine's iperf3 processes."""
        return self.machine.run("pgrep", "-x", "iperf3").output.split()


def key_of(name: str) -> str:
    """The registration key of an agent."""
    return f"key-of-{name}"


def user_data(name: str, *requirements: str) -> str:
    """deployment/cloud-init.yaml as it is edited for an agent, with these lines for pip."""
    edits = {
        "MANAGER_URL=https://manager.example.com": f"MANAGER_URL={_manager()}",
        "your-registration-key-here": key_of(name),
        _NEXT_LINE.join(_LINES): _NEXT_LINE.join(requirements),
    }
    text = (ROOT / "deployment/cloud-init.yaml").read_text()
    for before, after in edits.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def _manager() -> str:
    return f"http://{MANAGER}:{MANAGER_PORT}"
