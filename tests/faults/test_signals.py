"""Fault 8: signals at every moment of an agent's life; each prints the exit code and the seconds.

Promised are 2 s for an idle agent and SHUTDOWN_TIMEOUT for a busy one; three times that is
asserted. What an agent does until then is in `tests/service/test_drain.py`.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.support.command import NO_MANAGER, stand_in
from tests.support.deaf_child import with_a_deaf_child
from tests.support.faulty_manager import FaultyManager, Request, raw_reply, reply, well
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server, is_running, until
from tests.support.lone_agent import lone_agent, passed_on
from tests.support.sockets import MakeManager, silent

pytestmark = pytest.mark.timeout(120)

IDLE = 2.0
SHUTDOWN_TIMEOUT = 4.0
TERM, INT, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
TARGET = {"server_ip": "127.0.0.1", "port": 5201, "time": 60}
TEST = {"id": 7, "type": "iperf_client_run", "payload": TARGET}
HANGS = "exec sleep 60"


@dataclass
class Scene:
    """A Manager with at most one task, and what else an agent meets in it.

    `answers` are for calls that are not answered well. `children` are the pids that the stand-in
    for iperf3 has written down.
    """

    manager: FaultyManager
    directory: Path
    task: dict[str, Any] | None = None
    answers: dict[str, Callable[[Request], bytes]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def answer(self, request: Request) -> bytes:
        """The Manager's part."""
        if request.call in self.answers:
            return self.answers[request.call](request)
        if request.call == "claim" and self.manager.calls().count("claim") == 1:
            return reply({"task": self.task})
        return well(request)

    def iperf3(self, behaviour: str) -> None:
        """Let the agent have this instead of iperf3; its first act is to write its pid down."""
        noted = f"echo $$ >>{self.directory}/children\n{behaviour}"
        self.variables["IPERF3_PATH"] = stand_in(self.directory / "iperf3", noted)

    def children(self) -> list[int]:
        """The pids of the stand-ins that were started."""
        noted = self.directory / "children"
        return [int(pid) for pid in noted.read_text().split()] if noted.exists() else []

    @contextmanager
    def agent(self) -> Iterator[AgentProcess]:
        """The agent of the scene."""
        variables = {"SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT), "STOP_GRACE": "1", **self.variables}
        with lone_agent(self.manager.url, self.directory, **variables) as agent:
            yield agent

    def results(self) -> list[Any]:
        """The results that the Manager got."""
        return [request.json() for request in self.manager.requests if request.call == "result"]


@pytest.fixture(name="scene")
def fixture_scene(faulty: MakeManager, tmp_path: Path) -> Scene:
    """A scene in which nothing is wrong."""
    manager = faulty(lambda request: scene.answer(request))
    scene = Scene(manager, tmp_path)
    return scene


def send(agent: AgentProcess, number: signal.Signals) -> None:
    """Send a signal to an agent that may have ended already."""
    with suppress(ProcessLookupError):
        agent.signal(number)


def ends(agent: AgentProcess, what: str, most: float, least: float = 0) -> int:
    """Wait for the end; prints the exit code and how long it took from now."""
    began = time.monotonic()
    code = agent.exit_code(timeout=60)
    took = time.monotonic() - began
    print(f"{what}: exit code {code} after {took:.2f} s")
    assert least <= took < 3 * most
    return code


def silent_manager(scene: Scene, agent: AgentProcess) -> None:
    """It waits for the answer to its registration."""
    scene.manager.wait_for(lambda: "register" in scene.manager.calls())


def backing_off(scene: Scene, agent: AgentProcess) -> None:
    """Its registration has failed and it will try again."""
    agent.wait_for("not registered yet")


def probing(scene: Scene, agent: AgentProcess) -> None:
    """It waits for what `iperf3 --version` says."""
    until(scene.children)


def idle(scene: Scene, agent: AgentProcess) -> None:
    """It has nothing to do, and its next claim is far away."""
    scene.manager.wait_for(lambda: scene.manager.calls().count("heartbeat") > 2)


def claiming(scene: Scene, agent: AgentProcess) -> None:
    """Its claim is held."""
    scene.manager.wait_for(lambda: "claim" in scene.manager.calls())


def running(scene: Scene, agent: AgentProcess) -> None:
    """Its child runs."""
    until(scene.children)


def sending(scene: Scene, agent: AgentProcess) -> None:
    """The Manager takes its time for a result."""
    scene.manager.wait_for(lambda: "result" in scene.manager.calls())


def set_up(scene: Scene, moment: Callable[[Scene, AgentProcess], None]) -> float:
    """What brings that moment about; returns how many seconds the agent may take to end then."""
    if moment is silent_manager:
        scene.answers["register"] = silent
    elif moment is backing_off:
        scene.variables["MANAGER_URL"] = NO_MANAGER
    elif moment is probing:
        hanging = scene.directory / "iperf3"
        hanging.write_text(f"#!/bin/sh\necho $$ >>{scene.directory}/children\n{HANGS}\n")
        hanging.chmod(0o755)
        scene.variables["IPERF3_PATH"] = str(hanging)
    elif moment is idle:
        scene.variables["CLAIM_INTERVAL"] = "60"
    elif moment is claiming:
        scene.answers["claim"] = silent
    elif moment is running:
        scene.task = TEST
        scene.iperf3(HANGS)
        return SHUTDOWN_TIMEOUT
    elif moment is sending:
        scene.task = {"id": 7, "type": "kill_all", "payload": {}}
        scene.answers["result"] = slowly
        return SHUTDOWN_TIMEOUT
    return IDLE


def slowly(request: Request) -> bytes:
    """An answer that takes a while."""
    gevent.sleep(0.7)
    return well(request)


MOMENTS = [silent_manager, backing_off, probing, idle, claiming, running, sending]


@pytest.mark.parametrize("moment", MOMENTS)
def test_one_term_ends_it_well_at_any_moment(
    scene: Scene, moment: Callable[[Scene, AgentProcess], None]
) -> None:
    most = set_up(scene, moment)
    with scene.agent() as agent:
        moment(scene, agent)
        agent.signal(TERM)
        assert ends(agent, f"TERM while {moment.__name__}", most) == 0
        until(lambda: not any(is_running(pid) for pid in scene.children()))
        assert all(isinstance(line, dict) for line in agent.lines), agent.lines
    if moment in (running, sending):
        (result,) = scene.results()
        assert result["status"] == ("succeeded" if moment is sending else "failed")
        agent.wait_for("agent stopped", undelivered=0, running=0)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("moment", MOMENTS)
def test_more_signals_only_end_it_sooner(
    scene: Scene, moment: Callable[[Scene, AgentProcess], None], count: int
) -> None:
    most = set_up(scene, moment)
    with scene.agent() as agent:
        moment(scene, agent)
        # While it is stopped they gather, so that none comes to an agent that has ended.
        agent.signal(signal.SIGSTOP)
        for number in (TERM, INT, USR1)[:count]:
            agent.signal(number)
        agent.signal(signal.SIGCONT)
        code = ends(agent, f"{count} signals while {moment.__name__}", min(most, IDLE))
        assert code == 0
        until(lambda: not any(is_running(pid) for pid in scene.children()))


def test_the_third_term_is_the_end_at_once_whatever_hangs(scene: Scene) -> None:
    set_up(scene, running)
    scene.iperf3("trap '' TERM\nexec sleep 60")
    scene.answers["result"] = silent
    scene.variables["STOP_GRACE"] = "300"
    with scene.agent() as agent:
        running(scene, agent)
        agent.signal(TERM)
        agent.wait_for("agent stops")
        agent.signal(signal.SIGSTOP)
        agent.signal(TERM)
        agent.signal(INT)
        agent.signal(signal.SIGCONT)
        assert ends(agent, "three signals", 1) in (128 + TERM, 128 + INT)
        until(lambda: not any(is_running(pid) for pid in scene.children()))


def test_a_term_at_the_start_of_a_child_loses_neither_the_child_nor_the_task(scene: Scene) -> None:
    scene.task = TEST
    scene.iperf3(f"kill -TERM $PPID\n{HANGS}")
    with scene.agent() as agent:
        assert ends(agent, "TERM at the start of a child", SHUTDOWN_TIMEOUT) == 0
        (result,) = scene.results()
    assert (result["status"], result["stderr"]) == ("failed", "the agent was stopped (SIGTERM)")
    (child,) = scene.children()
    assert not is_running(child)


def test_a_result_in_back_off_is_tried_at_once_when_the_agent_is_to_end(scene: Scene) -> None:
    stopping: list[bool] = []
    scene.task = {"id": 7, "type": "kill_all", "payload": {}}
    scene.answers["result"] = lambda request: (
        well(request) if stopping else raw_reply(b"<html>", 503, Retry_After="200")
    )
    with scene.agent() as agent:
        agent.wait_for("not delivered yet", retry_in=200)
        stopping.append(True)
        agent.signal(TERM)
        assert ends(agent, "TERM with a result in back-off", IDLE) == 0
        agent.wait_for("agent stopped", undelivered=0)
    assert [result["status"] for result in scene.results()] == ["succeeded"] * 2


def test_an_iperf3_that_hangs_when_a_task_asks_for_its_version_holds_up_no_term(
    scene: Scene,
) -> None:
    scene.task = TEST
    later = scene.directory / "later"
    scene.variables["IPERF3_PATH"] = str(later)
    noted = f"#!/bin/sh\necho $$ >>{scene.directory}/children\n{HANGS}\n"

    def appear(request: Request) -> bytes:
        if not later.exists():
            later.write_text(noted)
            later.chmod(0o755)
        del scene.answers["heartbeat"]
        return well(request)

    scene.answers["heartbeat"] = appear
    scene.answers["claim"] = lambda request: reply(
        {"task": TEST if later.exists() and not scene.children() else None}
    )
    with scene.agent() as agent:
        until(scene.children)
        agent.signal(TERM)
        code = ends(agent, "TERM while a task asks for the version", SHUTDOWN_TIMEOUT)
        assert code == 0
    until(lambda: not any(is_running(pid) for pid in scene.children()))
    if not scene.results():
        later.unlink()
        with scene.agent() as agent:
            agent.wait_for("result delivered", task_id=7)
    assert [result["status"] for result in scene.results()] == ["failed"]


def test_usr1_lets_client_tests_end_and_takes_no_more(todays_bench: Bench) -> None:
    bench = todays_bench
    port = free_port()
    with iperf3_server(port):
        server = bench.task("iperf_server_start", port=free_port())
        client = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=3)
        # Without a long poll, a claim that is under way when USR1 comes would be bad luck.
        agent = bench.agent(CLAIM_INTERVAL="60")
        pid = bench.result(bench.ended(server))["pid"]
        bench.wait(lambda: client.status == "running")
        agent.signal(USR1)
        agent.wait_for("agent retires", why="SIGUSR1", clients=1)
        late = bench.task("kill_all")
        agent.wait_for("client ended")
        assert ends(agent, "USR1 with a test, from its end", IDLE) == 0
    assert client.status == "succeeded", client.error
    assert bench.result(client)["end"]["sum_sent"]["seconds"] > 2.7, "it was not cut short"
    assert bench.result(server)["agent"]["ended"] == "the agent was stopped (SIGUSR1)"
    assert not is_running(pid)
    assert late.status == "pending"
    agent.wait_for("agent stopped", undelivered=0, running=0)


