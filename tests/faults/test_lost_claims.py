"""Claims whose answers are lost after the Manager has handed a task out."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.dev.store.records import ManagedTask
from tests.support.command import stand_in
from tests.support.faulty_manager import FaultyManager, Request
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server
from tests.support.lone_agent import lone_agent, passed_on
from tests.support.sockets import MakeManager, reset

LOSSES = 100
# A Manager without replay loses a task with each of them.
LOSSES_OF_TODAY = 20
# Tests may overlap for a moment, and an iperf3 server takes one at a time.
SERVERS = 4
# A task is known among the runs by how much it sends: so many bytes and its id.
BYTES = 100_000
LOST = "a claim had no answer: if it obtained a task, that task is lost"


class Losses:
    """What stands between the agent and a dev Manager, and resets some connections.

    `is_lost` is asked once for each task that is handed out for the first time.
    """

    def __init__(self, url: str, is_lost: Callable[[int], bool], long_poll: bool) -> None:
        self._url = url
        self._is_lost = is_lost
        self._applied = b"\r\nPreference-Applied: wait\r\n" if long_poll else b"\r\n"
        self.handed_out: Counter[int] = Counter()
        self.lost: set[int] = set()

    def __call__(self, request: Request) -> bytes:
        """Pass the request on, and its answer back unless that is to be lost."""
        answer = passed_on(request, self._url)
        if request.call != "claim" or not answer.startswith(b"HTTP/1.1 200"):
            return answer
        if task := json.loads(answer.partition(b"\r\n\r\n")[2])["task"]:
            self.handed_out[task["id"]] += 1
            if self.handed_out[task["id"]] == 1 and self._is_lost(task["id"]):
                self.lost.add(task["id"])
                reset(request.socket)
                return b""
        return answer.replace(b"\r\n", self._applied, 1)


class Counted:
    """Client tests, and how often each was run in truth."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self._bench = bench
        self._runs = directory / "runs"
        self._runs.touch()
        lines = f'case "$*" in *-c*) echo "$@" >>{self._runs};; esac\nexec iperf3 "$@"'
        self.iperf3 = stand_in(directory / "iperf3", lines)

    def add(self, count: int, ports: list[int]) -> list[ManagedTask]:
        """So many tasks for agent a1, with the ids from 1 on."""
        return [
            self._bench.task(
                "iperf_client_run",
                server_ip="127.0.0.1",
                port=ports[task_id % len(ports)],
                bytes=BYTES + task_id,
                time=10,
                max_retries=0,
            )
            for task_id in range(1, count + 1)
        ]

    def runs(self) -> Counter[int]:
        """How often a client was started for each task."""
        argvs = [line.split() for line in self._runs.read_text().splitlines()]
        return Counter(int(argv[argv.index("-n") + 1]) - BYTES for argv in argvs)


@pytest.fixture(name="ports")
def fixture_ports() -> Iterator[list[int]]:
    """Ports on which iperf3 servers listen."""
    with ExitStack() as stack:
        ports = [free_port() for _ in range(SERVERS)]
        for port in ports:
            stack.enter_context(iperf3_server(port))
        yield ports


def lines_of(agent: AgentProcess, message: str) -> int:
    """How many lines of the log have this message."""
    return sum(1 for line in agent.lines if isinstance(line, dict) and line["message"] == message)


@pytest.mark.timeout(300)
def test_a_hundred_lost_claims_lose_no_task_of_a_manager_with_replay(
    bench: Bench, faulty: MakeManager, ports: list[int], tmp_path: Path
) -> None:
    """Some 60 s: each loss costs the first step of the back-off, half a second on average. All
    100 tasks are handed out twice, run once and reported once."""
    losses = Losses(bench.manager.url, lambda task_id: True, long_poll=True)
    manager = faulty(losses)
    counted = Counted(bench, tmp_path)
    tasks = counted.add(LOSSES, ports)
    with lone_agent(manager.url, tmp_path, IPERF3_PATH=counted.iperf3) as agent:
        for task in tasks:
            assert bench.ended(task).status == "succeeded", task.error
        assert not lines_of(agent, LOST), "nothing is lost"
    runs = counted.runs()
    print(f"{len(losses.lost)} answers lost; {len(runs)} tasks, run {sum(runs.values())} times")
    every = {task.id for task in tasks}
    assert losses.lost == every
    assert losses.handed_out == Counter({task_id: 2 for task_id in every})
    assert runs == Counter(every)
    assert results(manager) == Counter(every)


@pytest.mark.timeout(120)
def test_todays_manager_loses_the_task_with_the_answer_and_the_log_says_so(
    todays_bench: Bench, faulty: MakeManager, ports: list[int], tmp_path: Path
) -> None:
    """Some 12 s. Every other one of 40 tasks is lost: it stays `accepted` at the Manager and is
    not run, the others run once, and each loss has its line in the log."""
    bench = todays_bench
    losses = Losses(bench.manager.url, lambda task_id: task_id % 2 == 1, long_poll=False)
    manager = faulty(losses)
    counted = Counted(bench, tmp_path)
    tasks = counted.add(2 * LOSSES_OF_TODAY, ports)
    with lone_agent(manager.url, tmp_path, IPERF3_PATH=counted.iperf3) as agent:
        for task in tasks[1::2]:
            assert bench.ended(task).status == "succeeded", task.error
        said = lines_of(agent, LOST)
    runs = counted.runs()
    print(f"{len(losses.lost)} answers lost, {said} lines of it; {len(runs)} tasks run once")
    assert losses.lost == {task.id for task in tasks[::2]}
    assert {task.status for task in tasks[::2]} == {"accepted"}
    assert runs == results(manager) == Counter(task.id for task in tasks[1::2])
    assert said == LOSSES_OF_TODAY


def results(manager: FaultyManager) -> Counter[int]:
    """How many results of each task were sent."""
    sent = [request for request in manager.requests if request.call == "result"]
    return Counter(int(request.path.split("/")[-2]) for request in sent)
