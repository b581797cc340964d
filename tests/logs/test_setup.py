"""What log lines contain, where they go, and that none contains the key."""

import json
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.dev.store.store import Store
from tests.support.command import NO_MANAGER, run_program
from tests.support.faulty_manager import well
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server
from tests.support.sockets import MakeManager

pytestmark = pytest.mark.process

CANARY = "canary-e3b0c442"
NOW_UTC = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


def with_canary(bench: Bench, *arguments: str, **variables: str) -> AgentProcess:
    """An agent whose key is the canary."""
    bench.store.agents.update(1, {"registration_key": CANARY})
    return bench.agent(*arguments, number=1, AGENT_KEY=CANARY, **variables)


@dataclass(frozen=True)
class Log:
    """What an agent logged: the decoded lines of its stdout, and its log file."""

    lines: list[dict[str, Any]]
    file: str


@pytest.fixture(name="whole_run", scope="module")
def fixture_whole_run(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """The log at debug level of a server, a client test of one second, and a kill_all."""
    bench = Bench(Store(), tmp_path_factory.mktemp("whole"))
    bench.manager.start()
    try:
        log_file = bench.directory / "agent.log"
        agent = with_canary(bench, "--debug", LOG_FILE=str(log_file))
        port = free_port()
        bench.ended(bench.task("iperf_server_start", port=port))
        client = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=1)
        assert bench.ended(client).status == "succeeded", client.error
        bench.ended(bench.task("kill_all"))
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
        return Log(agent.lines, log_file.read_text())
    finally:
        bench.close()


def test_no_line_at_debug_level_contains_the_key(whole_run: Log) -> None:
    written = json.dumps(whole_run.lines) + whole_run.file
    assert "tasks/claim" in written
    assert CANARY not in written
    assert "registration_key" not in written and "first_registered" not in written


def test_the_log_file_gets_the_same_lines(whole_run: Log) -> None:
    assert [json.loads(line) for line in whole_run.file.splitlines()] == whole_run.lines


def test_every_line_is_json_with_time_level_message_and_agent(whole_run: Log) -> None:
    for line in whole_run.lines:
        assert isinstance(line, dict), line
        assert list(line)[:3] == ["timestamp", "level", "message"]
        assert NOW_UTC.fullmatch(line["timestamp"])
        assert line["level"] in ("debug", "info", "warning", "error")
        assert line["agent_name"] == "a1"


def test_a_tasks_lines_carry_its_id_and_its_childs_pid(whole_run: Log) -> None:
    of_client = {line["message"]: line for line in whole_run.lines if line.get("task_id") == 2}
    assert {"task claimed", "client started", "client ended", "result delivered"} <= set(of_client)
    assert of_client["client started"]["pid"] == of_client["client ended"]["pid"] > 1


def test_a_request_without_an_answer_has_the_status_none_as_in_the_metrics(bench: Bench) -> None:
    agent = bench.agent("--debug", MANAGER_URL=NO_MANAGER)
    assert agent.wait_for("request")["status"] == "none"


def test_debug_shows_each_requests_path_status_and_milliseconds(bench: Bench) -> None:
    agent = bench.agent("--debug", HEARTBEAT_INTERVAL="0.1")
    for call in ("register", "heartbeat"):
        line = agent.wait_for("request", path=f"/v1/agent/{call}")
        assert (line["level"], line["status"]) == ("debug", 200)
        assert 0 < line["milliseconds"] < 5000


def test_without_debug_no_request_is_logged(bench: Bench) -> None:
    agent = bench.agent(HEARTBEAT_INTERVAL="0.1")
    agent.wait_for("registered")
    seen = bench.store.agents.get(1).last_heartbeat
    bench.wait(lambda: bench.store.agents.get(1).last_heartbeat != seen)
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert not [line for line in agent.lines if line["level"] == "debug"]


