"""An agent and its Manager far from each other, for the benchmarks of what is between them.

Both hosts are network namespaces, with a link between them whose packets are late. Such a benchmark
is skipped where these cannot be made.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from agent.dev.server import DevManager
from benchmarks.bench import bench_of
from tests.support.distance import FAR, distance
from tests.support.harness import AgentProcess, Bench
from tests.support.network import Network


def may_be_far() -> bool:
    """Whether there can be such hosts here; says why not."""
    tools = shutil.which("ip") and shutil.which("tc") and os.path.exists("/dev/net/tun")
    if os.geteuid() == 0 and tools:
        return True
    print("skipped: it needs root, ip, tc and /dev/net/tun", file=sys.stderr)
    return False


@contextmanager
def far_bench(round_trip: float) -> Iterator[tuple[Bench, Network]]:
    """A Manager on the host `far`, that many seconds from `near`, on which agents belong."""
    with distance(round_trip) as hosts, bench_of() as bench:
        bench.manager.stop()
        bench.manager = DevManager(bench.store, FAR, 0)
        with hosts.inside("far"):
            bench.manager.start()
        yield bench, hosts


def agent_of(bench: Bench, hosts: Network, program: str) -> AgentProcess:
    """A registered agent with all defaults, which logs each call."""
    with hosts.inside("near"):
        agent = bench.agent("--debug", IPERF3_PATH=program, CLAIM_INTERVAL="")
    agent.wait_for("registered")
    return agent
