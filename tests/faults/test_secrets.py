"""A canary for a key, a life with all that can go wrong, and a search of all that it left."""

import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.canary import holders, of_process, pages_of
from tests.support.command import NO_MANAGER, Ended, run, run_program
from tests.support.faulty_manager import FaultyManager, Request, reply, well
from tests.support.harness import AgentProcess, Bench, free_port
from tests.support.lone_agent import lone_agent, passed_on
from tests.support.sockets import MakeManager

# It writes down what it was given, and is then the real one.
RECORDER = """#!/bin/sh
{ printf '%%s ' "$@"; env; } >>'%s'
exec iperf3 "$@"
"""
# An agent with a bug that says the key, raised where the key is in a local variable, too.
BUGGY = """
from gevent import monkey
monkey.patch_all()
import os
from agent.__main__ import main
from agent.registry import TaskRegistry

def rows(self):
    key = os.environ["AGENT_KEY"]
    raise RuntimeError(f"a bug with {key}", {"X-AGENT-KEY": key})

TaskRegistry.rows = rows
main()
"""


@pytest.fixture(name="canary")
def fixture_canary() -> str:
    """A key that is nowhere else in the world."""
    return f"canary-{secrets.token_hex(16)}"


def assert_told_in_one_header(requests: list[Request], canary: str) -> None:
    """Nothing that was sent has the canary but the header that is there for it."""
    for request in requests:
        assert canary.encode() not in request.body and canary not in request.path
        assert [name for name, value in request.headers.items() if canary in value] in (
            ["x-agent-key"],
            [],
        )


@pytest.fixture(name="life", params=["AGENT_KEY", "AGENT_KEY_FILE"])
def fixture_life(
    request: pytest.FixtureRequest, bench: Bench, faulty: MakeManager, canary: str
) -> "Life":
    """An agent's life, its key given in one way or the other."""
    bench.store.agents.update(1, {"registration_key": canary})
    key_file = bench.directory / "agent-key"
    secret = {"AGENT_KEY": canary}
    if request.param == "AGENT_KEY_FILE":
        key_file.write_text(canary)
        key_file.chmod(0o600)
        secret = {"AGENT_KEY": "", "AGENT_KEY_FILE": str(key_file)}
    manager = faulty(lambda asked: passed_on(asked, bench.manager.url))
    return Life(bench, manager, secret, f"127.0.0.1:{free_port()}")


@dataclass
class Life:
    """A bench, the Manager in front of its own, and the variables that give the key."""

    bench: Bench
    manager: FaultyManager
    secret: dict[str, str]
    status: str

    def pages(self) -> str:
        """All that the agent shows of itself."""
        return pages_of(self.status, "/", "/livez", "/readyz", "/status", "/metrics")

    def agent(self) -> AgentProcess:
        """Agent a1 at debug level, with a log file and an iperf3 that records."""
        directory = self.bench.directory
        recorder = directory / "iperf3"
        recorder.write_text(RECORDER % (directory / "recorded"))
        recorder.chmod(0o755)
        agent = self.bench.agent(
            "--debug",
            number=1,
            MANAGER_URL=self.manager.url,
            IPERF3_PATH=str(recorder),
            LOG_FILE=str(directory / "agent.log"),
            HEARTBEAT_INTERVAL="0.2",
            SHUTDOWN_TIMEOUT="4",
            STATUS_ADDRESS=self.status,
            **self.secret,
        )
        agent.wait_for("registered")
        return agent


