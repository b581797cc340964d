"""Sixteen results of 20 MB over a link of 50 Mbit/s, while tasks are claimed.

What is left for heartbeats, claims and small results, and whether the link is used. It takes a
minute and a quarter, and needs root.
"""

from gevent import monkey

monkey.patch_all()

import itertools  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from datetime import datetime  # noqa: E402
from socket import socket  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from gevent import subprocess  # noqa: E402

from agent.dev.store.records import ManagedTask  # noqa: E402
from benchmarks.bench import moment  # noqa: E402
from benchmarks.distant import agent_of, far_bench, may_be_far  # noqa: E402
from benchmarks.figures import (  # noqa: E402
    Figure,
    median,
    once,
    percentile,
    progress,
    show,
    spread,
)
from benchmarks.large_document import STREAMS, write_large_document  # noqa: E402
from tests.support.command import stand_in  # noqa: E402
from tests.support.distance import DEVICE, FAR  # noqa: E402
from tests.support.harness import AgentProcess, Bench, free_port, until  # noqa: E402
from tests.support.network import Network  # noqa: E402

ROUND_TRIP, BITS = 0.04, 50_000_000
# A document of that many seconds has 20 MB.
RESULTS, DOCUMENT_SECONDS = 16, 450
# As many of them go at a time, so that the link is full until no more are left.
AT_A_TIME = 2
HEARTBEAT_INTERVAL = 5.0
PATIENCE = 120
WHAT = f"{RESULTS} results of 20 MB at 50 Mbit/s"


def main() -> Iterator[Figure]:
    """The figures; none where there can be no such hosts."""
    if may_be_far():
        with far_bench(ROUND_TRIP) as (bench, hosts):
            yield from measured(bench, hosts)


def limit(hosts: Network) -> None:
    """Give the agent's side of the link its rate."""
    for words in (
        f"qdisc add dev {DEVICE} root handle 1: htb default 1 r2q 500",
        f"class add dev {DEVICE} parent 1: classid 1:1 htb rate {BITS}",
    ):
        with hosts.inside("near"):
            subprocess.run(["tc", *words.split()], check=True)


class Meter:
    """Has two servers started each three seconds; `queue` is what waits in the link take, in ms."""

    def __init__(self, bench: Bench, hosts: Network) -> None:
        self._bench, self._hosts = bench, hosts
        self.pairs: list[list[ManagedTask]] = []
        self.queue: list[float] = []
        self._greenlets = [gevent.spawn(self._ask), gevent.spawn(self._probe)]

    def sent(self) -> int:
        """The bytes that the agent's host has sent, with the headers of IP and TCP."""
        with self._hosts.inside("near"):
            return int(psutil.net_io_counters(pernic=True)[DEVICE].bytes_sent)

    def stop(self) -> None:
        """Start no more, and wait for those that are started."""
        gevent.killall(self._greenlets)
        until(lambda: all(task.finished_at for pair in self.pairs for task in pair))

    def _ask(self) -> None:
        while True:
            two = [self._bench.task("iperf_server_start", port=free_port()) for _ in range(2)]
            self.pairs.append(two)
            gevent.sleep(3)

    def _probe(self) -> None:
        while True:
            with self._hosts.inside("near"):
                connection = socket()
            with connection:
                began = time.monotonic()
                connection.connect((FAR, self._bench.manager.port))
                self.queue.append((time.monotonic() - began - ROUND_TRIP) * 1000)
            gevent.sleep(0.3)


def measured(bench: Bench, hosts: Network) -> Iterator[Figure]:
    """Fill the link, and have tasks claimed meanwhile."""
    limit(hosts)
    document = bench.directory / "document.json"
    write_large_document(document, DOCUMENT_SECONDS)
    script = f'case "$*" in *"-P {STREAMS}"*) exec cat {document};; esac\nexec iperf3 "$@"'
    agent = agent_of(bench, hosts, stand_in(bench.directory / "iperf3", script))
    # Its second heartbeat comes sooner than the others.
    gevent.sleep(HEARTBEAT_INTERVAL)
    progress(WHAT)
    # The Manager waits half a minute longer than `time` for a result.
    target: dict[str, Any] = {
        "server_ip": "127.0.0.1",
        "port": 1,
        "time": PATIENCE,
        "parallel": STREAMS,
    }
    large = [bench.task("iperf_client_run", **target) for _ in range(RESULTS)]
    until(lambda: all(task.status != "pending" for task in large))
    meter = Meter(bench, hosts)
    # TCP needs a moment to find the rate.
    gevent.sleep(2)
    began, before = time.time(), meter.sent()
    until(lambda: sum(not task.finished_at for task in large) <= AT_A_TIME, PATIENCE)
    ended, after = time.time(), meter.sent()
    meter.stop()
    for task in large:
        assert bench.ended(task, PATIENCE).status == "succeeded", task.error
    used = (after - before) * 8 / (ended - began) / BITS
    yield Figure(f"{WHAT}: share of the link", once(used), "", least=0.9)
    yield heartbeats(agent, began, ended)
    yield from tasks(meter)


def heartbeats(agent: AgentProcess, began: float, ended: float) -> Figure:
    """How punctual those are that have an answer; one without leaves a gap of twice the time."""
    calls = [
        line
        for line in agent.lines
        if line["message"] == "request"
        and line["path"].endswith("/heartbeat")
        and line["status"] == 200
        and began < moment(line) < ended
    ]
    sent = [moment(line) - line["milliseconds"] / 1000 for line in calls]
    off = [abs(later - sooner - HEARTBEAT_INTERVAL) for sooner, later in itertools.pairwise(sent)]
    note = f"off its {HEARTBEAT_INTERVAL:g} s; {len(off)} times"
    return Figure(f"{WHAT}: heartbeat lateness, worst", spread(off, max), "s", most=0.5, note=note)


def tasks(meter: Meter) -> Iterator[Figure]:
    """How soon the next task is claimed, and how soon the Manager knows that a server listens."""
    yield median(f"{WHAT}: wait in the link's queue", meter.queue, "ms")
    claims = [milliseconds(one.accepted_at, two.accepted_at) for one, two in meter.pairs]
    most = round(percentile(meter.queue, 95) + 2 * ROUND_TRIP * 1000)
    yield median(f"{WHAT}: one claimed task to the next", claims, "ms", most)
    reports = [milliseconds(each.accepted_at, each.finished_at) for each in sum(meter.pairs, [])]
    yield median(f"{WHAT}: claimed server to its report", reports, "ms")


def milliseconds(earlier: datetime | None, later: datetime | None) -> float:
    """From one moment to another."""
    assert earlier and later
    return (later - earlier).total_seconds() * 1000


if __name__ == "__main__":
    show(main())
