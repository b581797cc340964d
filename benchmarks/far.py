"""A Manager 200 ms away: how soon a test starts, and how many results arrive in a second.

It takes half a minute, and needs root.
"""

from gevent import monkey

monkey.patch_all()

import shutil  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import gevent  # noqa: E402

from agent.dev.store.records import ManagedTask  # noqa: E402
from benchmarks.bench import moment  # noqa: E402
from benchmarks.distant import agent_of, far_bench, may_be_far  # noqa: E402
from benchmarks.figures import Figure, Floor, median, once, progress, show  # noqa: E402
from benchmarks.host import Executions  # noqa: E402
from tests.support.harness import AgentProcess, Bench, free_port, until  # noqa: E402

ROUND_TRIP, STARTS, SERVERS = 0.2, 10, 40
WHAT = f"a Manager {ROUND_TRIP * 1000:g} ms away"
PATIENCE = 120


def main() -> Iterator[Figure]:
    """The figures; none where there can be no such hosts."""
    if may_be_far():
        with far_bench(ROUND_TRIP) as (bench, hosts):
            # Nobody else executes this file.
            program = str(shutil.copy(shutil.which("iperf3") or "iperf3", bench.directory))
            agent = agent_of(bench, hosts, program)
            yield starts(bench, Executions(program))
            yield ends(bench, agent)


def starts(bench: Bench, executions: Executions) -> Figure:
    """From pending to execve, less the way of the answer to the claim that is held."""
    times = []
    for number in range(STARTS):
        progress(f"{WHAT}: task {number + 1} of {STARTS}")
        # The next claim must be held by now.
        gevent.sleep(2 * ROUND_TRIP)
        seen, pending = len(executions.moments), time.time()
        task = bench.task(
            "iperf_client_run", server_ip="127.0.0.1", port=free_port(), time=1, max_retries=0
        )
        until(lambda: len(executions.moments) > seen)
        times.append((executions.moments[seen] - pending - ROUND_TRIP / 2) * 1000)
        bench.ended(task)
    floors = Floor.CHILD, Floor.REQUEST
    return median(f"{WHAT}: pending to execve, less the way", times, "ms", floors=floors)


def ends(bench: Bench, agent: AgentProcess) -> Figure:
    """How fast the results of servers come that all end at once."""
    progress(f"{WHAT}: {SERVERS} servers")
    servers = [bench.task("iperf_server_start", port=free_port()) for _ in range(SERVERS)]
    until(lambda: all(task.status == "succeeded" for task in servers), PATIENCE)
    # The agent hears later than the Manager that they are reported.
    gevent.sleep(2 * ROUND_TRIP)
    ordered = time.time()
    bench.ended(bench.task("kill_all"))
    moments = delivered(agent, servers, ordered)
    rate = (SERVERS - 1) / (moments[-1] - moments[0])
    note = f"of {SERVERS} servers that end at once, from the first to the last"
    return Figure(f"{WHAT}: results", once(rate), "a second", least=20, note=note)


def delivered(agent: AgentProcess, tasks: list[ManagedTask], since: float) -> list[float]:
    """When the agent knew that the Manager has a result of these, in order."""
    ids = {task.id for task in tasks}

    def moments() -> list[float]:
        lines = [line for line in agent.lines if line["message"] == "result delivered"]
        return sorted(
            at for line in lines if line["task_id"] in ids and (at := moment(line)) > since
        )

    until(lambda: len(moments()) >= len(tasks))
    return moments()


if __name__ == "__main__":
    show(main())
