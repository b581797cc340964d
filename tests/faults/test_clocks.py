"""Time that jumps: an agent that stands still for half a minute, a wall clock moved by a day."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gevent
import pytest

from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from tests.support.faulty_manager import Request
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server, until
from tests.support.lone_agent import passed_on
from tests.support.needs import need
from tests.support.sockets import MakeManager

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
need(sys.platform == "linux" and FAKETIME, "clocks need Linux and libfaketime (package faketime)")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
INTERVALS: dict[str, Any] = {"HEARTBEAT_INTERVAL": "1", "CLAIM_INTERVAL": "0.5"}
STANDS_STILL = 30.0
WATCHED = 10.0


class Calls:
    """Passes everything on to a bench's Manager, and notes each call and when it came."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.seen: list[tuple[float, str]] = []

    def __call__(self, request: Request) -> bytes:
        self.seen.append((time.monotonic(), request.path))
        return passed_on(request, self._bench.manager.url)

    def times(self, call: str, since: float = 0.0) -> list[float]:
        """When calls of that name came."""
        return [at for at, path in self.seen if at >= since and path.endswith(f"/{call}")]

    def busiest(self, call: str, since: float, seconds: float = 2.0) -> int:
        """The most calls of that name in any span of so many seconds."""
        times = self.times(call, since)
        return max(sum(first <= at < first + seconds for at in times) for first in times)


@pytest.fixture(name="either_bench", params=[True, False], ids=["held-claims", "today"])
def fixture_either_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A Manager that holds claims and replays them, and one as it is today."""
    bench = Bench(Store(extensions=request.param), tmp_path)
    bench.manager.start()
    yield bench
    bench.close()


def client(bench: Bench, port: int, **payload: Any) -> ManagedTask:
    """A client task at 8 Mbit/s."""
    given = {"server_ip": "127.0.0.1", "port": port, "bitrate": 8_000_000}
    return bench.task("iperf_client_run", **{**given, **payload})


def assert_no_burst(calls: Calls, since: float) -> None:
    """Two heartbeats in two seconds, one more at either end; claims twice as many, and a task's."""
    heartbeats, claims = calls.busiest("heartbeat", since), calls.busiest("claim", since)
    print(f"at most {heartbeats} heartbeats and {claims} claims in two seconds")
    assert heartbeats <= 4
    assert claims <= 10


def assert_done_once(agent: AgentProcess, calls: Calls, task: ManagedTask) -> None:
    """Succeeded, of one run that was reported once."""
    assert task.status == "succeeded", task.error
    runs = [line for line in agent.lines if line["message"] == "client started"]
    assert sum(line["task_id"] == task.id for line in runs) == 1
    assert len(calls.times(f"tasks/{task.id}/result")) == 1


def test_an_agent_that_stood_still_takes_up_its_work_without_a_burst(
    either_bench: Bench, faulty: MakeManager
) -> None:
    """At most 3 heartbeats and 6 claims came in any two seconds after it, in eight runs."""
    bench, calls = either_bench, Calls(either_bench)
    agent = bench.agent(MANAGER_URL=faulty(calls).url, **INTERVALS)
    server = bench.ended(bench.task("iperf_server_start", port=free_port()))
    with serving() as one, serving() as other:
        # Both end after five seconds; one could take longer, the other is past its deadline then.
        patient = client(bench, one, time=120, bytes=5_000_000)
        overdue = client(bench, other, time=5)
        bench.wait(lambda: patient.status == overdue.status == "running")
        agent.signal(signal.SIGSTOP)
        gevent.sleep(STANDS_STILL / 2)
        later = client(bench, one, time=1)
        gevent.sleep(STANDS_STILL / 2)

        agent.signal(signal.SIGCONT)
        began = time.monotonic()
        until(lambda: calls.times("heartbeat", began))
        bench.ended(patient)
        bench.ended(later)
        gevent.sleep(began + WATCHED - time.monotonic())
    assert_no_burst(calls, began)
    for task in (patient, later):
        assert_done_once(agent, calls, task)
    # Its deadline was over, but the agent saw how it had ended.
    agent.wait_for("client ended", task_id=overdue.id, ending="it ended by itself", exit_code=0)
    assert [row.task_id for row in bench.running[1]] == [server.id]


@pytest.mark.parametrize("days", [1, -1])
def test_a_wall_clock_that_is_moved_by_a_day_moves_nothing_else(
    todays_bench: Bench, faulty: MakeManager, days: int
) -> None:
    """Heartbeats stayed a second apart, give or take 0.5 s, as without the move."""
    bench, calls, clock = todays_bench, Calls(todays_bench), Clock(todays_bench.directory)
    agent = bench.agent(MANAGER_URL=faulty(calls).url, **clock.variables, **INTERVALS)
    with serving() as port:
        task = client(bench, port, time=4)
        bench.wait(lambda: task.status == "running")
        clock.move(days)
        began = time.monotonic()
        bench.ended(task)
        later = client(bench, port, time=1, client_delay_seconds=1)
        bench.ended(later)
        gevent.sleep(began + WATCHED - time.monotonic())
    assert_no_burst(calls, began)
    heartbeats = calls.times("heartbeat", began - 1)
    gaps = [after - before for before, after in zip(heartbeats, heartbeats[1:])]
    print(f"heartbeats {min(gaps):.3f} to {max(gaps):.3f} s apart")
    assert len(gaps) > WATCHED / 3 and max(gaps) < 3
    for done in (task, later):
        assert_done_once(agent, calls, done)
    ended = agent.wait_for("client ended", task_id=later.id)["timestamp"]
    moved = datetime.fromisoformat(ended) - datetime.now(UTC)
    assert abs(moved - timedelta(days=days)) < timedelta(minutes=1)


class Clock:
    """The wall clock of an agent, as libfaketime shows it to that process alone."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.variables: dict[str, Any] = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.move(0)

    def move(self, days: int) -> None:
        """Put it so many days before or behind the true time."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{days:+d}d")
        os.replace(fresh, self._file)


@contextmanager
def serving() -> Iterator[int]:
    """A port with an iperf3 server on it."""
    port = free_port()
    with iperf3_server(port):
        yield port
