"""Registering with the Manager, and the agents that end because they could not."""

import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from agent.config.settings import read_settings
from agent.errors import ManagerAway
from agent.manager.registration import Registration
from tests.support.clock import Clock, install_clock
from tests.support.command import NO_MANAGER
from tests.support.faulty_manager import FaultyManager, Request, raw_reply, reply, well
from tests.support.harness import Bench, free_port, is_running
from tests.support.impatient import impatient_agent
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager, client_of, silent

pytestmark = pytest.mark.process

PAGE = b"<html>no such page</html>"


def test_an_agent_that_reaches_no_manager_in_time_ends_with_69(tmp_path: Path) -> None:
    with lone_agent(NO_MANAGER, tmp_path, REGISTER_TIMEOUT="1") as agent:
        assert agent.exit_code() == 69
        said = agent.wait_for("agent ends", exit_code=69)["error"]
    assert "the Manager refuses the connection" in said


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
    bench.store.agents.update(1, {"disabled": True})
    assert agent.exit_code() == 67
    assert not is_running(pid)


def test_a_signal_ends_an_agent_whose_manager_is_silent(
    faulty: MakeManager, tmp_path: Path
) -> None:
    manager = faulty(silent)
    with lone_agent(manager.url, tmp_path) as agent:
        manager.wait_for(lambda: manager.requests)
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
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


class Renewed:
    """A registered agent's registration with its greenlet, and a clock that a test moves."""

    def __init__(
        self, manager: FaultyManager, monkeypatch: pytest.MonkeyPatch, interval: float = 5
    ) -> None:
        self.clock = install_clock(monkeypatch, "manager.registration.time")
        self.manager, self.interval = manager, interval
        self.route = "10.0.0.1"
        self.lookups = 0
        monkeypatch.setattr("agent.host.local_address", self._local_address)
        given = {"manager_url": manager.url, "heartbeat_interval": str(interval)}
        settings = read_settings(given, {"AGENT_KEY": "key-1"})
        self.replaced: list[bool] = []
        self.registration = Registration(
            settings, client_of(manager), lambda: self.replaced.append(True)
        )
        self.registration.register()
        self.stop = Event()
        self.greenlet = gevent.spawn(self.registration.run, self.stop)

    def _local_address(self, url: str) -> str:
        self.lookups += 1
        if not self.route:
            raise OSError("Network is unreachable")
        return self.route

    def pass_time(self, seconds: float, answered: bool) -> None:
        """Let heartbeats come for so long, and the greenlet do what follows from each."""
        for _ in range(round(seconds / self.interval)):
            self.clock.now += self.interval
            self.registration.record_heartbeat(answered)
            # The answer to a registration takes a few turns of the hub.
            gevent.sleep(0.02)

    def end(self) -> None:
        """End the greenlet, which does nothing more."""
        seen = self.lookups
        self.stop.set()
        self.greenlet.join(5)
        assert self.greenlet.successful()
        assert self.lookups == seen

    def asked(self) -> int:
        """How often it registered, the first time included."""
        return self.manager.calls().count("register")


