"""A test's password and private key, and a search of all that its agents leave and show."""

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from agent.dev.store.records import ManagedTask
from tests.support.canary import holders, of_process, pages_of
from tests.support.faulty_manager import Request, reply, well
from tests.support.harness import AgentProcess, Bench, free_port, is_running, until
from tests.support.killed_agents import processes_of
from tests.support.login import Login, make_login
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager

TEST: dict[str, Any] = {"server_ip": "127.0.0.1", "bitrate": 10**7, "max_retries": 0}


@pytest.fixture(name="login", scope="module")
def fixture_login(tmp_path_factory: pytest.TempPathFactory) -> Login:
    """A login for all tests of this module."""
    return make_login(tmp_path_factory.mktemp("login"))


class Life:
    """A bench and one agent of it, which says and shows all that it can."""

    def __init__(self, bench: Bench, login: Login) -> None:
        self.bench = bench
        self.login = login
        self.status = f"127.0.0.1:{free_port()}"
        self.agents: list[AgentProcess] = []
        self.shown = ""

    def start(self) -> AgentProcess:
        """Start agent a1, or start it again."""
        log_file = str(self.bench.directory / "agent.log")
        settings = {"LOG_FILE": log_file, "STATUS_ADDRESS": self.status, "STOP_GRACE": "1"}
        self.agents.append(self.bench.agent("--debug", number=1, **settings))
        self.agents[-1].wait_for("registered")
        return self.agents[-1]

    def look(self) -> None:
        """Keep what the agent's page and the dev Manager's show now."""
        self.shown += pages_of(self.status, "/", "/status", "/metrics")
        manager = urlsplit(self.bench.manager.url).netloc
        self.shown += pages_of(manager, "/", "/?test=1", "/test-1.csv")

    def children(self) -> set[int]:
        """The processes that the agent has started."""
        return processes_of(self.bench.directory) - {self.agents[-1].pid}

    def assert_kept_secret(self) -> None:
        """No secret is in a file, an argument, a line of the log, a page or a result."""
        tasks = self.bench.store.tasks.find()
        said = repr([each.lines for each in self.agents]) + self.shown
        said += repr([(bytes(task.result), task.error) for task in tasks])
        for pid in processes_of(self.bench.directory):
            said += repr(of_process(pid, "cmdline"))
        for name, secret in self.login.secrets.items():
            assert secret not in said, name
            assert holders(self.bench.directory, secret) == [], name

    def holding(self, name: str, secret: str) -> set[int]:
        """The children in whose `environ`, or in a file of whose in memory, a secret is."""
        found = set()
        for pid in self.children():
            if name == "environ" and secret.encode() in of_process(pid, name):
                found.add(pid)
            for file in Path(f"/proc/{pid}/fd").iterdir() if name == "fd" else ():
                if "memfd" in os.readlink(file) and secret.encode() in file.read_bytes():
                    found.add(pid)
        return found


@pytest.fixture(name="life")
def fixture_life(bench: Bench, login: Login) -> Life:
    """An agent's life with logins."""
    return Life(bench, login)


def test_a_login_is_with_its_own_two_children_and_nowhere_else(life: Life) -> None:
    bench, login, agent = life.bench, life.login, life.start()
    bench.ended(bench.task("iperf_server_start", port=free_port()))
    port = free_port()
    server = bench.ended(bench.task("iperf_server_start", port=port, **login.of_server))
    client = bench.task("iperf_client_run", port=port, **TEST, time=30, **login.of_client)
    started = agent.wait_for("client started", task_id=client.id)
    bench.wait(lambda: client.status == "running")
    bench.ended(bench.task("iperf_server_start", port=free_port()))
    assert len(life.children()) == 4
    assert life.holding("environ", login.password) == {started["pid"]}
    for secret in ("private key", "hash"):
        assert life.holding("fd", login.secrets[secret]) == {bench.result(server)["pid"]}
    life.look()
    life.assert_kept_secret()
    bench.ended(bench.task("kill_all"))
    until(lambda: not life.children())
    life.look()
    life.assert_kept_secret()
    bench.ends_well(agent)
    life.assert_kept_secret()


def test_no_login_outlives_an_agent_that_is_killed(life: Life) -> None:
    bench, login, agent = life.bench, life.login, life.start()
    port = free_port()
    server = bench.ended(bench.task("iperf_server_start", port=port, **login.of_server))
    client = bench.task("iperf_client_run", port=port, **TEST, time=30, **login.of_client)
    delayed = bench.task(
        "iperf_client_run", port=port, **TEST, client_delay_seconds=60, **login.of_client
    )
    bench.wait(lambda: client.status == "running" and delayed.status == "accepted")
    held = life.holding("environ", login.password) | life.holding("fd", login.secrets["hash"])
    assert held == life.children() and len(held) == 2
    agent.signal(signal.SIGKILL)
    agent.exit_code()
    until(lambda: not any(map(is_running, held)))
    assert not processes_of(bench.directory)
    life.assert_kept_secret()
    again = life.start()
    for task in (client, delayed):
        assert bench.ended(task).error == "interrupted: the agent restarted"
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    assert not life.children()
    life.look()
    life.assert_kept_secret()
    bench.ends_well(again)
    life.assert_kept_secret()


