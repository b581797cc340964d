"""deployment/: cloud-init and the units, on a Debian that is booted for it."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gevent import subprocess

from agent.dev.server import DevManager
from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from tests.support.deployment import (
    INSTALL,
    MANAGER_PORT,
    OFFLINE,
    REQUIREMENTS,
    UNIT,
    Deployment,
    key_of,
    user_data,
)
from tests.support.harness import ROOT, free_port, iperf3_server, until
from tests.support.machine import LONG, NEXT, RELEASE, TEMPLATES, Machine, need_machines
from tests.support.network import MANAGER, PEER, network

need_machines()

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * LONG)]

SECOND = "iperf-agent@second.service"
INSTANCE = "machine-1"
LOCK = "/opt/iperf-agent/lock"
# The promise: a loop that is blocked is replaced within so many seconds.
REPLACED_WITHIN = 40


@pytest.fixture(name="deployed", scope="module", params=TEMPLATES, ids=lambda path: path.name)
def fixture_deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, release: Path
) -> Iterator[Deployment]:
    """A machine on which cloud-init has ended, well or not; it reaches no index, and no Debian."""
    template = request.param
    directory = tmp_path_factory.mktemp("machine")
    with network() as net:
        machine = Machine(template, directory, release, net)
        store = Store()
        manager = DevManager(store, MANAGER, MANAGER_PORT, "a password for nobody")
        deployment = Deployment(machine, store, net, INSTANCE)
        for name in ("second", "stranger"):
            store.agents.add(name, key_of(name))
        machine.seed(INSTANCE, user_data(INSTANCE, *OFFLINE))
        try:
            machine.start()
            machine.run("cloud-init", "status", "--wait")
            # As late as that, so that nothing of cloud-init's can depend on it.
            with net.inside("manager"):
                manager.start()
            machine.run("systemctl", "start", UNIT)
            yield deployment
        finally:
            machine.kill()
            manager.stop()


@pytest.fixture(name="machine")
def fixture_machine(deployed: Deployment) -> Machine:
    """The machine alone."""
    return deployed.machine


@pytest.fixture(name="second")
def fixture_second(deployed: Deployment) -> Iterator[Deployment]:
    """The machine with a second agent at work."""
    deployed.give("second", "key-of-second")
    deployed.machine.output("systemctl", "start", SECOND)
    yield deployed
    deployed.machine.output("systemctl", "stop", SECOND)


def test_the_user_data_fits_where_it_has_to(machine: Machine) -> None:
    assert (ROOT / "deployment/cloud-init.yaml").stat().st_size < 16 * 1024  # EC2's limit
    schema = ("cloud-init", "schema", "--config-file")
    machine.output(*schema, "/var/lib/cloud/seed/nocloud/user-data")


def test_cloud_init_ends_without_error(machine: Machine) -> None:
    log = "/var/log/cloud-init-output.log"
    status = machine.run("cloud-init", "status", "--long")
    assert "status: done" in status.output, (status, machine.output("tail", "-n", "60", log))
    result = json.loads(machine.output("cat", "/run/cloud-init/result.json"))
    assert result["v1"]["errors"] == []


def test_the_agent_is_at_work_under_the_instances_name(deployed: Deployment) -> None:
    machine = deployed.machine
    assert machine.state(UNIT, "ActiveState") == "active"
    assert machine.state(UNIT, "StatusText") == "0 tests and 0 servers running"
    assert machine.output("systemctl", "is-enabled", UNIT) == "enabled"
    assert deployed.is_online(INSTANCE)
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9201/readyz').status)"
    assert machine.output("python3", "-c", ask) == "200"


def test_only_root_reads_the_key(machine: Machine) -> None:
    files = ["/etc/iperf-agent/agent.key", "/etc/iperf-agent/agent.env", REQUIREMENTS, LOCK]
    modes = machine.output("stat", "-c", "%a %U %G", *files).splitlines()
    assert modes == ["600 root root"] * len(files)
    pid = machine.main_pid(UNIT)
    assert "key-of" not in machine.output("cat", f"/proc/{pid}/environ")
    # Those that DynamicUser= takes its users from.
    assert 61184 <= int(machine.output("stat", "-c", "%u", f"/proc/{pid}")) <= 65519


@pytest.mark.parametrize("unit", [UNIT, SECOND])
def test_systemd_has_nothing_to_say_about_the_units(machine: Machine, unit: str) -> None:
    verified = machine.run("systemd-analyze", "verify", unit)
    assert (verified.code, verified.output + verified.errors) == (0, "")
    # The threshold is in tenths.
    machine.output("systemd-analyze", "security", "--no-pager", "--threshold=15", unit)


def test_two_agents_run_a_test_with_all_that_a_sandbox_could_forbid(second: Deployment) -> None:
    asked = {"affinity": 0, "congestion": "reno", "bind_dev": "lo"}
    target = {"server_ip": "127.0.0.1", "port": second.server(), "time": 2}
    client = second.ended(second.task("second", "iperf_client_run", **target, **asked))
    assert client.status == "succeeded", client
    document = json.loads(bytes(client.result))
    assert document["end"]["sum_received"]["bytes"] > 0
    assert document["agent"]["diagnosis"]["evidence"]["missing"] == []
    assert document["end"]["sender_tcp_congestion"] == "reno"
    argv = document["agent"]["argv"]
    assert all(option in argv for option in ("-A", "-C", "--bind-dev"))


def test_stop_leaves_no_iperf3(deployed: Deployment) -> None:
    deployed.server()
    assert deployed.iperf3s()
    deployed.machine.output("systemctl", "stop", UNIT)
    assert not deployed.iperf3s()
    assert deployed.machine.state(UNIT, "Result") == "success"
    deployed.machine.output("systemctl", "start", UNIT)


def test_a_wrong_key_ends_it_for_good(deployed: Deployment) -> None:
    unit = "iperf-agent@stranger.service"
    deployed.give("stranger", "some-other-key")
    assert deployed.machine.run("systemctl", "start", unit).code != 0
    assert deployed.machine.state(unit, "ExecMainStatus") == "77"
    # Else its sub-state would be auto-restart.
    assert deployed.machine.state(unit, "SubState") == "failed"
    assert deployed.machine.state(unit, "NRestarts") == "0"


def test_without_a_key_the_file_is_named(machine: Machine) -> None:
    unit = "iperf-agent@keyless.service"
    machine.output("systemctl", "enable", unit)
    assert machine.run("systemctl", "start", unit).code != 0
    status = machine.run("systemctl", "status", unit).output
    assert "AssertPathExists=/etc/iperf-agent/keyless.key was not met" in status
    assert machine.state(unit, "SubState") == "dead"
    machine.output("systemctl", "disable", unit)


def test_the_journals_lines_are_json(machine: Machine) -> None:
    """Those of every agent that ran so far: none was aborted, which leaves a dump of threads."""
    only = ["--unit=iperf-agent*", "--identifier=agent-run", "--output=cat"]
    lines = machine.output("journalctl", *only).splitlines()
    messages = {json.loads(line)["message"] for line in lines}
    assert {"agent starts", "registered", "agent stopped", "agent ends"} <= messages


def test_an_agent_that_stands_still_is_replaced(deployed: Deployment) -> None:
    machine = deployed.machine
    deployed.server()
    for restarts in range(1, 4):
        pid = machine.main_pid(UNIT)
        began = time.monotonic()
        machine.output("kill", "-STOP", pid)
        machine.until(lambda: machine.state(UNIT, "MainPID") not in ("0", pid))
        # Three times the promise, as this computer may be busy.
        assert time.monotonic() - began < 3 * REPLACED_WITHIN
        machine.until(lambda: machine.state(UNIT, "ActiveState") == "active")
        assert machine.state(UNIT, "NRestarts") == str(restarts)
        assert not deployed.iperf3s()
        journal = machine.output("journalctl", "--unit", UNIT, "--output", "cat")
        assert journal.count("Watchdog timeout") == restarts
        # Python says what the agent was at. While it dumps the stacks of native threads it can
        # crash itself (seen once with 3.13); then the agent is to stand still once more.
        if journal.count("Segmentation fault") < restarts:
            break
    assert "Current thread" in journal and "gevent" in journal, journal


def test_a_version_that_is_not_to_be_had_changes_nothing(machine: Machine) -> None:
    pid, lines = machine.main_pid(UNIT), machine.output("cat", REQUIREMENTS)
    assert machine.run(INSTALL, "--no-index", f"iperf-orchestrator-agent=={NEXT}").code != 0
    assert machine.output("cat", REQUIREMENTS) == lines
    assert machine.main_pid(UNIT) == pid


def test_a_new_version_is_one_command(machine: Machine) -> None:
    pid = machine.main_pid(UNIT)
    *places, _ = OFFLINE
    lines = [*places, f"--find-links {RELEASE}/next", f"iperf-orchestrator-agent=={NEXT}"]
    # With a root that lets nobody else read what it makes.
    machine.output("sh", "-c", 'umask 077; exec "$0" "$@"', INSTALL, *lines)
    assert NEXT in machine.output("/opt/iperf-agent/venv/bin/agent-run", "--version")
    assert machine.state(UNIT, "ActiveState") == "active"
    new = machine.main_pid(UNIT)
    assert new != pid
    journal = machine.output("journalctl", f"_PID={new}", "--output=cat")
    assert f'"version":"{NEXT}"' in journal
    assert machine.output("cat", REQUIREMENTS).splitlines() == lines
    assert machine.output("stat", "-c", "%a %U %G", REQUIREMENTS) == "600 root root"


@contextmanager
def upgrade_beside_a_test(
    second: Deployment, pid: str, seconds: int
) -> Iterator[tuple[ManagedTask, subprocess.Popen]]:
    """A test of so many seconds, and an upgrade that has told the agent under it to retire."""
    with second.network.inside("peer"), iperf3_server(port := free_port()):
        test = {"server_ip": PEER, "port": port, "time": seconds}
        client = second.task("second", "iperf_client_run", **test)
        until(lambda: client.status == "running", LONG)
        install = second.machine.begin(INSTALL)
        second.machine.until(lambda: second.retires(SECOND, pid))
        yield client, install


def test_an_upgrade_waits_for_the_test_that_runs(second: Deployment) -> None:
    """Though the terminal that it was begun at is lost meanwhile."""
    machine = second.machine
    pids = {unit: machine.main_pid(unit) for unit in (UNIT, SECOND)}
    with upgrade_beside_a_test(second, pids[SECOND], seconds=20) as (client, install):
        machine.output("pkill", "-HUP", "-f", INSTALL)
        done = machine.end_of(install)
    assert done.code == 0, done
    assert client.status == "succeeded", client
    assert all(second.is_new(unit, pid) for unit, pid in pids.items())


def test_an_upgrade_that_is_interrupted_leaves_no_agent_down(second: Deployment) -> None:
    machine = second.machine
    pids = {unit: machine.main_pid(unit) for unit in (UNIT, SECOND)}
    with upgrade_beside_a_test(second, pids[SECOND], seconds=600) as (client, install):
        machine.output("pkill", "-TERM", "-f", INSTALL)
        assert machine.end_of(install).code == 1
        second.ended(client)
    machine.until(lambda: all(second.is_new(unit, pid) for unit, pid in pids.items()))


def test_an_upgrade_starts_what_was_starting_and_nothing_that_was_turned_off(
    deployed: Deployment,
) -> None:
    machine = deployed.machine
    early = "iperf-agent@early.service"
    deployed.give("early", "key-of-nobody")
    # Nobody listens there.
    machine.write("etc/iperf-agent/early.env", "MANAGER_URL=http://127.0.0.1:1\n")
    machine.output("systemctl", "start", "--no-block", early)
    machine.until(lambda: machine.state(early, "MainPID") != "0")
    pid = machine.main_pid(early)
    machine.output("systemctl", "disable", "--now", UNIT)
    machine.output(INSTALL)
    machine.until(lambda: machine.state(early, "MainPID") not in ("0", pid))
    assert machine.run("systemctl", "is-enabled", UNIT).output.strip() == "disabled"
    assert machine.state(UNIT, "ActiveState") == "inactive"
    machine.output("systemctl", "stop", early)
    machine.output("systemctl", "enable", "--now", UNIT)


def test_an_environment_that_the_systems_python_has_left_is_made_anew(machine: Machine) -> None:
    """A new release of the distribution looks for packages in another directory."""
    pid = machine.main_pid(UNIT)
    machine.output("sh", "-c", "cd /opt/iperf-agent/venv/lib && mv python3.* python3.9")
    machine.output(INSTALL)
    assert NEXT in machine.output("/opt/iperf-agent/venv/bin/agent-run", "--version")
    machine.until(lambda: machine.state(UNIT, "ActiveState") == "active")
    assert machine.main_pid(UNIT) != pid


def test_an_environment_that_pip_was_killed_in_is_made_anew(machine: Machine) -> None:
    """Before it has written a package's commands, and the file that it writes last."""
    environment = "/opt/iperf-agent/venv"
    package = f"{environment}/lib/python3*/site-packages/iperf_orchestrator_agent-*.dist-info"
    asked = (f"{environment}/bin/agent-run", "--version")
    version = machine.output(*asked)
    machine.output("sh", "-c", f"rm {asked[0]} {package}/INSTALLER")
    machine.output(INSTALL)
    assert machine.output(*asked) == version


