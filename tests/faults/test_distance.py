"""Healthy tests over a distance: no deadline is in the way of the connections that come first."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from agent.dev.store.store import Store
from tests.support.command import stand_in
from tests.support.distance import FAR, distance
from tests.support.harness import Bench
from tests.support.needs import need
from tests.support.newer_iperf3 import newer_iperf3

need(
    sys.platform == "linux"
    and os.geteuid() == 0
    and shutil.which("ip")
    and os.path.exists("/dev/net/tun"),
    "a distance needs Linux, root, iproute2 and /dev/net/tun",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@contextmanager
def far_bench(round_trip: float, directory: Path, iperf3: str, **link: float) -> Iterator[Bench]:
    """A Manager and an agent on a host, and an iperf3 server so many seconds away."""
    bench = Bench(Store(), directory)
    with distance(round_trip, **link) as hosts:
        with hosts.inside("far"):
            server = subprocess.Popen(["iperf3", "-s"], stdout=subprocess.PIPE)
        try:
            with hosts.inside("near"):
                bench.manager.start()
                bench.agent(IPERF3_PATH=iperf3)
            bench.agents[0].wait_for("registered")
            yield bench
        finally:
            bench.close()
            server.kill()
            server.wait()


@pytest.mark.parametrize("suite", ["", "sid"])
@pytest.mark.parametrize(
    ("round_trip", "streams", "payload"),
    [
        (0.7, 1, {}),
        (0.2, 64, {}),
        (0.04, 128, {}),
        (0.2, 16, {"bidir": True}),
        (0.2, 32, {"reverse": True}),
        (0.2, 32, {"udp": True}),
    ],
)
def test_a_healthy_test_over_a_distance_ends_well(
    tmp_path: Path, round_trip: float, streams: int, payload: dict[str, Any], suite: str
) -> None:
    """Up to 0.7 s and 128 streams, by hand: that begins after 93 s."""
    with far_bench(round_trip, tmp_path, newer_iperf3(suite) if suite else "iperf3") as bench:
        given = {"server_ip": FAR, "port": 5201, "time": 3, "parallel": streams}
        # Enough for several blocks a stream: iperf3 3.22 counts only whole ones as received.
        rate = 100_000_000 // streams
        task = bench.task("iperf_client_run", **{**given, "bitrate": rate, **payload})
        bench.ended(task, timeout=120)
        assert task.status == "succeeded", task.error
        assert task.started_at and task.accepted_at and task.finished_at
        before = (task.started_at - task.accepted_at).total_seconds()
        assert before > round_trip * streams * (2 if "bidir" in payload else 1)
        # A busy host sees a little later that the test has begun.
        assert (task.finished_at - task.started_at).total_seconds() > 1.5


@pytest.mark.parametrize("suite", ["", "sid"])
def test_a_test_that_fills_a_queue_of_seconds_has_the_time_to_end(
    tmp_path: Path, suite: str
) -> None:
    """As that of a slow uplink: the messages at its end wait behind all that was sent."""
    program = newer_iperf3(suite) if suite else "iperf3"
    with far_bench(0.02, tmp_path, program, rate=5e5, queue=8.0) as bench:
        given: dict[str, Any] = {"server_ip": FAR, "port": 5201, "time": 8, "congestion": "reno"}
        task = bench.task("iperf_client_run", **given, bitrate=None)
        bench.ended(task, timeout=60)
        assert task.status == "succeeded", task.error


def test_streams_that_connect_late_as_packets_are_lost_are_waited_for(tmp_path: Path) -> None:
    """Each first packet that is lost costs a second."""
    with far_bench(0.02, tmp_path, "iperf3", loss=0.06) as bench:
        given: dict[str, Any] = {"server_ip": FAR, "port": 5201, "time": 3, "bitrate": 20_000}
        given |= {"connect_timeout_ms": 1000, "parallel": 100}
        task = bench.task("iperf_client_run", **given)
        assert bench.ended(task, timeout=100).status == "succeeded", task.error


def test_a_healthy_test_over_a_distance_that_cannot_be_seen_ends_well(tmp_path: Path) -> None:
    """The sockets of an iperf3 behind a script are not those of the agent's child."""
    script = stand_in(tmp_path / "iperf3", 'iperf3 "$@"\nexit $?')
    with far_bench(0.7, tmp_path, script) as bench:
        given: dict[str, Any] = {"server_ip": FAR, "port": 5201, "time": 1, "parallel": 32}
        task = bench.ended(bench.task("iperf_client_run", **given, bitrate=10**5), timeout=120)
        assert task.status == "succeeded", task.error