def test_a_term_after_usr1_waits_for_no_test(bench: Bench) -> None:
    agent = bench.agent(SHUTDOWN_TIMEOUT=str(SHUTDOWN_TIMEOUT))
    port = free_port()
    with iperf3_server(port):
        given: dict[str, Any] = {
            "server_ip": "127.0.0.1",
            "port": port,
            "time": 60,
            "interval": 0.1,
        }
        client = bench.task("iperf_client_run", **given)
        bench.wait(lambda: client.status == "running")
        gevent.sleep(0.5)
        agent.signal(USR1)
        agent.wait_for("agent retires")
        agent.signal(TERM)
        assert ends(agent, "USR1 and TERM with a test", SHUTDOWN_TIMEOUT) == 0
    assert client.error and client.error.startswith("the agent was stopped (SIGTERM)")
    assert bench.result(client)["intervals"], "what was measured until then is kept"


@pytest.mark.parametrize("moment", [silent_manager, probing, idle, claiming, sending])
def test_usr1_ends_an_agent_without_a_client_test(
    scene: Scene, moment: Callable[[Scene, AgentProcess], None]
) -> None:
    most = set_up(scene, moment)
    with scene.agent() as agent:
        moment(scene, agent)
        agent.signal(USR1)
        assert ends(agent, f"USR1 while {moment.__name__}", most) == 0
        until(lambda: not any(is_running(pid) for pid in scene.children()))
        if moment is sending:
            agent.wait_for("agent stopped", undelivered=0)