def test_pip_goes_on_when_the_terminal_is_lost(machine: Machine) -> None:
    install = machine.begin(INSTALL)
    machine.until(lambda: machine.run("pgrep", "-f", "pip install").code == 0)
    machine.output("pkill", "-HUP", "-f", f"pip install|{INSTALL}")
    done = machine.end_of(install)
    assert done.code == 0, done


def test_what_does_not_run_stops_no_agent(machine: Machine) -> None:
    pid = machine.main_pid(UNIT)
    file = "/opt/iperf-agent/venv/lib/python3*/site-packages/agent/__init__.py"
    machine.output("sh", "-c", f"cp {file} /opt/kept && echo 'raise SystemError' | tee -a {file}")
    done = machine.run(INSTALL)
    machine.output("sh", "-c", f"mv /opt/kept {file}")
    assert (done.code, done.errors.splitlines()[-1]) == (
        os.EX_TEMPFAIL,
        "iperf-agent: what pip has installed does not run",
    )
    assert machine.main_pid(UNIT) == pid


def test_the_hosts_name_is_added_only_to_settings_without_a_name(machine: Machine) -> None:
    """However people write these, and not if it is the name of an image."""
    settings = "/etc/iperf-agent/agent.env"
    kept = machine.output("cat", settings)
    machine.output("systemctl", "disable", "--now", UNIT)
    url = "MANAGER_URL=http://127.0.0.1:1"
    for before, after in {
        url: f"{url}\nAGENT_NAME={INSTANCE}",
        f'{url}\r\nAGENT_NAME=""\r\n': f'{url}\nAGENT_NAME=""\n\nAGENT_NAME={INSTANCE}',
        f"{url}\n  AGENT_NAME = other\n": f"{url}\n  AGENT_NAME = other",
    }.items():
        machine.write(settings[1:], before)
        machine.output(INSTALL)
        assert machine.output("cat", settings) == after
    machine.write(settings[1:], f"{url}\n")
    machine.output("hostname", "LOCALHOST")
    assert machine.run(INSTALL).code == os.EX_CONFIG
    machine.output("hostname", INSTANCE)
    machine.write(settings[1:], f"{kept}\n")
    machine.output("systemctl", "enable", "--now", UNIT)


