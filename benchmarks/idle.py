"""What an agent costs that has nothing to do, at the default intervals, and what tests leave."""

from gevent import monkey

monkey.patch_all()

from collections.abc import Iterator  # noqa: E402
from functools import partial  # noqa: E402
from mmap import PAGESIZE  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent import subprocess  # noqa: E402

from agent.dev.store.agents import Agents  # noqa: E402
from agent.dev.store.store import Store  # noqa: E402
from agent.dev.store.tasks import Tasks  # noqa: E402
from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import Figure, Floor, once, progress, show  # noqa: E402
from benchmarks.host import cpu_seconds, memory, rates, wake_ups  # noqa: E402
from benchmarks.lean import lean_agent  # noqa: E402
from tests.support.harness import Bench, free_port, iperf3_server  # noqa: E402

# Long enough for the agent's memory to settle after its start.
SETTLING_SECONDS = 10
# A claim is held for 20 s. After a minute without a task, an agent that polls does so at a third
# of the rate.
HELD_SECONDS, POLLING_SECONDS = 60, 35
# To begin it, for the head of its answer, and for the body, which the dev Manager sends apart.
OF_A_CALL = 3
TESTS = 100
MIB = 1024**2
# Prints how many pages are resident with the packages that the agent imports, and nothing else.
_PACKAGES = """
from gevent import monkey; monkey.patch_all()
import click, dotenv, msgspec, requests, structlog
print(open("/proc/self/statm").read().split()[1])
"""


class CountingStore(Store):
    """Counts the calls of its agents."""

    def __init__(self, extensions: bool) -> None:
        super().__init__(extensions)
        self.calls = 0
        self._count(self.agents, "heartbeat")
        self._count(self.tasks, "claim")

    def _count(self, part: Agents | Tasks, method: str) -> None:
        counted = getattr(part, method)

        def count(*args: Any) -> Any:
            self.calls += 1
            return counted(*args)

        setattr(part, method, count)


def main() -> Iterator[Figure]:
    """CPU and wake-ups with the long poll and when polling, and memory."""
    yield from idle(held=True)
    yield from idle(held=False)


def idle(held: bool) -> Iterator[Figure]:
    """The figures of one idle agent."""
    way = "long poll" if held else "polling each second"
    seconds = HELD_SECONDS if held else POLLING_SECONDS
    store = CountingStore(extensions=held)
    with bench_of(store) as bench:
        agent = bench.agent(CLAIM_INTERVAL="")
        agent.wait_for("registered")
        progress(f"{SETTLING_SECONDS} s to settle")
        gevent.sleep(SETTLING_SECONDS)
        progress(f"idle for {seconds} s, {way}")
        busy, waits, beyond, calls = rates(
            seconds,
            lambda: cpu_seconds(agent.pid) * 1000,
            partial(wake_ups, agent.pid),
            lambda: wake_ups(agent.pid) - store.calls * OF_A_CALL,
            lambda: store.calls,
        )
        resident = memory(agent.pid, "VmRSS") / MIB
        if held:
            run_tests(bench)
            tested = memory(agent.pid, "VmRSS") / MIB
    note = f"{calls.value:.2f} calls a second"
    most = 1.0 if held else 2.5
    yield Figure(f"idle, {way}: CPU", busy, "ms/s", most, floors=(Floor.CALLS,), note=note)
    note = f"{waits.value:.2f} waits of all its threads ended, {OF_A_CALL} for each call"
    yield Figure(f"idle, {way}: wake-ups beyond its calls", beyond, "a second", most=3, note=note)
    if held:
        floors = (Floor.RESIDENT,)
        yield Figure("idle: resident", once(resident), "MiB", most=42, floors=floors)
        packages = int(subprocess.check_output([lean_agent()[0], "-c", _PACKAGES])) * PAGESIZE / MIB
        what, note = "resident above its packages alone", f"these take {packages:.1f} MiB"
        yield Figure(f"idle: {what}", once(resident - packages), "MiB", most=3.5, note=note)
        what = f"after {TESTS} tests: {what}"
        yield Figure(what, once(tested - packages), "MiB", most=5, note=note)


def run_tests(bench: Bench) -> None:
    """Have TESTS short tests done, one after the other."""
    with iperf3_server(port := free_port()):
        for number in range(TESTS):
            progress(f"test {number} of {TESTS}")
            bench.ended(bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, bytes=1))


if __name__ == "__main__":
    show(main())
