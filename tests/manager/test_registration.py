"""Registering with the Manager, and the agents that end because they could not."""

import signal
from pathlib import Path

import pytest

from agent.config.settings import read_settings
from agent.errors import ManagerAway
from agent.manager.registration import Registration
from tests.support.clock import Clock, install_clock
from tests.support.command import NO_MANAGER
from tests.support.faulty_manager import FaultyManager, Request, raw_reply, reply, well
from tests.support.harness import Bench, free_port, is_running
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager, client_of, silent

pytestmark = pytest.mark.process

PAGE = b"<html>no such page</html>"


def test_an_agent_that_reaches_no_manager_in_time_ends_with_69(tmp_path: Path) -> None:
    with lone_agent(NO_MANAGER, tmp_path, REGISTER_TIMEOUT="1") as agent:
        assert agent.exit_code(timeout=6) == 69
        said = agent.wait_for("agent ends", exit_code=69)["error"]
    assert "Connection refused" in said


def test_an_agent_that_cannot_register_logs_what_to_do(faulty: MakeManager, tmp_path: Path) -> None:
    manager = faulty(lambda _: raw_reply(PAGE, 503))
    with lone_agent(manager.url, tmp_path, REGISTER_TIMEOUT="1") as agent:
        assert agent.exit_code() == 69
        assert "agent-run --check" in agent.wait_for("agent ends", exit_code=69)["advice"]


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of a registration in the test's process."""
    return install_clock(monkeypatch, "manager.registration.time", "manager.registration.gevent")


def registration(manager: FaultyManager, seconds: float) -> Registration:
    """A registration at that Manager that has so many seconds."""
    given = {"advertise_address": "10.0.0.1", "register_timeout": str(seconds)}
    return Registration(
        read_settings(given, {"AGENT_KEY": "key-1"}), client_of(manager), lambda: None
    )


@pytest.mark.parametrize("seconds", [3, 20, 100])
def test_the_last_attempt_to_register_is_made_when_the_time_is_over(
    faulty: MakeManager, clock: Clock, seconds: float
) -> None:
    times: list[float] = []

    def answer(request: Request) -> bytes:
        times.append(clock.now)
        return raw_reply(PAGE, 503)

    with pytest.raises(ManagerAway):
        registration(faulty(answer), seconds).register()
    assert times[-1] - times[0] == pytest.approx(seconds)
    for pause, bound in zip(clock.pauses, (1, 2, 4, 8, 16, *[30] * 9), strict=False):
        assert pause <= bound


def test_registration_waits_for_as_long_as_it_is_told(faulty: MakeManager, clock: Clock) -> None:
    answers = [raw_reply(PAGE, 429, Retry_After="17")]
    manager = faulty(lambda request: answers.pop() if answers else well(request))
    registration(manager, 60).register()
    assert manager.calls() == ["register"] * 2
    assert clock.pauses == [17]


def test_registration_is_retried_until_it_succeeds(faulty: MakeManager, tmp_path: Path) -> None:
    answers = [raw_reply(PAGE, 503), raw_reply(PAGE, 404)]
    manager = faulty(lambda request: answers.pop() if answers else well(request))
    with lone_agent(manager.url, tmp_path, "--exit-after-idle", "0") as agent:
        assert agent.exit_code() == 0
        agent.wait_for("not registered yet")
        agent.wait_for("registered", agent_id=1, address="127.0.0.1")
    registers = [request for request in manager.requests if request.call == "register"]
    assert len(registers) == 3
    assert registers[-1].json()["ip_address"] == "127.0.0.1"


def test_the_address_that_is_set_is_the_one_that_is_registered(
    faulty: MakeManager, tmp_path: Path
) -> None:
    manager = faulty(well)
    idle = ("--exit-after-idle", "0.3")
    with lone_agent(manager.url, tmp_path, *idle, ADVERTISE_ADDRESS="192.0.2.7") as agent:
        assert agent.exit_code() == 0
    addresses = {r.call: r.json()["ip_address"] for r in manager.requests if r.call != "claim"}
    assert addresses == {"register": "192.0.2.7", "heartbeat": "192.0.2.7"}