def test_a_key_for_the_managers_tls_is_handed_over_as_documented(second: Deployment) -> None:
    machine = second.machine
    text = (ROOT / "docs/deployment.md").read_text()
    (drop_in,) = re.findall(r"```ini\n(.*?)```", text, re.DOTALL)
    directory = f"etc/systemd/system/{SECOND}.d"
    machine.write(f"{directory}/mtls.conf", drop_in)
    machine.write("etc/iperf-agent/manager.key", "a key\n", 0o600)
    machine.write("etc/iperf-agent/manager.crt", "a certificate\n")
    machine.output("systemctl", "daemon-reload")
    verified = machine.run("systemd-analyze", "verify", SECOND)
    assert (verified.code, verified.output + verified.errors) == (0, "")
    # The agent starts with files alone that it can read.
    machine.output("systemctl", "restart", SECOND)
    journal = machine.output(
        "journalctl", f"_PID={machine.main_pid(SECOND)}", "--output=cat", "--grep=agent starts"
    )
    settings = json.loads(journal)["settings"]
    assert settings["MANAGER_CERT_KEY_FILE"] == f"/run/credentials/{SECOND}/manager.key"
    machine.output("rm", "-r", f"/{directory}")
    machine.output("systemctl", "daemon-reload")


def test_a_python_that_is_too_old_is_named(machine: Machine) -> None:
    version = '[ "$1" = --version ] && echo Python 3.9.2 && exit\nexit 1\n'
    machine.write("opt/old/python3", f"#!/bin/sh\n{version}", 0o755)
    done = machine.run("env", "PATH=/opt/old:/usr/bin:/bin", INSTALL)
    words = "iperf-agent needs Python 3.11 or newer; this machine has Python 3.9.2"
    assert (done.code, done.errors.strip()) == (os.EX_CONFIG, words)


