"""What 10,000 tasks leave behind in an agent: memory and descriptors. How long they take.

Each starts a real iperf3: most of them are refused by a port where nobody listens, one in
TEST_EVERY is a short test.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from operator import itemgetter  # noqa: E402
from statistics import fmean  # noqa: E402

import gevent  # noqa: E402

from agent.dev.store.records import ManagedTask  # noqa: E402
from agent.protocol import FINAL_STATUSES  # noqa: E402
from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import PARTS, Figure, Floor, progress, show, spread  # noqa: E402
from benchmarks.host import memory  # noqa: E402
from benchmarks.servers import SERVERS  # noqa: E402
from tests.support.harness import Bench, free_port, iperf3_server  # noqa: E402

FIRST, ALL = 100, 10_000
AT_ONCE = 20
TEST_EVERY = 20
SETTLING_SECONDS = 5
MIB = 1024**2
last = itemgetter(-1)


def main() -> Iterator[Figure]:
    """What there is after ALL tasks above what there was after FIRST, and how long they take."""
    port, closed = free_port(), free_port()
    with bench_of() as bench, iperf3_server(port):
        agent = bench.agent(MAX_TASKS=str(AT_ONCE))
        agent.wait_for("registered")
        run(bench, FIRST, port, closed)
        before, descriptors = state(agent.pid)
        seconds, rises, more = [], [], []
        for _ in range(PARTS):
            began = time.monotonic()
            run(bench, (ALL - FIRST) // PARTS, port, closed)
            seconds.append(time.monotonic() - began)
            after, opened = state(agent.pid)
            rises.append((after - before) / MIB)
            more.append(opened - descriptors)
        good = sum(task.status == "succeeded" for task in bench.store.tasks.find())
    what = f"{ALL:,} tasks"
    note = f"{before / MIB:.1f} MiB resident before; {good} short tests succeeded"
    rise = spread(rises, last)
    yield Figure(f"{what}: memory above that after {FIRST}", rise, "MiB", most=1, note=note)
    note = f"{descriptors} before"
    left = spread(more, last)
    yield Figure(f"{what}: descriptors above those after {FIRST}", left, "", most=0, note=note)
    share = SERVERS / (ALL - FIRST) * PARTS
    each = spread([taken * share for taken in seconds], fmean)
    floors = (Floor.SERVERS,)
    yield Figure(f"{what}: {SERVERS} of them, {AT_ONCE} at once", each, "s", floors=floors)


def run(bench: Bench, count: int, port: int, closed: int) -> None:
    """Have so many tasks done, some at a time."""
    tasks: list[ManagedTask] = []
    for number in range(count):
        bench.wait(
            lambda: sum(task.status not in FINAL_STATUSES for task in tasks[-2 * AT_ONCE :])
            < AT_ONCE
        )
        target = port if number % TEST_EVERY == 0 else closed
        tasks.append(
            bench.task(
                "iperf_client_run", server_ip="127.0.0.1", port=target, bytes=10_000, max_retries=0
            )
        )
        if number % 100 == 0:
            progress(f"task {number} of {count}")
    bench.wait(lambda: all(task.status in FINAL_STATUSES for task in tasks))


def state(pid: int) -> tuple[int, int]:
    """Resident bytes and open descriptors of an agent, once it has settled."""
    gevent.sleep(SETTLING_SECONDS)
    return memory(pid, "VmRSS"), len(os.listdir(f"/proc/{pid}/fd"))


if __name__ == "__main__":
    show(main())
