"""How soon a pending task runs: from pending at the Manager to iperf3's execve.

An agent process of its own works for a dev Manager in this process, on loopback.
"""

from gevent import monkey

monkey.patch_all()

import random  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from agent.dev.store.store import Store  # noqa: E402
from benchmarks.bench import bench_of, moment  # noqa: E402
from benchmarks.figures import Figure, Floor, median, p99, progress, show, spread  # noqa: E402
from benchmarks.host import Executions  # noqa: E402
from tests.support.harness import AgentProcess, Bench, free_port, until  # noqa: E402

HELD, POLLED = 100, 50
# How long the agent is idle before a task, in seconds: any part of the interval of its polling.
SHORTEST_PAUSE, CLAIM_INTERVAL = 0.2, 1.0


def main() -> Iterator[Figure]:
    """The latencies with the long poll, and when polling."""
    programs = Executions(shutil.which("iperf3") or "iperf3")
    with bench_of() as bench:
        times, shares = starts(bench, programs, HELD)
    what, floors = "pending to execve, long poll", (Floor.CHILD, Floor.REQUEST)
    yield median(what, times, "ms", most=10, floors=floors)
    yield Figure(f"{what}, p99", spread(times, p99), "ms", most=40, floors=floors)
    yield median("claim answered to execve", shares, "ms", most=5, floors=(Floor.CHILD,))
    with bench_of(Store(extensions=False)) as bench:
        times, _ = starts(bench, programs, POLLED)
    yield median("pending to execve, polling each second", times, "ms", most=550)


def starts(bench: Bench, programs: Executions, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from pending to execve, and from the claim's answer to it, for each task."""
    # The answers to its claims are in the log with --debug only.
    agent = bench.agent("--debug", CLAIM_INTERVAL=f"{CLAIM_INTERVAL:g}")
    agent.wait_for("registered")
    times, shares = [], []
    for number, pause in enumerate(pauses(count), 1):
        progress(f"task {number} of {count}")
        gevent.sleep(pause)
        seen = len(programs.moments)
        pending = time.time()
        # Refused at once, so that one task does not run into the next.
        task = bench.task(
            "iperf_client_run", server_ip="127.0.0.1", port=free_port(), time=1, max_retries=0
        )
        until(lambda: len(programs.moments) > seen)
        times.append((programs.moments[seen] - pending) * 1000)
        shares.append((programs.moments[seen] - answered(agent, task.id)) * 1000)
        bench.ended(task)
    return times, shares


def pauses(count: int) -> list[float]:
    """So many pauses, evenly spread over the interval and in any order."""
    evenly = [SHORTEST_PAUSE + CLAIM_INTERVAL * (each + 0.5) / count for each in range(count)]
    return random.sample(evenly, count)


def answered(agent: AgentProcess, task_id: int) -> float:
    """When the agent had the answer to the claim that brought the task."""
    taken = agent.lines.index(agent.wait_for("task claimed", task_id=task_id))
    return moment(next(line for line in reversed(agent.lines[:taken]) if is_claim(line)))


def is_claim(line: Any) -> bool:
    """Whether a line of the log is about a claim."""
    return bool(line["message"] == "request" and line["path"].endswith("/claim"))


if __name__ == "__main__":
    show(main())
