"""A Manager that is killed in the middle of tests, and comes back: with its state, or empty."""

from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest

from agent.state.message import Message
from tests.support.harness import AgentProcess, free_port, iperf3_server, is_running, until
from tests.support.lone_agent import lone_agent
from tests.support.manager_process import HEARTBEAT_WITHIN, killable

# Seconds that the Manager is away.
AWAY = 60.0
# Of twenty tests, in seconds: two end before it goes, fourteen while it is away, and four later.
LENGTHS = (1, 1, *range(16, 58, 3), 75, 76, 77, 78)
# Slow enough that twenty of them disturb nobody: bits per second.
BITRATE = 100_000
# What is promised; the test waits for three times as long.
RESULTS_WITHIN = 35.0


def ended(agent: AgentProcess) -> set[int]:
    """The client tests of which the agent has said that they have ended well."""
    lines = [line for line in agent.lines if isinstance(line, dict)]
    good = {"message": "client ended", "exit_code": 0}
    return {line["task_id"] for line in lines if good.items() <= line.items()}


def delivered(agent: AgentProcess, task_id: int) -> int:
    """How many results of a task the agent says that the Manager took."""
    lines = [line for line in agent.lines if isinstance(line, dict)]
    said = [(line["message"], line.get("task_id")) for line in lines]
    return said.count(("result delivered", task_id))


def files_in(directory: Path) -> list[Path]:
    """What waits in the agent's outbox, or was set aside."""
    state = directory / "state"
    return [file for below in ("outbox", "rejected") for file in (state / below).iterdir()]


@pytest.mark.timeout(400)
def test_a_manager_that_was_away_for_a_minute_gets_every_result(tmp_path: Path) -> None:
    """Some 90 s. The results that waited are there within 30 s of the Manager's return, which is
    the longest pause between two attempts, and 35 s are promised; a heartbeat within 5 s."""
    state = str(tmp_path / "manager.json")
    with killable("--state", state) as manager:
        with lone_agent(manager.url, tmp_path, HEARTBEAT_INTERVAL="5") as agent:
            ports = [free_port() for _ in LENGTHS]
            servers = [manager.add("iperf_server_start", port=port) for port in ports]
            manager.wait_for_status("succeeded", *servers)
            clients = [
                manager.add(
                    "iperf_client_run",
                    server_ip="127.0.0.1",
                    port=port,
                    time=seconds,
                    bitrate=BITRATE,
                )
                for port, seconds in zip(ports, LENGTHS, strict=True)
            ]
            manager.wait_for_status("succeeded", *clients[:2])
            manager.wait_for_status("running", *clients[2:])
            manager.kill()
            gevent.sleep(AWAY)
            assert ended(agent) == set(clients[:16]), "tests go on and come to their ends"
            manager.start()
            heartbeat = manager.age(agent.wait_for("the Manager is back", HEARTBEAT_WITHIN))
            manager.wait_for_status("succeeded", *clients[2:16], timeout=3 * RESULTS_WITHIN)
            arrived = manager.age()
            manager.wait_for_status("succeeded", *clients, timeout=3 * RESULTS_WITHIN)
            until(lambda: all("end" in task["result"] for task in manager.tasks(*servers)))
            until(lambda: not files_in(tmp_path))
            manager.wait_for_heartbeat()
            print(f"away for {AWAY:g} s: a heartbeat {heartbeat:.1f} s after its return,")
            print(f"the 14 results that had waited {arrived:.1f} s after it")
            for seconds, task in zip(LENGTHS, manager.tasks(*clients), strict=True):
                assert task["result"]["end"]["sum_sent"]["seconds"] >= seconds - 1, "it went on"
                assert delivered(agent, task["id"]) == 1


@pytest.mark.timeout(120)
def test_an_empty_managers_task_gets_no_result_of_an_old_one(tmp_path: Path) -> None:
    """The old results go to rejected/ when a claim brings their numbers, or the Manager refuses.

    The new task 7 is a server, which takes further results: nothing but what the agent knows of
    its tasks keeps the old one's away from it.
    """
    with ExitStack() as stack:
        ports = [free_port() for _ in range(4)]
        for port in ports[:3]:
            stack.enter_context(iperf3_server(port))
        manager = stack.enter_context(killable())
        agent = stack.enter_context(lone_agent(manager.url, tmp_path))
        fillers = [manager.add("kill_all") for _ in range(6)]
        manager.wait_for_status("succeeded", *fillers)
        old = [
            manager.add("iperf_client_run", server_ip="127.0.0.1", port=port, time=seconds)
            for port, seconds in zip(ports[:3], (4, 4, 60), strict=True)
        ]
        assert old == [7, 8, 9]
        manager.wait_for_status("running", *old)
        manager.kill()
        for task_id in (7, 8):
            agent.wait_for("client ended", task_id=task_id, exit_code=0)
        running = agent.wait_for("client started", task_id=9)["pid"]
        assert is_running(running), "tests go on"
        manager.start()
        assert [manager.add("kill_all") for _ in range(6)] == fillers
        new = [
            manager.add("iperf_server_start", port=ports[3]),
            manager.add("iperf_client_run", server_ip="127.0.0.1", port=ports[0], time=1),
        ]
        assert new == [7, 8]
        heartbeat = manager.age(agent.wait_for("the Manager is back", HEARTBEAT_WITHIN))
        manager.wait_for_status("succeeded", *fillers, *new)
        until(lambda: set_aside(tmp_path) == {7, 8, 9})
        print(f"a heartbeat {heartbeat:.1f} s after the return, all old results aside by")
        print(f"{manager.age():.1f} s after it")
        manager.wait_for_heartbeat()
        assert not is_running(running), "nobody waits for this test any more"
        server, client = manager.tasks(*new)
        assert server["result"]["port"] == ports[3] and "end" not in server["result"]
        assert client["result"]["start"]["test_start"]["duration"] == 1
        for task in manager.tasks(*fillers):
            assert task["result"]["killed"]


def set_aside(directory: Path) -> set[int]:
    """The tasks whose results lie in rejected/; each has its reason beside it."""
    found = set()
    for path in (directory / "state" / "rejected").glob("*.result"):
        answer = path.with_suffix(".answer")
        if answer.exists():
            found.add(Message.decode(0, path.read_bytes()).claimed.task.id)
    return found