def test_the_key_stays_where_it_was_put_through_all_that_goes_wrong(
    life: Life, canary: str
) -> None:
    bench = life.bench
    agent = life.agent()
    in_file = not life.secret["AGENT_KEY"]
    assert canary.encode() not in of_process(agent.pid, "cmdline")
    assert (canary.encode() in of_process(agent.pid, "environ")) is not in_file
    port = free_port()
    server = bench.ended(bench.task("iperf_server_start", port=port))
    child = bench.result(server)["pid"]
    for name in ("cmdline", "environ"):
        assert of_process(child, name) and canary.encode() not in of_process(child, name)
    target: dict[str, Any] = {"server_ip": "127.0.0.1", "time": 1, "max_retries": 0}
    good = bench.task("iperf_client_run", port=port, **target)
    assert bench.ended(good).status == "succeeded", good.error
    for payload in ({**target, "port": 1}, {**target, "port": "one"}, {}):
        assert bench.ended(bench.task("iperf_client_run", **payload)).status == "failed"
    assert bench.ended(bench.task("unheard_of")).status == "failed"
    cut_short = bench.task("iperf_client_run", port=port, **{**target, "time": 30})
    agent.wait_for("client started", task_id=cut_short.id)
    pages = life.pages()
    agent.signal(signal.SIGKILL)
    agent.exit_code()
    again = life.agent()
    bench.store.agents.update(1, {"registration_key": "another"})
    again.wait_for("the Manager refuses the key; tests go on")
    pages += life.pages()
    again.signal(signal.SIGTERM)
    assert again.exit_code() == 0
    assert "<html" in pages and "# HELP" in pages and canary not in pages
    assert canary not in repr(agent.lines + again.lines)
    recorded = (bench.directory / "recorded").read_text()
    assert all(seen in recorded for seen in ("--version", "-s -p", "-c 127.0.0.1", "PATH="))
    assert holders(bench.directory, canary) == (["agent-key"] if in_file else [])
    assert_told_in_one_header(life.manager.requests, canary)


@pytest.mark.parametrize("arguments", [(), ("--debug",)])
def test_a_bug_whose_traceback_says_the_key_is_logged_without_it(
    faulty: MakeManager, tmp_path: Path, canary: str, arguments: tuple[str, ...]
) -> None:
    ended = buggy(tmp_path, faulty(well).url, canary, *arguments)
    assert ended.code == 1
    assert "a bug with [hidden]" in ended.output and "Traceback" in ended.output
    assert canary not in ended.output + ended.errors
    assert holders(tmp_path, canary) == []


def buggy(directory: Path, url: str, canary: str, *arguments: str) -> Ended:
    """How the agent with the bug ended, and what it said."""
    settings = {"AGENT_NAME": "a1", "AGENT_KEY": canary, "STATE_DIR": str(directory / "state")}
    argv = (sys.executable, "-c", BUGGY, *arguments)
    return run_program(*argv, cwd=directory, MANAGER_URL=url, **settings)


def test_the_check_of_what_is_well_and_of_what_is_not_shows_no_key(
    bench: Bench, canary: str
) -> None:
    settings = {"AGENT_NAME": "a1", "AGENT_KEY": canary, "STATE_DIR": str(bench.directory / "s")}
    for url in (bench.manager.url, NO_MANAGER):
        for arguments in (("--check",), ("--check", "--debug")):
            ended = run(*arguments, cwd=bench.directory, MANAGER_URL=url, **settings)
            assert ended.code == (0 if url == bench.manager.url else 69)
            assert canary not in ended.output + ended.errors


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500])
def test_a_manager_that_repeats_the_key_in_its_answers_gets_it_into_no_file(
    faulty: MakeManager, tmp_path: Path, canary: str, status: int
) -> None:
    def repeating(request: Request) -> bytes:
        key = request.headers["x-agent-key"]
        if request.call == "register":
            return reply({"id": 1, "name": key, "first_registered": None, key: key})
        if request.call == "claim":
            return reply({"task": next(tasks, None)})
        if request.call == "result":
            words = {"error": f"not {key}", "details": {"current_status": f"at {key}"}, key: key}
            return reply({"error": f"not {key}", "detail": words}, status, X_Key=key)
        return well(request)

    tasks = iter([{"id": 1, "type": "unheard_of", "payload": {}}])
    manager = faulty(repeating)
    log_file = str(tmp_path / "agent.log")
    with lone_agent(
        manager.url, tmp_path, "--debug", AGENT_KEY=canary, LOG_FILE=log_file, SHUTDOWN_TIMEOUT="2"
    ) as agent:
        agent.wait_for("request", path="/v1/agent/tasks/1/result", status=status)
        manager.wait_for(lambda: manager.calls()[-1] == "heartbeat")
        agent.signal(signal.SIGTERM)
        agent.exit_code()
    assert canary not in repr(agent.lines)
    assert holders(tmp_path, canary) == []
    assert_told_in_one_header(manager.requests, canary)
