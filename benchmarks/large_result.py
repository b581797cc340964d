"""A result of 160 MB: whether it arrives, what it takes of memory, and how late heartbeats are.

The document is that of an hour with 128 streams, made beforehand; a stand-in for iperf3 prints it.
"""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from agent.dev.api import http  # noqa: E402
from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import Figure, progress, show  # noqa: E402
from benchmarks.host import Peak  # noqa: E402
from benchmarks.large_document import STREAMS, write_large_document  # noqa: E402
from benchmarks.metered import metered_agent, noted  # noqa: E402
from tests.support.command import stand_in  # noqa: E402
from tests.support.harness import free_port, iperf3_server  # noqa: E402

MIB = 1024**2
LIMIT = 300 * MIB
SETTLING_SECONDS = 2
PATIENCE = 120
# The front end of the platform's Manager takes 100 MiB.
http.MAX_BODY_BYTES = LIMIT


def main() -> Iterator[Figure]:
    """One large result, after a small one of a real test."""
    with bench_of() as bench:
        document = bench.directory / "document.json"
        progress("making the document")
        size = write_large_document(document)
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
            took = time.time() - began
        whole = bytes(task.result).endswith(document.read_bytes().strip()[1:])
        heartbeats, hub = (max(noted(notes, what, began)) for what in ("heartbeat", "hub"))
    what = f"a result of {size / 1e6:.0f} MB"
    words = f"after {took:.1f} s; 1 is whole"
    yield Figure(f"{what}: delivered whole", int(whole), "", least=1, spread=words)
    rise = (peak.highest - peak.first) / MIB
    words = f"from {peak.first / MIB:.1f} MiB"
    yield Figure(f"{what}: anonymous memory rises", rise, "MiB", most=32, spread=words)
    words = f"hub lag at most {hub:.0f} ms"
    yield Figure(f"{what}: heartbeat lateness at most", heartbeats, "ms", most=250, spread=words)


if __name__ == "__main__":
    show(main())