@pytest.fixture(name="renewed")
def fixture_renewed(faulty: MakeManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[Renewed]:
    """A registered agent whose heartbeats come every 5 s."""
    made = Renewed(faulty(well), monkeypatch)
    yield made
    made.end()


def test_an_agent_whose_heartbeats_are_answered_registers_once(renewed: Renewed) -> None:
    renewed.pass_time(600, answered=True)
    for _ in range(10):
        renewed.pass_time(5, answered=False)
        renewed.pass_time(5, answered=True)
    assert renewed.asked() == 1, "nor after a short silence"


def test_an_agent_registers_once_after_a_silence_of_15_s(renewed: Renewed) -> None:
    for silences in (1, 2, 3):
        renewed.pass_time(15, answered=False)
        assert renewed.asked() == silences, "not while nobody answers"
        renewed.pass_time(60, answered=False)
        assert renewed.asked() == silences
        renewed.pass_time(30, answered=True)
        assert renewed.asked() == silences + 1
    assert renewed.replaced == []


def test_where_heartbeats_are_rare_a_silence_is_three_of_their_intervals(
    faulty: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = Renewed(faulty(well), monkeypatch, interval=10)
    rare.pass_time(10, answered=False)
    rare.pass_time(20, answered=True)
    assert rare.asked() == 1
    rare.pass_time(30, answered=False)
    rare.pass_time(20, answered=True)
    assert rare.asked() == 2
    rare.end()


def test_a_registration_that_is_due_is_tried_with_each_heartbeat_until_it_is_answered(
    renewed: Renewed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.timing.random.uniform", lambda low, high: 0.0)
    answers = [raw_reply(PAGE, 500), raw_reply(PAGE, 404), b""]
    renewed.manager.answer = lambda request: answers.pop() if answers else well(request)
    renewed.pass_time(15, answered=False)
    renewed.pass_time(60, answered=True)
    assert answers == []
    assert renewed.asked() == 5, "the first, three that failed, and the last"


@pytest.mark.parametrize(
    ("record", "is_replaced"),
    [
        ({"id": 1}, False),
        ({"id": 1, "first_registered": "2026-01-02 05:04:05.5+02:00"}, False),
        ({"id": 1, "first_registered": "2026-01-02T03:04:08Z"}, True),
        ({"id": 2, "first_registered": "2026-01-02T03:04:05Z"}, True),
    ],
)
def test_what_is_in_hand_is_nobodys_when_the_agents_record_is_another_one(
    faulty: MakeManager,
    monkeypatch: pytest.MonkeyPatch,
    record: dict[str, object],
    is_replaced: bool,
) -> None:
    records = [record, {"id": 1, "first_registered": "2026-01-02T03:04:05Z"}]
    renewed = Renewed(faulty(lambda _: reply(records.pop())), monkeypatch)
    renewed.pass_time(15, answered=False)
    renewed.pass_time(10, answered=True)
    assert renewed.replaced == [True] * is_replaced
    assert renewed.registration.origin and renewed.registration.origin.agent_id == record["id"]
    renewed.end()


def test_an_address_that_changes_is_told_within_a_minute(renewed: Renewed) -> None:
    renewed.pass_time(5, answered=True)
    assert (renewed.registration.address, renewed.lookups) == ("10.0.0.1", 1)
    renewed.route = "10.0.0.2"
    renewed.pass_time(55, answered=True)
    assert renewed.registration.address == "10.0.0.2"
    renewed.pass_time(600, answered=True)
    assert renewed.lookups == 12, "once a minute"
    assert renewed.asked() == 1


def test_an_address_that_changes_is_told_after_a_heartbeat_that_failed(renewed: Renewed) -> None:
    renewed.route = "10.0.0.2"
    renewed.pass_time(5, answered=False)
    assert renewed.registration.address == "10.0.0.2"
    assert renewed.asked() == 1


def test_an_agent_without_a_route_keeps_its_address_until_there_is_one(
    renewed: Renewed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.timing.random.uniform", lambda low, high: 0.0)
    renewed.route = ""
    renewed.pass_time(20, answered=False)
    assert renewed.registration.address == "10.0.0.1"
    renewed.route = "10.0.0.3"
    renewed.pass_time(5, answered=False)
    assert renewed.registration.address == "10.0.0.3"


def test_heartbeats_carry_the_address_of_the_present_route(
    faulty: MakeManager, tmp_path: Path
) -> None:
    """The agent's name server points the Manager's name to another route."""
    hosts = tmp_path / "route"
    hosts.write_text("10.0.0.1")

    def answer(request: Request) -> bytes:
        if request.call == "heartbeat" and hosts.read_text() != request.json()["ip_address"]:
            return raw_reply(PAGE, 502)
        return well(request)

    manager = faulty(answer)
    with impatient_agent(manager.url, tmp_path, route_in=hosts) as agent:
        agent.wait_for("registered", address="10.0.0.1")
        manager.wait_for(lambda: manager.calls().count("heartbeat") > 2)
        hosts.write_text("10.0.0.2")
        agent.wait_for("no heartbeat; tests go on")
        agent.wait_for("the Manager is back")
    beats = [r.json()["ip_address"] for r in manager.requests if r.call == "heartbeat"]
    assert beats[-1] == "10.0.0.2"
