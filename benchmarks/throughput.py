"""Whether a test through the agent is as fast as iperf3 by hand, and what the agent costs then.

Pairs of tests, of which each goes first in every other pair, with the same iperf3 and the same
options, against one server that no agent knows of, on loopback.
"""

from gevent import monkey

monkey.patch_all()

from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import msgspec  # noqa: E402
from gevent import subprocess  # noqa: E402

from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import Figure, Floor, percentile, progress, show, spread  # noqa: E402
from benchmarks.host import cpu_seconds, rates  # noqa: E402
from tests.support.harness import AgentProcess, Bench, free_port, iperf3_server  # noqa: E402

PAIRS = 10
SECONDS = 2
# The CPU of the agent is measured over so many seconds in the middle of a longer test.
LONG_SECONDS, WATCHED_SECONDS = 30, 25
KINDS: dict[str, dict[str, Any]] = {
    "TCP, 1 stream": {},
    "TCP, 16 streams": {"parallel": 16},
    "UDP": {"udp": True},
}


def main() -> Iterator[Figure]:
    """The ratios, and the CPU of the agent."""
    port = free_port()
    # Each end has a core for itself, or where they run would matter more than who started them.
    # The tests have no limit.
    target = {"server_ip": "127.0.0.1", "port": port, "affinity": "0,1", "bitrate": 0}
    with bench_of() as bench, iperf3_server(port):
        agent = bench.agent()
        agent.wait_for("registered")
        for kind, options in KINDS.items():
            yield ratio(bench, agent, kind, {**target, **options})
        yield own_cpu(bench, agent, target)


def ratio(bench: Bench, agent: AgentProcess, kind: str, options: dict[str, Any]) -> Figure:
    """The median of what arrives through the agent, divided by what arrives by hand."""
    task = bench.ended(bench.task("iperf_client_run", **options, time=SECONDS))
    argv = agent.wait_for("client started", task_id=task.id)["argv"].split()

    def through_agent() -> float:
        task = bench.ended(bench.task("iperf_client_run", **options, time=SECONDS))
        return arrived(bytes(task.result))

    def by_hand() -> float:
        return arrived(subprocess.run(argv, capture_output=True, check=True).stdout)

    ratios = []
    for number in range(PAIRS):
        progress(f"{kind}: pair {number + 1} of {PAIRS}")
        # Neither way always has the other's test just behind it.
        if number % 2:
            by_agent, plain = through_agent(), by_hand()
        else:
            plain, by_agent = by_hand(), through_agent()
        ratios.append(by_agent / plain)
    low, high = percentile(ratios, 10), percentile(ratios, 90)
    note = f"p10 {low:.3f}, p90 {high:.3f}; {PAIRS} pairs of {SECONDS} s"
    what = f"throughput ÷ by hand, {kind}"
    return Figure(what, spread(ratios), "", least=0.99, note=note)


def arrived(document: bytes) -> float:
    """The bits per second that the receiver had, of a document of iperf3's."""
    end = msgspec.json.decode(document)["end"]
    if "sum_received" in end:
        return float(end["sum_received"]["bits_per_second"])
    return float(end["sum"]["bits_per_second"] * (1 - end["sum"]["lost_percent"] / 100))


def own_cpu(bench: Bench, agent: AgentProcess, options: dict[str, Any]) -> Figure:
    """The CPU that the agent itself takes while a test runs."""
    progress(f"one test of {LONG_SECONDS} s")
    task = bench.task("iperf_client_run", **options, time=LONG_SECONDS)
    # The Manager knows that it runs.
    bench.wait(lambda: task.status == "running")
    gevent.sleep(2)
    (busy,) = rates(WATCHED_SECONDS, lambda: cpu_seconds(agent.pid) * 1000)
    bench.ended(task)
    note = "in the middle of one TCP test; heartbeats and a held claim included"
    what, floors = "CPU of the agent while a test runs", (Floor.CALLS,)
    return Figure(what, busy, "ms/s", most=2, floors=floors, note=note)


if __name__ == "__main__":
    show(main())
