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
from benchmarks.figures import Figure, median, percentile, progress, show  # noqa: E402
from benchmarks.host import Executions  # noqa: E402
from tests.support.harness import AgentProcess, Bench, free_port, until  # noqa: E402

TASKS = 200


def main() -> Iterator[Figure]:
    """The latencies with the long poll, and when polling."""
    programs = Executions(shutil.which("iperf3") or "iperf3")
    with bench_of() as bench:
        times, shares = starts(bench, programs)
    yield median("pending to execve, long poll", times, "ms", most=10)
    yield Figure("the same, 99th percentile", percentile(times, 99), "ms", most=40)
    yield median("the agent's share: claim answered to execve", shares, "ms", most=5)
    with bench_of(Store(extensions=False)) as bench:
        times, _ = starts(bench, programs)
    yield median("pending to execve, polling each second", times, "ms", most=550)


def starts(bench: Bench, programs: Executions) -> tuple[list[float], list[float]]:
    """Milliseconds from pending to execve, and from the claim's answer to it, for each task."""
    # The answers to its claims are in the log with --debug only.
    agent = bench.agent("--debug", CLAIM_INTERVAL="1")
    agent.wait_for("registered")
    times, shares = [], []
    for number in range(TASKS):
        progress(f"task {number + 1} of {TASKS}")
        # At any moment of the agent's polling.
        gevent.sleep(random.uniform(0.2, 1.2))
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


def answered(agent: AgentProcess, task_id: int) -> float:
    """When the agent had the answer to the claim that brought the task."""
    taken = agent.lines.index(agent.wait_for("task claimed", task_id=task_id))
    return moment(next(line for line in reversed(agent.lines[:taken]) if is_claim(line)))


def is_claim(line: Any) -> bool:
    """Whether a line of the log is about a claim."""
    return bool(line["message"] == "request" and line["path"].endswith("/claim"))


if __name__ == "__main__":
    show(main())
