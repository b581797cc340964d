"""How soon the Manager has the result of a test that has ended: ten seconds, 16 streams."""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402

from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import Figure, Floor, median, progress, show  # noqa: E402
from benchmarks.host import end_of  # noqa: E402
from tests.support.harness import free_port, iperf3_server  # noqa: E402

TESTS = 8
STREAMS = 16
SECONDS = 10
# Loopback at full speed would measure how busy the two ends keep this host.
BITRATE = 10_000_000


def main() -> Iterator[Figure]:
    """Milliseconds from the end of iperf3's process until the Manager has accepted the result."""
    times, sizes = [], []
    port = free_port()
    with bench_of() as bench, iperf3_server(port):
        agent = bench.agent()
        agent.wait_for("registered")
        for number in range(TESTS):
            progress(f"test {number + 1} of {TESTS}, {SECONDS} s each")
            task = bench.task(
                "iperf_client_run",
                server_ip="127.0.0.1",
                port=port,
                time=SECONDS,
                parallel=STREAMS,
                bitrate=BITRATE,
            )
            ended = end_of(agent.wait_for("client started", task_id=task.id)["pid"])
            bench.ended(task)
            times.append((time.time() - ended.get()) * 1000)
            assert task.status == "succeeded", task.error
            sizes.append(len(bytes(task.result)) / 1024)
    figure = median(
        f"end of a test ({STREAMS} streams) to result accepted",
        times,
        "ms",
        most=30,
        floors=(Floor.REQUEST, Floor.FSYNC),
    )
    figure.note += f"; up to {max(sizes):.0f} KiB each"
    yield figure


if __name__ == "__main__":
    show(main())
