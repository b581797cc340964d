"""How soon a pending task runs, and how soon many servers listen.

    python -m benchmarks.claims

An agent process of its own works for a dev Manager in this process. "Pending to start" ends with
the agent's log line that iperf3 was started, so it includes the child's fork and exec.
"""

from gevent import monkey

monkey.patch_all()

import random  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from datetime import datetime  # noqa: E402
from pathlib import Path  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402

from agent.dev.store import Store  # noqa: E402
from tests.harness import Bench, free_port  # noqa: E402

TASKS = 50
SERVERS = 100
FIRST_PORT = 20000
# Long enough for the agent's memory to settle after its start.
SETTLING_SECONDS = 6


def pending_to_start(bench: Bench, settings: dict[str, str]) -> list[float]:
    """Milliseconds from pending to iperf3's start for TASKS tasks, each alone."""
    agent = bench.agent(**settings)
    agent.wait_for("registered")
    found = []
    for _ in range(TASKS):
        # At any moment of the agent's polling.
        gevent.sleep(random.uniform(0.2, 1.2))
        pending = time.time()
        task = bench.task("iperf_server_start", port=free_port())
        line = agent.wait_for("server started", task_id=task.id)
        found.append((datetime.fromisoformat(line["timestamp"]).timestamp() - pending) * 1000)
        bench.ended(bench.task("kill_all"))
    return found


def many_servers(bench: Bench) -> tuple[float, float]:
    """Seconds until SERVERS pending servers are reported as listening, and until all are gone."""
    bench.agent().wait_for("registered")
    began = time.monotonic()
    tasks = [
        bench.task("iperf_server_start", port=FIRST_PORT + number) for number in range(SERVERS)
    ]
    bench.wait(lambda: all(task.status == "succeeded" for task in tasks), 60)
    listening = time.monotonic() - began
    began = time.monotonic()
    bench.ended(bench.task("kill_all"), 60)
    return listening, time.monotonic() - began


def idle_memory(bench: Bench) -> float:
    """MiB of resident memory of an agent that has nothing to do."""
    agent = bench.agent()
    agent.wait_for("registered")
    gevent.sleep(SETTLING_SECONDS)
    return float(psutil.Process(agent.pid).memory_info().rss) / 1024**2


def spread(values: list[float]) -> str:
    """The median, the 95th percentile and the worst of some milliseconds."""
    ordered = sorted(values)
    worst = ordered[int(len(ordered) * 0.95)]
    return f"median {statistics.median(ordered):.1f}, p95 {worst:.1f}, worst {ordered[-1]:.1f} ms"


def main() -> None:
    """Run every measurement and print a line for each."""
    with TemporaryDirectory() as directory:

        def on_bench(name: str, extensions: bool) -> Bench:
            bench = Bench(Store(extensions=extensions), Path(directory, name))
            bench.directory.mkdir()
            bench.manager.start()
            return bench

        for name, extensions in (("long poll", True), ("polling", False)):
            bench = on_bench(name.replace(" ", "-"), extensions)
            times = pending_to_start(bench, {"CLAIM_INTERVAL": "1"})
            bench.close()
            print(f"pending to start, {name}, {TASKS} tasks: {spread(times)}", flush=True)
        bench = on_bench("servers", True)
        listening, gone = many_servers(bench)
        bench.close()
        print(f"{SERVERS} servers: listening and reported {listening:.2f} s, gone {gone:.2f} s")
        bench = on_bench("idle", True)
        print(f"idle agent: {idle_memory(bench):.1f} MiB resident")
        bench.close()


if __name__ == "__main__":
    main()