def test_a_log_file_is_rotated(deployed: Deployment) -> None:
    machine = deployed.machine
    drop_in = f"etc/systemd/system/{UNIT}.d/log.conf"
    machine.write(drop_in, "[Service]\nEnvironment=LOG_FILE=/var/log/iperf-agent/agent.log\n")
    machine.output("systemctl", "daemon-reload")
    machine.output("systemctl", "restart", UNIT)
    machine.output("logrotate", "--force", "/etc/logrotate.d/iperf-agent")
    deployed.server()
    names = machine.output("ls", "/var/log/iperf-agent").split()
    assert names == ["agent.log", "agent.log.1"]
    for name in names:
        assert machine.output("tail", "-n", "1", f"/var/log/iperf-agent/{name}").startswith("{")


def test_a_second_boot_changes_nothing(deployed: Deployment) -> None:
    machine = deployed.machine
    places = ["/opt/iperf-agent", "/etc"]
    listing = ["find", *places, "-type", "f", "-printf", "%p %T@ %m %u %s\\n"]
    before = set(machine.output(*listing).splitlines())
    agent = deployed.store.agents.named(INSTANCE)
    assert agent
    machine.stop()
    heard = agent.last_heartbeat
    machine.start()
    machine.output("cloud-init", "status", "--wait")
    assert set(machine.output(*listing).splitlines()) == before
    machine.until(lambda: machine.state(UNIT, "ActiveState") == "active")
    assert agent.last_heartbeat != heard
