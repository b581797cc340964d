"""Cables that are pulled out: towards the Manager, and towards the iperf3 server of a test.

At the agent's own end, where the kernel says that there is no route, and at the far one, where
packets vanish without a word.
"""

import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import subprocess

from agent.dev.server import DevManager
from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from tests.support.harness import Bench, is_running
from tests.support.needs import need
from tests.support.network import MANAGER, PEER, Network, network

need(
    sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip"),
    "network namespaces need Linux, root and iproute2",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
either_end = pytest.mark.parametrize("end", ["near", "far"])
INTERVAL = 5.0
LOST = "no heartbeat; tests go on"


@pytest.fixture(name="cables")
def fixture_cables() -> Iterator[Network]:
    """Three hosts, an iperf3 server on the peer."""
    with network() as cables:
        with cables.inside("peer"):
            server = subprocess.Popen(["iperf3", "-s", "--forceflush"], stdout=subprocess.PIPE)
        try:
            assert server.stdout
            while b"listening" not in server.stdout.readline():
                pass
            yield cables
        finally:
            server.kill()
            server.wait()


@pytest.fixture(name="far_bench")
def fixture_far_bench(cables: Network, tmp_path: Path) -> Iterator[Bench]:
    """A dev Manager on its host and an agent at work on its own."""
    bench = Bench(Store(), tmp_path)
    bench.manager = DevManager(bench.store, MANAGER, 0)
    with cables.inside("manager"):
        bench.manager.start()
    try:
        with cables.inside("agent"):
            agent = bench.agent(HEARTBEAT_INTERVAL=str(INTERVAL))
        agent.wait_for("registered")
        yield bench
    finally:
        bench.close()


def client(bench: Bench, **payload: Any) -> ManagedTask:
    """A client task against the peer, at 8 Mbit/s so that the machine has time for the rest."""
    given = {"server_ip": PEER, "port": 5201, "bitrate": 8_000_000, "max_retries": 0}
    return bench.task("iperf_client_run", **{**given, **payload})


@either_end
def test_a_test_goes_on_without_the_manager_which_hears_of_all_when_it_is_back(
    cables: Network, far_bench: Bench, end: str
) -> None:
    """Heartbeats were back within 1 s, results within 3 s, in four runs."""
    (agent,) = far_bench.agents
    # It ends after 5 s, but may take a minute: the Manager's clock must outlast the outage.
    task = client(far_bench, time=60, bytes=5_000_000)
    far_bench.wait(lambda: task.status == "running")
    cables.cut("manager", end)
    waiting = client(far_bench, time=1)
    agent.wait_for("client ended", task_id=task.id, ending="it ended by itself")
    agent.wait_for(LOST)
    assert task.finished_at is None
    before = far_bench.store.agents.get(1).last_heartbeat
    # The return falls anywhere between two heartbeats.
    gevent.sleep(random.Random(end).uniform(0, INTERVAL))

    cables.mend("manager", end)
    began = time.monotonic()
    far_bench.wait(
        lambda: far_bench.store.agents.get(1).last_heartbeat != before, timeout=3 * INTERVAL
    )
    heartbeat = time.monotonic() - began
    far_bench.ended(task, timeout=3 * 35)
    print(f"heartbeat {heartbeat:.1f} s, result {time.monotonic() - began:.1f} s after the return")
    assert task.status == "succeeded", task.error
    assert far_bench.result(task)["end"]["sum_sent"]["bytes"] >= 5_000_000
    assert far_bench.ended(waiting, timeout=3 * 35).status == "succeeded"


@either_end
@pytest.mark.parametrize("reverse", [False, True])
def test_a_test_that_loses_its_server_ends_at_its_deadline(
    cables: Network, far_bench: Bench, end: str, reverse: bool
) -> None:
    """Promise 10: 3 s of test and 5 s more; the agent stays in touch with its Manager."""
    (agent,) = far_bench.agents
    task = client(far_bench, time=3, reverse=reverse)
    far_bench.wait(lambda: task.status == "running")
    cables.cut("peer", end)
    began = time.monotonic()
    far_bench.ended(task)
    seconds = time.monotonic() - began
    print(f"ended {seconds:.1f} s after the cut")
    assert task.status == "failed"
    assert task.error == "timed out after 8 s: iperf3 had not ended by then"
    assert far_bench.result(task)["agent"]["error_class"] == "timed_out"
    pid = agent.wait_for("client ended", task_id=task.id, ending="its time is over")["pid"]
    assert not is_running(pid)
    assert LOST not in [line["message"] for line in agent.lines]

    cables.mend("peer", end)
    # The server may still be letting the test go that was cut, and reset the next one.
    for _ in range(5):
        again = far_bench.ended(client(far_bench, time=1, max_retries=5))
        if again.status == "succeeded":
            break
    assert again.status == "succeeded", again.error


@either_end
def test_a_server_that_cannot_be_reached_is_named_so(
    cables: Network, far_bench: Bench, end: str
) -> None:
    cables.cut("peer", end)
    task = far_bench.ended(client(far_bench, time=1))
    assert far_bench.result(task)["agent"]["error_class"] == "unreachable", task.error
