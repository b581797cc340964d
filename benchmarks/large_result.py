"""A result of 160 MB: whether it arrives, what it takes of memory, and how late heartbeats are.

The document is that of an hour with 128 streams, made beforehand; a stand-in for iperf3 prints it.
"""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from agent.dev.api import http  # noqa: E402
from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import Figure, progress, show, spread  # noqa: E402
from benchmarks.host import Peak  # noqa: E402
from benchmarks.large_document import STREAMS, write_large_document  # noqa: E402
from benchmarks.metered import metered_agent, noted  # noqa: E402
from tests.support.command import stand_in  # noqa: E402
from tests.support.harness import free_port, iperf3_server  # noqa: E402

MIB = 1024**2
LIMIT = 300 * MIB
SETTLING_SECONDS = 2
PATIENCE = 120
TIMES = 3
# The front end of the platform's Manager takes 100 MiB.
http.MAX_BODY_BYTES = LIMIT


def main() -> Iterator[Figure]:
    """The figures of some deliveries, each by an agent of its own."""
    with TemporaryDirectory() as directory:
        document = Path(directory, "document.json")
        progress("making the document")
        size = write_large_document(document)
        runs = [delivered(document) for _ in range(TIMES)]
    whole, rises, late = zip(*runs)
    what = "160 MB result"
    note = f"1 is whole; {size / 1e6:.0f} MB, {TIMES} times"
    yield Figure(f"{what}: delivered whole", spread(whole, min), "", least=1, note=note)
    yield Figure(f"{what}: anonymous memory rises", spread(rises), "MiB", most=32)
    yield Figure(f"{what}: heartbeat lateness, worst", spread(late, max), "ms", most=250)


def delivered(document: Path) -> tuple[int, float, float]:
    """Deliver it after the small result of a real test.

    Returns whether it arrived whole, by how many MiB the agent's memory rose, and how many
    milliseconds the latest heartbeat was late.
    """
    with bench_of() as bench:
        behaviour = f'case "$*" in *"-P {STREAMS}"*) exec cat {document};; esac\nexec iperf3 "$@"'
        notes = bench.directory / "notes"
        agent = bench.agent(
            program=metered_agent(notes),
            IPERF3_PATH=stand_in(bench.directory / "iperf3", behaviour),
            HEARTBEAT_INTERVAL="0.1",
            MAX_OUTPUT_BYTES=str(LIMIT),
            MAX_RESULT_BYTES=str(LIMIT),
        )
        agent.wait_for("registered")
        port = free_port()
        target: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "time": 1}
        with iperf3_server(port):
            bench.ended(bench.task("iperf_client_run", **target))
        gevent.sleep(SETTLING_SECONDS)
        progress("delivering it")
        began = time.time()
        with Peak(agent.pid, "RssAnon") as peak:
            task = bench.task("iperf_client_run", **target, parallel=STREAMS)
            bench.ended(task, PATIENCE)
        whole = bytes(task.result).endswith(document.read_bytes().strip()[1:])
        rise = (peak.highest - peak.first) / MIB
        return int(whole), rise, max(noted(notes, "heartbeat", began))


if __name__ == "__main__":
    show(main())
