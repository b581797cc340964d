"""A disk that stands still: its calls wait, and nothing else does.

The disk of a real agent is preloaded (faulty_disk.py). While calls are held, heartbeats go on, and
orders to stop are obeyed; the results come when the disk is back.
"""

import errno
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest

from tests.support.faulty_disk import CALLS, POSSIBLE, FaultyDisk
from tests.support.harness import AgentProcess, free_port, iperf3_server, is_running, until
from tests.support.needs import need
from tests.support.record_state import agent_variables, client, task
from tests.support.task_manager import TaskManager

need(POSSIBLE, "a disk that stands still on demand needs Linux and gcc")

pytestmark = pytest.mark.timeout(90)


class Stalled:
    """An agent whose disk stands still when a test says so, its Manager, and its key file."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory, self._stack = directory, stack
        self.state = directory / "state"
        self.disk = FaultyDisk(directory / "faults")
        self.manager = TaskManager()
        stack.callback(self.manager.stop)
        self.key_file = directory / "key"
        self.write_key("the first key")
        self.port, self.other_port = free_port(), free_port()
        for port in (self.port, self.other_port):
            stack.enter_context(iperf3_server(port))

    def write_key(self, key: str) -> None:
        """Put another key file in the place of the one that is there."""
        fresh = self._directory / "fresh"
        fresh.write_text(key)
        fresh.chmod(0o600)
        fresh.replace(self.key_file)

    def agent(self, **variables: str) -> AgentProcess:
        """Start the agent."""
        settings = {
            **agent_variables(self.manager, self.state),
            "HEARTBEAT_INTERVAL": "0.2",
            **self.disk.variables,
            **variables,
        }
        del settings["AGENT_KEY"]
        agent = AgentProcess(cwd=self._directory, AGENT_KEY_FILE=str(self.key_file), **settings)
        self._stack.callback(lambda: print(*agent.lines, *self.disk.met(), sep="\n"))
        self._stack.callback(agent.close)
        return agent

    def goes_on(self) -> None:
        """Return when the agent has sent some heartbeats, at about their times."""
        with gevent.Timeout(10, AssertionError("the heartbeats have stopped")):
            self.manager.wait_for_calls("heartbeat", 10)

    def ends_well(self, agent: AgentProcess) -> None:
        """The agent ends when it is told to; nothing waits, and nothing was a bug."""
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
        agent.wait_for("agent stopped", undelivered=0)
        assert all(isinstance(line, dict) for line in agent.lines), "a traceback is no JSON"


@pytest.fixture(name="stalled")
def fixture_stalled(tmp_path: Path) -> Iterator[Stalled]:
    """An agent that has not started yet."""
    with ExitStack() as stack:
        yield Stalled(tmp_path, stack)


@pytest.mark.parametrize("calls", ["open", "stat", "read", "close", "unlink", " ".join(CALLS)])
def test_the_files_of_children_hold_up_nothing(stalled: Stalled, calls: str) -> None:
    manager, own = stalled.manager, free_port()
    agent = stalled.agent()
    manager.tasks.append(task(1, "iperf_server_start", port=own))
    assert manager.outcome(1)["status"] == "succeeded"
    manager.tasks += [client(2, stalled.port, time=60), client(3, stalled.other_port, time=60)]
    started = [agent.wait_for("client started", task_id=number) for number in (2, 3)]
    manager.wait_for_calls("claim", 2)
    stalled.disk.hold(calls, stalled.state / "children/*")
    manager.canceled.append(2)
    # One that cannot be started, one that can, and one that serves.
    manager.tasks.append(task(4, "iperf_server_start", port=stalled.port))
    manager.tasks += [client(5, own, bytes=1000), task(6, "iperf_server_start", port=free_port())]
    until(stalled.disk.met)
    stalled.goes_on()
    until(lambda: not is_running(started[0]["pid"]), timeout=10)
    assert is_running(started[1]["pid"])
    stalled.disk.lift()
    assert manager.outcome(6)["status"] == "succeeded"
    manager.tasks.append(task(7, "kill_all"))
    assert manager.outcome(7)["status"] == "succeeded"
    assert "canceled" in manager.outcome(2)["stderr"]
    assert "kill_all" in manager.outcome(3)["stderr"]
    assert manager.outcome(4)["result"]["agent"]["error_class"] == "port_in_use"
    assert manager.outcome(5)["status"] in ("succeeded", "failed")
    stalled.ends_well(agent)
    assert not list((stalled.state / "children").iterdir())


def test_an_agent_ends_in_its_time_though_nothing_of_the_disk_moves(stalled: Stalled) -> None:
    manager = stalled.manager
    agent = stalled.agent(SHUTDOWN_TIMEOUT="4")
    manager.tasks += [
        task(1, "iperf_server_start", port=free_port()),
        client(2, stalled.port, time=60),
    ]
    children = [
        agent.wait_for(message, task_id=number)["pid"]
        for number, message in ((1, "server listens"), (2, "client started"))
    ]
    manager.wait_for_calls("claim", 2)
    stalled.disk.hold(" ".join(CALLS), stalled.state / "*")
    stalled.disk.hold(" ".join(CALLS), stalled.key_file)
    gevent.sleep(2)
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent stops", timeout=3)
    assert agent.exit_code(20) == 0
    assert not any(map(is_running, children))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("", signal.SIGTERM),
        ("/lock", signal.SIGTERM),
        ("/lock", signal.SIGINT),
        ("/format", signal.SIGTERM),
        ("/journal", signal.SIGTERM),
        ("/journal", signal.SIGINT),
        ("/outbox", signal.SIGTERM),
        ("/outbox", signal.SIGINT),
        ("/children/old", signal.SIGTERM),
    ],
)
def test_an_agent_that_cannot_start_ends_at_once(
    stalled: Stalled, name: str, number: signal.Signals
) -> None:
    agent = stalled.agent()
    manager = stalled.manager
    manager.wait_for_calls("claim", 2)
    stalled.ends_well(agent)
    (stalled.state / "children" / "old").touch()
    stalled.disk.hold(" ".join(CALLS), f"{stalled.state}{name}")
    again = stalled.agent()
    until(stalled.disk.met)
    gevent.sleep(0.5)
    again.signal(number)
    assert again.exit_code(5) in (0, -number)
    stalled.disk.lift()
    stalled.ends_well(registered(stalled.agent()))


def registered(agent: AgentProcess) -> AgentProcess:
    """The same agent, once it has registered."""
    agent.wait_for("registered")
    return agent


@pytest.mark.parametrize("calls", ["open", "stat", "read", "open stat read"])
def test_a_key_file_holds_up_nothing_and_is_read_when_that_is_possible(
    stalled: Stalled, calls: str
) -> None:
    manager = stalled.manager
    agent = stalled.agent()
    agent.wait_for("registered")
    stalled.disk.hold(calls, stalled.key_file)
    stalled.write_key("the second key")
    until(stalled.disk.met)
    stalled.goes_on()
    assert manager.requests[-1].headers["x-agent-key"] == "the first key"
    manager.tasks.append(client(1, stalled.port, bytes=1000))
    assert manager.outcome(1)["status"] == "succeeded"
    stalled.disk.lift()
    manager.wait_for(lambda: manager.requests[-1].headers["x-agent-key"] == "the second key")
    stalled.ends_well(agent)


def test_a_key_file_that_fails_for_a_moment_keeps_the_last_key_until_then(stalled: Stalled) -> None:
    agent = stalled.agent()
    agent.wait_for("registered")
    stalled.disk.fail("open", stalled.key_file, errno.EIO)
    stalled.write_key("the second key")
    agent.wait_for("the key file has changed and is not usable")
    stalled.goes_on()
    manager = stalled.manager
    assert manager.requests[-1].headers["x-agent-key"] == "the first key"
    stalled.disk.lift()
    manager.wait_for(lambda: manager.requests[-1].headers["x-agent-key"] == "the second key")
    stalled.ends_well(agent)
    said = [line["message"] for line in agent.lines]
    assert said.count("the key file has changed and is not usable") == 1
