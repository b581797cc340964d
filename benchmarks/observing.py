"""What it costs that tests are observed: beside an agent that does not look, in the same seconds.

Two agents of their own work for a dev Manager in this process, on loopback. Then one agent runs
many tests at once, with the servers of another.
"""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from statistics import fmean  # noqa: E402

import gevent  # noqa: E402
import msgspec  # noqa: E402

from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.blind import blind_agent  # noqa: E402
from benchmarks.figures import PARTS, Figure, p99, progress, show, spread  # noqa: E402
from benchmarks.host import cpu_seconds  # noqa: E402
from benchmarks.metered import metered_agent, noted  # noqa: E402
from benchmarks.servers import PATIENCE  # noqa: E402
from tests.support.harness import Bench, free_port, iperf3_server  # noqa: E402

# Of the agents: the one that looks at its tests, and the one that does not.
SEES, BLIND = 1, 2
# The most milliseconds of CPU a second that looks take, by the number of streams.
STREAMS = {1: 2, 128: 5}
# Each part of that measurement, and what goes before the first one.
PART_SECONDS, BEFORE = 4, 3
# Bits per second of each stream, or of each test, so that iperf3 leaves the cores to the agents.
BITRATE = 100_000
PAIRS, PAIR_SECONDS = 10, 2
# So many tests at once, each of so many seconds, and those in which all of them run.
TESTS, SECONDS, ALL_SECONDS, FIRST_PORT = 200, 60, 15, 20_000


def main() -> Iterator[Figure]:
    """The CPU of the agents and of iperf3, and the throughput."""
    with bench_of() as bench, ExitStack() as stack:
        ports = [free_port(), free_port()]
        for port in ports:
            stack.enter_context(iperf3_server(port))
        bench.agent(number=SEES).wait_for("registered")
        bench.agent(number=BLIND, program=blind_agent()).wait_for("registered")
        for streams, most in STREAMS.items():
            yield looks(bench, ports, streams, most)
        yield from side_by_side(bench, ports[0])
    yield many_at_once()


def looks(bench: Bench, ports: list[int], streams: int, most: int) -> Figure:
    """The CPU of the agent that looks, less that of the one that does not."""
    progress(f"{streams} streams")
    seconds = BEFORE + PARTS * PART_SECONDS + BEFORE
    tests = [
        bench.task(
            "iperf_client_run",
            number,
            server_ip="127.0.0.1",
            port=port,
            time=seconds,
            parallel=streams,
            bitrate=BITRATE,
        )
        for number, port in zip((SEES, BLIND), ports, strict=True)
    ]
    # The agent that does not look says so later.
    bench.wait(lambda: tests[0].status == "running")
    gevent.sleep(BEFORE)
    pids = [agent.pid for agent in bench.agents]
    more = []
    for _ in range(PARTS):
        began, before = time.monotonic(), list(map(cpu_seconds, pids))
        gevent.sleep(PART_SECONDS)
        sees, blind = (cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True))
        more.append((sees - blind) * 1000 / (time.monotonic() - began))
    for test in tests:
        bench.ended(test, PATIENCE)
    what = f"observing a test, {streams} stream{'s' if streams > 1 else ''}: CPU"
    note = f"above an agent that does not look, in the same {PARTS * PART_SECONDS} s"
    return Figure(what, spread(more, fmean), "ms/s", most=most, note=note)


def side_by_side(bench: Bench, port: int) -> Iterator[Figure]:
    """What iperf3 costs and carries when it is observed, divided by when it is not."""
    costs, rates = [], []
    for number in range(PAIRS):
        progress(f"pair {number + 1} of {PAIRS}")
        order = (SEES, BLIND) if number % 2 else (BLIND, SEES)
        found = {each: full_speed(bench, each, port) for each in order}
        costs.append(found[SEES][0] / found[BLIND][0])
        rates.append(found[SEES][1] / found[BLIND][1])
    what, note = "observed ÷ not", f"{PAIRS} pairs of {PAIR_SECONDS} s"
    yield Figure(f"CPU of iperf3 per byte, {what}", spread(costs), "", most=1.01, note=note)
    yield Figure(f"throughput, {what}", spread(rates), "", least=0.99, note=note)


def full_speed(bench: Bench, number: int, port: int) -> tuple[float, float]:
    """The CPU of a client for a byte, on a scale of its own, and the bits per second."""
    target = {"server_ip": "127.0.0.1", "port": port, "affinity": "0,1", "bitrate": 0}
    task = bench.ended(bench.task("iperf_client_run", number, **target, time=PAIR_SECONDS))
    end = msgspec.json.decode(bytes(task.result))["end"]
    rate = float(end["sum_received"]["bits_per_second"])
    return float(end["cpu_utilization_percent"]["host_total"]) / rate, rate


def many_at_once() -> Figure:
    """How late the hub of an agent is while it observes many tests."""
    with bench_of() as bench:
        notes = bench.directory / "notes"
        bench.agent(number=BLIND, program=blind_agent()).wait_for("registered")
        ports = range(FIRST_PORT, FIRST_PORT + TESTS)
        servers = [bench.task("iperf_server_start", BLIND, port=port) for port in ports]
        bench.wait(lambda: all(server.status == "succeeded" for server in servers), PATIENCE)
        bench.agent(number=SEES, program=metered_agent(notes)).wait_for("registered")
        progress(f"{TESTS} tests at once")
        # The kernel paces them. For a `bitrate`, each iperf3 would wake a thousand times a second,
        # and 200 of them would leave no core to the agents.
        pace = {"bitrate": None, "fq_rate": BITRATE}
        target = {"server_ip": "127.0.0.1", "time": SECONDS, **pace}
        tests = [bench.task("iperf_client_run", SEES, port=port, **target) for port in ports]
        bench.wait(lambda: all(test.status == "running" for test in tests), PATIENCE)
        began = time.time()
        gevent.sleep(ALL_SECONDS)
        hub = noted(notes, "hub", began)
    note = f"worst {max(hub):.4g}; {len(hub)} times"
    return Figure(
        f"{TESTS} tests at once: hub lag, p99", spread(hub, p99), "ms", most=50, note=note
    )


if __name__ == "__main__":
    show(main())