@pytest.mark.parametrize("status", [401, 403, 426])
def test_a_refused_key_or_version_ends_the_agent_with_77(
    faulty: MakeManager, tmp_path: Path, status: int
) -> None:
    manager = faulty(lambda _: reply({"error": "refused"}, status))
    with lone_agent(manager.url, tmp_path) as agent:
        assert agent.exit_code() == 77
    assert manager.calls() == ["register"]


@pytest.mark.parametrize("status", [401, 403, 426])
def test_a_page_that_refuses_the_first_call_does_not_end_the_agent(
    faulty: MakeManager, tmp_path: Path, status: int
) -> None:
    answers = [raw_reply(PAGE, status)]
    manager = faulty(lambda request: answers.pop() if answers else well(request))
    with lone_agent(manager.url, tmp_path, "--exit-after-idle", "0") as agent:
        assert agent.exit_code() == 0
        said = agent.wait_for("not registered yet")["error"]
        agent.wait_for("registered")
    assert f"{status}, but not in the Manager's words" in said


def test_a_wrong_key_is_refused_in_the_managers_words_and_never_logged(
    bench: Bench, tmp_path: Path
) -> None:
    with lone_agent(bench.manager.url, tmp_path, AGENT_KEY="wrong-secret") as agent:
        assert agent.exit_code() == 77
        assert "invalid_agent_key" in agent.wait_for("agent ends")["error"]
    assert "secret" not in str(agent.lines)


def test_an_agent_that_the_manager_does_not_know_ends_with_67(bench: Bench, tmp_path: Path) -> None:
    with lone_agent(bench.manager.url, tmp_path, AGENT_NAME="stranger") as agent:
        assert agent.exit_code() == 67


def test_an_agent_that_is_disabled_stops_its_children_and_ends_with_67(bench: Bench) -> None:
    agent = bench.agent(HEARTBEAT_INTERVAL="0.2", SHUTDOWN_TIMEOUT="30")
    server = bench.ended(bench.task("iperf_server_start", port=free_port()))
    pid = bench.result(server)["pid"]
    bench.store.agents.set_disabled(1, True)
    assert agent.exit_code(timeout=6) == 67
    assert not is_running(pid)


def test_a_signal_ends_an_agent_whose_manager_is_silent(
    faulty: MakeManager, tmp_path: Path
) -> None:
    manager = faulty(silent)
    with lone_agent(manager.url, tmp_path) as agent:
        manager.wait_for(lambda: manager.requests)
        agent.signal(signal.SIGTERM)
        assert agent.exit_code(timeout=6) == 0
        agent.wait_for("agent stopped before it was registered", why="SIGTERM")
    assert all(isinstance(line, dict) for line in agent.lines), "a traceback is no JSON"


def test_a_key_that_is_refused_later_does_not_stop_running_tests(
    faulty: MakeManager, tmp_path: Path
) -> None:
    port = free_port()
    task = {"id": 1, "type": "iperf_server_start", "payload": {"port": port}}

    def answer(request: Request) -> bytes:
        if request.call == "claim" and manager.calls().count("claim") == 1:
            return reply({"task": task})
        if request.call == "heartbeat" and "result" in manager.calls():
            return reply({"detail": {"error": "invalid_agent_key"}}, 401)
        return well(request)

    manager = faulty(answer)
    with lone_agent(manager.url, tmp_path) as agent:
        pid = agent.wait_for("server listens")["pid"]
        agent.wait_for("the Manager refuses the key; tests go on")
        seen = manager.calls().count("claim")
        manager.wait_for(lambda: manager.calls().count("claim") > seen + 3)
        assert is_running(pid)
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
    assert not is_running(pid)
