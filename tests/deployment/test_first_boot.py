"""First boots without a network, and what becomes of the machines: upgraded, and cloned."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from agent import __version__
from agent.dev.server import DevManager
from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from tests.support.deployment import INSTALL, MANAGER_PORT, UNIT, Deployment, key_of, user_data
from tests.support.harness import ROOT, free_port, iperf3_server, until
from tests.support.machine import (
    LONG,
    NEXT,
    PIP,
    TEMPLATES,
    WHEELHOUSE,
    Machine,
    constraints,
    need_machines,
    released,
)
from tests.support.network import MANAGER, PEER, network
from tests.support.packages import PIP_LINES, URL, publish_debs, served, take_debs_from_there

need_machines()

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * LONG)]

INSTALLATION = "iperf-agent-install.service"
# As `pip wheel` made it of the commit that became 0.1.0.
FIRST = "0.1.0"
FIRST_WHEEL = ROOT / f"tests/deployment/data/iperf_orchestrator_agent-{FIRST}-py3-none-any.whl"
# What 0.1.0 is given by its constraints, to tell it from what this version is given.
OLDER_CLICK = "click==8.1.8"
# A test of five seconds, which may take as long as pip does if it is held up.
BYTES = 62_500_000
TEST = {"bytes": BYTES, "bitrate": 100_000_000, "time": 120}
WITHOUT_NETWORK = "apt-get cannot install iperf3 python3-venv; waiting 30 s for the network"


class Pair:
    """Two machines, the first of which is restarted before there is a network."""

    def __init__(self, deployments: list[Deployment]) -> None:
        self.restarted, self.patient = self.both = deployments
        self.store, self.network = self.patient.store, self.patient.network
        # How many results of a task have arrived.
        self.reports: Counter[int] = Counter()
        report = self.store.tasks.report

        @wraps(report)
        def count(**sent: Any) -> ManagedTask:
            self.reports[sent["task_id"]] += 1
            return report(**sent)

        self.store.tasks.report = count  # type: ignore[method-assign,assignment]


def lines(version: str) -> list[str]:
    """What is to be installed, as lines for pip."""
    return [*released(URL, version), *PIP_LINES]


def publish(release: Path, packages: Path) -> None:
    """Fill a directory with 0.1.0 and this version, and all that machines need for them.

    This version is there as NEXT, as it may still have the number of the other.
    """
    for template in TEMPLATES:
        publish_debs(template, packages / template.name)
    for wheel in (*(release / WHEELHOUSE).iterdir(), *(release / "next").iterdir(), FIRST_WHEEL):
        shutil.copy(wheel, packages)
    subprocess.run([*PIP, "download", "--no-deps", "--dest", packages, OLDER_CLICK], check=True)
    pins = (release / constraints(__version__)).read_text()
    (packages / constraints(NEXT)).write_text(pins)
    (packages / constraints(FIRST)).write_text(re.sub("click==.*", OLDER_CLICK, pins))


@pytest.fixture(name="pair", scope="module")
def fixture_pair(tmp_path_factory: pytest.TempPathFactory, release: Path) -> Iterator[Pair]:
    """Two machines, whose first boot has ended without a network."""
    packages = tmp_path_factory.mktemp("packages")
    publish(release, packages)
    with ExitStack() as stack:
        net = stack.enter_context(network())
        stack.enter_context(served(packages, net))
        net.cut("manager", "near")
        store, both = Store(), []
        for name, template in zip(("restarted", "patient"), (TEMPLATES[0], TEMPLATES[-1])):
            machine = Machine(template, tmp_path_factory.mktemp(name), packages, net)
            stack.callback(machine.kill)
            take_debs_from_there(machine, template.name)
            machine.seed(name, user_data(name, *lines(NEXT)))
            both.append(Deployment(machine, store, net, name))
        pair = Pair(both)
        manager = DevManager(store, MANAGER, MANAGER_PORT, "a password for nobody")
        with net.inside("manager"):
            manager.start()
        stack.callback(manager.stop)
        for deployment in both:
            deployment.machine.start()
        yield pair


def said(deployment: Deployment) -> str:
    """What the installation has said in this boot."""
    words = ["--boot", f"--unit={INSTALLATION}", "--output=cat"]
    return deployment.machine.output("journalctl", *words)


def test_a_first_boot_without_a_network_leads_to_an_agent_when_it_comes(pair: Pair) -> None:
    """Also if the machine was restarted meanwhile."""
    for deployment in pair.both:
        deployment.machine.until(lambda: WITHOUT_NETWORK in said(deployment))
        assert "status: error" in deployment.machine.run("cloud-init", "status", "--wait").output
    pair.restarted.machine.stop()
    pair.restarted.machine.start()
    pair.restarted.machine.until(lambda: WITHOUT_NETWORK in said(pair.restarted))
    pair.network.mend("manager", "near")
    for deployment in pair.both:
        machine = deployment.machine
        machine.until(lambda: deployment.is_online(deployment.name))
        machine.until(lambda: machine.state(INSTALLATION, "ActiveState") == "inactive")
        assert machine.state(INSTALLATION, "UnitFileState") == "disabled"
        assert machine.state(UNIT, "UnitFileState") == "enabled"


@contextmanager
def change_of_version(pair: Pair, version: str) -> Iterator[ManagedTask]:
    """A test that runs while another version is installed, and ends while the Manager is away.

    In the block the version that measured has ended, and the Manager has not heard of it.
    """
    machine, name, port = pair.patient.machine, pair.patient.name, free_port()
    pid = machine.main_pid(UNIT)
    with pair.network.inside("peer"), iperf3_server(port):
        client = pair.patient.task(name, "iperf_client_run", server_ip=PEER, port=port, **TEST)
        until(lambda: client.status == "running", LONG)
        (child,) = pair.patient.iperf3s()
        machine.output("kill", "-STOP", child)
        install = machine.begin(INSTALL, *lines(version))
        machine.until(lambda: pair.patient.retires(UNIT, pid))
        pair.network.cut("manager", "near")
        machine.output("kill", "-CONT", child)
        machine.until(lambda: machine.state(UNIT, "MainPID") != pid)
    yield client
    pair.network.mend("manager", "near")
    done = machine.end_of(install)
    assert done.code == 0, done


def test_a_rollback_and_an_upgrade_deliver_once_what_the_other_version_measured(pair: Pair) -> None:
    machine = pair.patient.machine
    machine.output("sh", "-c", "echo SHUTDOWN_TIMEOUT=3 >>/etc/iperf-agent/agent.env")
    machine.output("systemctl", "restart", UNIT)
    pip = ("/opt/iperf-agent/venv/bin/python3", "-m", "pip")
    newest = machine.output(*pip, "freeze")
    for old, new in ((NEXT, FIRST), (FIRST, NEXT)):
        with change_of_version(pair, new) as client:
            assert client.status == "running"
        assert pair.patient.ended(client).status == "succeeded", client
        document = json.loads(bytes(client.result))
        assert document["end"]["sum_received"]["bytes"] >= BYTES
        assert document["agent"]["version"] == old
        assert pair.reports[client.id] == 1
        assert new in machine.output("/opt/iperf-agent/venv/bin/agent-run", "--version")
        # The constraints count in both directions.
        installed = machine.output(*pip, "freeze")
        assert (OLDER_CLICK in installed) == (new == FIRST)
    assert installed == newest


def test_clones_that_are_called_localhost_are_no_agents_until_they_have_names(pair: Pair) -> None:
    for deployment in pair.both:
        machine = deployment.machine
        clone = f"clone-of-{deployment.name}"
        pair.store.agents.add(clone, key_of(clone))
        machine.output("sh", "-ec", preparation())
        machine.stop()
        machine.seed(clone, user_data(clone, *lines(NEXT)), hostname="localhost")
        machine.start()
    for deployment in pair.both:
        machine = deployment.machine
        assert "status: error" in machine.run("cloud-init", "status", "--wait").output
        # No other try is made.
        assert machine.state(INSTALLATION, "ExecMainStatus") == str(os.EX_CONFIG)
        assert machine.state(INSTALLATION, "SubState") == "failed"
        assert machine.state(UNIT, "UnitFileState") == "disabled"
        needs = "needs a line AGENT_NAME=NAME in /etc/iperf-agent/agent.env"
        assert f"{needs}, as other machines may be named" in said(deployment)
        clone = f"clone-of-{deployment.name}"
        machine.output("sh", "-c", f"echo AGENT_NAME={clone} >>/etc/iperf-agent/agent.env")
        machine.output(INSTALL)
        machine.until(lambda: deployment.is_online(clone))
        assert machine.state(UNIT, "UnitFileState") == "enabled"
    assert pair.store.agents.named("localhost") is None


def preparation() -> str:
    """What docs/deployment.md has people run before they make an image of a machine."""
    text = (ROOT / "docs/deployment.md").read_text().partition("## Cloned machines")[2]
    (found,) = re.finditer(r"\n\n((?:    .*\n)+)", text.partition("\n## ")[0])
    return found[1]
