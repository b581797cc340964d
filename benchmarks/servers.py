"""Many children at once: 500 servers, and 300 servers that are replaced, idle, or beside 50 tests.

Agent processes of their own work for a dev Manager in this process, on loopback.
"""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402

from agent.dev.store.records import ManagedTask  # noqa: E402
from agent.protocol import FINAL_STATUSES  # noqa: E402
from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import Figure, Floor, once, p99, progress, show, spread  # noqa: E402
from benchmarks.host import cpu_seconds, rates  # noqa: E402
from benchmarks.metered import metered_agent, noted  # noqa: E402
from tests.support.harness import Bench, until  # noqa: E402

SERVERS = 500
# How often that is measured, here and for the smallest agent.
START_TIMES = 3
# Beside so many servers, so many tests at once, of so many seconds and bits per second.
BESIDE, TESTS, SECONDS, BITRATE = 300, 50, 2, 20_000_000
FIRST_PORT = 20_000
# After the last start, before the CPU of idle servers is measured for so long.
SETTLING_SECONDS, IDLE_SECONDS = 5, 20
PATIENCE = 120


def main() -> Iterator[Figure]:
    """Figures of all of them."""
    runs = [five_hundred_servers() for _ in range(START_TIMES)]
    listening, gone = (spread(seconds) for seconds in zip(*runs))
    note = f"{listening.value / SERVERS * 1000:.1f} ms a server; {START_TIMES} times"
    what, floors = f"{SERVERS} servers", (Floor.SERVERS,)
    yield Figure(
        f"{what}: all listen, all reported", listening, "s", most=10, floors=floors, note=note
    )
    yield Figure(f"{what}: gone after one kill_all", gone, "s", most=3, floors=floors)
    yield from replaced_servers()
    yield idle_servers()
    yield from tests_beside_servers()


def pending_servers(bench: Bench, count: int) -> list[ManagedTask]:
    """Server tasks on ports from FIRST_PORT on."""
    return [bench.task("iperf_server_start", port=FIRST_PORT + each) for each in range(count)]


def wait_until_reported(bench: Bench, servers: list[ManagedTask]) -> None:
    """Wait until all these servers listen, by what the Manager was told."""
    bench.wait(lambda: all(server.status == "succeeded" for server in servers), PATIENCE)


def five_hundred_servers() -> tuple[float, float]:
    """Seconds until all listen and are reported, and until all are gone again."""
    with bench_of() as bench:
        agent = bench.agent(MAX_TASKS=str(SERVERS))
        agent.wait_for("registered")
        progress(f"{SERVERS} servers")
        began = time.monotonic()
        wait_until_reported(bench, pending_servers(bench, SERVERS))
        listening = time.monotonic() - began
        assert len(psutil.Process(agent.pid).children()) == SERVERS
        began = time.monotonic()
        bench.task("kill_all")
        until(lambda: not psutil.Process(agent.pid).children(), PATIENCE)
        return listening, time.monotonic() - began


def replaced_servers() -> Iterator[Figure]:
    """Servers that are ordered together with a kill_all of those before them on their ports."""
    failed, ratios = 0, []
    for _ in range(START_TIMES):
        with bench_of() as bench:
            # Those that are being ended count until they are gone.
            bench.agent(MAX_TASKS=str(2 * BESIDE)).wait_for("registered")
            progress(f"{BESIDE} servers, and {BESIDE} in their place")
            seconds = []
            for before in ([], ["kill_all"]):
                began = time.monotonic()
                tasks = [*map(bench.task, before), *pending_servers(bench, BESIDE)]
                bench.wait(lambda: all(each.status in FINAL_STATUSES for each in tasks), PATIENCE)
                seconds.append(time.monotonic() - began)
                failed += sum(each.status == "failed" for each in tasks)
            ratios.append(seconds[1] / seconds[0])
    what, note = f"{BESIDE} servers, one kill_all, {BESIDE} servers again", f"{START_TIMES} times"
    yield Figure(f"{what}: failures", once(failed), "", most=0, note=note)
    yield Figure(f"{what} ÷ the first {BESIDE}", spread(ratios), "", most=1.2, note=note)


def idle_servers() -> Figure:
    """What an agent costs whose servers have no client."""
    with bench_of() as bench:
        agent = bench.agent(MAX_TASKS=str(BESIDE))
        agent.wait_for("registered")
        wait_until_reported(bench, pending_servers(bench, BESIDE))
        gevent.sleep(SETTLING_SECONDS)
        progress(f"{BESIDE} idle servers for {IDLE_SECONDS} s")
        (busy,) = rates(IDLE_SECONDS, lambda: cpu_seconds(agent.pid) * 1000)
    return Figure(f"{BESIDE} idle servers: CPU", busy, "ms/s", most=35)


def tests_beside_servers() -> Iterator[Figure]:
    """Which tests succeed, and how late heartbeats and the hub are meanwhile."""
    with bench_of() as bench:
        notes = bench.directory / "notes"
        agent = bench.agent(
            program=metered_agent(notes),
            MAX_TASKS=str(BESIDE + TESTS),
            # Twenty-five times as often as usual, so that there is something to count.
            HEARTBEAT_INTERVAL="0.2",
        )
        agent.wait_for("registered")
        wait_until_reported(bench, pending_servers(bench, BESIDE))
        progress(f"{TESTS} tests beside {BESIDE} servers")
        began = time.time()
        tests = [
            bench.task(
                "iperf_client_run",
                server_ip="127.0.0.1",
                port=FIRST_PORT + each,
                time=SECONDS,
                bitrate=BITRATE,
            )
            for each in range(TESTS)
        ]
        bench.wait(lambda: all(test.status in FINAL_STATUSES for test in tests), PATIENCE)
        took = time.time() - began
        heartbeats, hub = (noted(notes, what, began) for what in ("heartbeat", "hub"))
        succeeded = sum(test.status == "succeeded" for test in tests)
    what = f"{BESIDE} servers, {TESTS} tests"
    note = f"{SECONDS} s each, all over after {took:.1f} s"
    yield Figure(f"{what}: tests that succeed", once(succeeded), "", least=TESTS, note=note)
    for name, values, most in (("heartbeat lateness", heartbeats, 100), ("hub lag", hub, 50)):
        note = f"worst {max(values):.4g}; {len(values)} times"
        late = spread(values, p99)
        yield Figure(
            f"{what}: {name}, p99", late, "ms", most=most, floors=(Floor.CHILD,), note=note
        )


if __name__ == "__main__":
    show(main())
