"""What 10,000 tasks leave behind in an agent: memory and descriptors.

Each starts a real iperf3: most of them are refused by a port where nobody listens, one in
TEST_EVERY is a short test.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import gevent  # noqa: E402

from agent.dev.store.records import ManagedTask  # noqa: E402
from agent.protocol import FINAL_STATUSES  # noqa: E402
from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import Figure, progress, show  # noqa: E402
from benchmarks.host import memory  # noqa: E402
from tests.support.harness import Bench, free_port, iperf3_server  # noqa: E402

FIRST, ALL = 100, 10_000
AT_ONCE = 20
TEST_EVERY = 20
SETTLING_SECONDS = 5
MIB = 1024**2


def main() -> Iterator[Figure]:
    """What there is after ALL tasks, compared with what there was after FIRST."""
    port, closed = free_port(), free_port()
    with bench_of() as bench, iperf3_server(port):
        agent = bench.agent(MAX_TASKS=str(AT_ONCE))
        agent.wait_for("registered")
        run(bench, FIRST, port, closed)
        before = state(agent.pid)
        began = time.monotonic()
        run(bench, ALL - FIRST, port, closed)
        took = time.monotonic() - began
        after = state(agent.pid)
        good = sum(task.status == "succeeded" for task in bench.store.tasks.find())
    words = f"{before[0] / MIB:.1f} MiB resident before; {good} short tests succeeded"
    rise = (after[0] - before[0]) / MIB
    yield Figure(
        f"memory after {ALL} tasks, above that after {FIRST}", rise, "MiB", 1, spread=words
    )
    words = f"{before[1]} before"
    more = after[1] - before[1]
    yield Figure(
        f"descriptors after {ALL} tasks, more than after {FIRST}", more, "", 0, spread=words
    )
    yield Figure("tasks a second, each with its child", (ALL - FIRST) / took, "a second")


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