def test_a_key_in_a_message_is_replaced(bench: Bench) -> None:
    agent = with_canary(bench, IPERF3_PATH=f"/no/{CANARY}/iperf3")
    line = agent.wait_for("no usable iperf3: tests will fail until there is one")
    assert line["error"].startswith("/no/[hidden]/iperf3 cannot be run")


def test_a_file_name_that_is_not_utf_8_does_not_stop_the_log(bench: Bench) -> None:
    not_utf_8 = str(bench.directory / "state-\udcff")
    agent = bench.agent(STATE_DIR=not_utf_8)
    assert agent.wait_for("agent starts")["state_dir"].endswith("state-\\udcff")
    agent.wait_for("registered")
    with iperf3_server(port := free_port()):
        test = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, bytes=10**6)
        assert bench.ended(test).status == "succeeded", test.error


def test_the_console_format_is_for_people_and_is_appended_to_the_log_file(bench: Bench) -> None:
    log_file = bench.directory / "agent.log"
    log_file.write_text("before\n")
    settings = {"LOG_FORMAT": "console", "LOG_FILE": str(log_file), "MANAGER_URL": NO_MANAGER}
    agent = bench.agent(number=1, REGISTER_TIMEOUT="1", AGENT_KEY=CANARY, **settings)
    assert agent.exit_code() == 69
    assert all(isinstance(line, str) for line in agent.lines)
    first = agent.lines[0]
    assert "agent starts" in first and "[info" in first and "agent_name=a1" in first
    assert "\x1b" not in first, "no colours where no terminal is"
    assert log_file.read_text().splitlines() == ["before", *agent.lines]


def test_a_log_file_that_cannot_be_opened_exits_78(bench: Bench) -> None:
    missing = bench.directory / "missing" / "agent.log"
    agent = bench.agent(LOG_FILE=str(missing))
    assert agent.exit_code() == 78
    (line,) = agent.lines
    assert line.startswith(f"agent-run: LOG_FILE is '{missing}' (in the environment)")
    assert line.endswith("must be a file that this user can write")


@pytest.mark.parametrize("url", ["http://manager.example:8000", "HTTP://192.0.2.1"])
def test_plain_http_to_another_host_causes_one_warning_at_the_start(
    bench: Bench, faulty: MakeManager, url: str
) -> None:
    # The proxy answers in place of that host.
    agent = bench.agent(MANAGER_URL=url, ADVERTISE_ADDRESS="127.0.0.1", HTTP_PROXY=faulty(well).url)
    agent.wait_for("registered")
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    (warning,) = [line for line in agent.lines if "plain http" in line["message"]]
    assert warning is agent.lines[0]
    assert warning["level"] == "warning" and "MANAGER_CA_FILE" in warning["message"]


@pytest.mark.parametrize("url", ["http://[::1]:1", "https://manager.example:1"])
def test_loopback_and_https_cause_no_warning(bench: Bench, url: str) -> None:
    agent = bench.agent(
        MANAGER_URL=url,
        ADVERTISE_ADDRESS="127.0.0.1",
        REGISTER_TIMEOUT="1",
        HTTPS_PROXY=NO_MANAGER,
    )
    assert agent.exit_code() == 69
    assert [line for line in agent.lines if "plain http" in line["message"]] == []


# A greenlet fails, and a callback of the event loop.
FAILING = """
import gevent
from agent.logs.setup import configure_logging
writer = configure_logging("info", "json", "a1", lambda: "key-1")

def fail():
    raise ValueError("something with key-1 in it")

gevent.spawn(fail)
gevent.get_hub().loop.run_callback(fail)
gevent.sleep(0.1)
writer.close()
"""


def test_what_nobody_caught_is_a_line_without_the_key(tmp_path: Path) -> None:
    ended = run_program(sys.executable, "-c", FAILING, cwd=tmp_path)
    assert ended.errors == ""
    lines = [json.loads(line) for line in ended.output.splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert line["level"] == "error"
        assert "ValueError: something with [hidden] in it" in line["exception"]