def test_an_idle_agent_ends_within_two_seconds_though_the_manager_holds_its_claim(
    bench: Bench,
) -> None:
    agent = bench.agent()
    bench.wait(lambda: bench.store.agents.get(1).last_heartbeat)
    agent.wait_for("registered")
    agent.signal(signal.SIGINT)
    assert ends(agent, "INT while the dev Manager holds the claim", IDLE) == 0
    agent.wait_for("agent stops", why="SIGINT", running=0)
    agent.wait_for("agent stopped", undelivered=0, running=0)


def test_a_second_signal_kills_a_child_that_is_deaf_to_the_first(bench: Bench) -> None:
    agent, _, pid = with_a_deaf_child(bench, STOP_GRACE="60", SHUTDOWN_TIMEOUT="60")
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent stops", running=1)
    agent.signal(signal.SIGTERM)
    assert ends(agent, "two signals with a deaf child", 1) == 0
    assert not is_running(pid)


def test_a_deaf_child_is_killed_in_time_for_its_result_to_be_delivered(
    bench: Bench, faulty: MakeManager
) -> None:
    def take_results_slowly(request: Request) -> bytes:
        gevent.sleep(0.1 if request.call == "result" else 0)
        return passed_on(request, bench.manager.url)

    url = faulty(take_results_slowly).url
    times = {"STOP_GRACE": "60", "SHUTDOWN_TIMEOUT": "2"}
    agent, client, pid = with_a_deaf_child(bench, MANAGER_URL=url, **times)
    agent.signal(signal.SIGTERM)
    assert ends(agent, "TERM with a deaf child", 2) == 0
    assert not is_running(pid)
    assert client.status == "failed"
    assert client.error == "the agent was stopped (SIGTERM)"


def test_results_are_awaited_no_longer_than_the_shutdown_may_take(
    faulty: MakeManager, tmp_path: Path
) -> None:
    task = {"id": 1, "type": "kill_all", "payload": {}}

    def answer(request: Request) -> bytes:
        if request.call == "claim" and manager.calls().count("claim") == 1:
            return reply({"task": task})
        return b"" if request.call == "result" else well(request)

    manager = faulty(answer)
    with lone_agent(manager.url, tmp_path, SHUTDOWN_TIMEOUT="1") as agent:
        agent.wait_for("not delivered yet")
        agent.signal(signal.SIGTERM)
        assert ends(agent, "TERM with a result that nobody takes", 1, least=0.9) == 0
        agent.wait_for("agent stopped", undelivered=1)