def test_the_documented_commands_leave_files_that_only_their_owner_can_read(tmp_path: Path) -> None:
    make_login(tmp_path)
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}


def test_an_iperf3_that_crashes_leaves_no_login_in_a_core_dump(life: Life) -> None:
    bench, login = life.bench, life.login
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        agent = life.start()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    port = free_port()
    bench.ended(bench.task("iperf_server_start", port=port, **login.of_server))
    client = bench.task("iperf_client_run", port=port, **TEST, time=30, **login.of_client)
    pid = agent.wait_for("client started", task_id=client.id)["pid"]
    bench.wait(lambda: client.status == "running")
    # Of 0 bytes, the kernel hands a dump to a program all the same.
    assert resource.prlimit(pid, resource.RLIMIT_CORE) in {(0, 0), (1, 1)}
    os.kill(pid, signal.SIGSEGV)
    assert bench.ended(client).status == "failed"
    assert bench.result(client)["agent"]["error_class"] == "crashed"
    life.assert_kept_secret()
    bench.ends_well(agent)


def test_a_login_that_is_wrong_is_in_no_message(life: Life) -> None:
    bench, login, agent = life.bench, life.login, life.start()
    port = free_port()
    server = bench.ended(bench.task("iperf_server_start", port=port, **login.of_server))
    # The password comes first, so that no message cuts it off.
    whole = {"password": login.password, **login.of_client, **login.of_server}
    whole |= {**TEST, "port": port, "time": 1}

    def failed(payload: Any, error_class: str) -> ManagedTask:
        task = bench.ended(bench.store.tasks.add(1, "iperf_client_run", cast(Any, payload)))
        assert (task.status, bench.result(task)["agent"]["error_class"]) == ("failed", error_class)
        return task

    for wrong in (
        {"password": [login.password]},
        {"password": f"{login.password} {login.password}"},
        {"rsa_public_key": login.private_key},
        {"rsa_private_key": {"PEM": login.private_key}, "port": "x"},
        {"port": 0},
        {"rsa_public_key": None},
    ):
        failed({**whole, **wrong}, "bad_payload")
    for text in (json.dumps(whole), [whole], [json.dumps(whole)]):
        failed(text, "bad_payload")
    failed({**whole, "host": login.private_key}, "unsupported")
    failed({**whole, "port": 1}, "refused")
    failed({**whole, "username": "nobody"}, "not_allowed")
    assert server.status == "succeeded"
    unknown = {**TEST, "port": port, "time": 1, "passwort": login.password}
    assert "passwort" in repr(bench.result(failed(unknown, "not_allowed")))
    life.look()
    life.assert_kept_secret()
    bench.ends_well(agent)
    life.assert_kept_secret()


def test_a_login_of_a_test_is_on_no_page_of_the_dev_manager(life: Life) -> None:
    bench = life.bench
    agent = life.start()
    exercise = bench.store.exercises.create("login", 60)
    options = {**life.login.of_client, "bitrate": 10**7}
    new = bench.store.exercises.add_test(
        exercise.id, 1, 1, free_port(), time_seconds=1, options=options
    )
    bench.store.exercises.start(exercise.id)
    task = new.client_task
    bench.wait(lambda: task.status == "running")
    life.look()
    assert bench.ended(task).status == "succeeded", task.error
    life.look()
    assert f"Tasks {new.test.server_task_id} (server)" in life.shown
    life.assert_kept_secret()
    bench.ends_well(agent)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_manager_that_repeats_the_payload_in_its_refusals_gets_it_into_no_file(
    faulty: MakeManager, tmp_path: Path, login: Login, status: int
) -> None:
    task = {
        "id": 1,
        "type": "iperf_client_run",
        "payload": {**TEST, "port": 1, "x": 'a "quoted" text', **login.of_client},
    }

    def repeating(request: Request) -> bytes:
        if request.call == "claim":
            return reply({"task": next(tasks, None)})
        if request.call == "result":
            detail: Any = {"error": "task_not_found", "task": task, "x": login.of_server}
            # As a database has it, and as Python shows it.
            detail |= {"text": json.dumps(detail), "in text": json.dumps(json.dumps(detail))}
            detail["repr"] = repr(detail)
            return reply({"detail": [detail] if status == 422 else detail}, status)
        return well(request)

    tasks = iter([task])
    manager = faulty(repeating)
    with lone_agent(manager.url, tmp_path, "--debug", SHUTDOWN_TIMEOUT="2") as agent:
        until(lambda: list((tmp_path / "state" / "rejected").glob("*.answer")))
        agent.signal(signal.SIGTERM)
        agent.exit_code()
    (answer,) = (tmp_path / "state" / "rejected").glob("*.answer")
    assert '"password": "[hidden]"' in answer.read_text()
    for secret in login.secrets.values():
        assert secret not in repr(agent.lines)
        assert holders(tmp_path, secret) == []
