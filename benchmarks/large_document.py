"""A document as iperf3 writes it after an hour with 128 streams, without waiting for an hour."""

import subprocess
from pathlib import Path

from tests.support.harness import free_port, iperf3_server

STREAMS = 128
SECONDS = 3600


def write_large_document(path: Path, seconds: int = SECONDS) -> int:
    """Write it: a real test of two seconds, whose intervals are repeated; returns its bytes."""
    port = free_port()
    argv = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", "2", "-b", "1M", "-J"]
    with iperf3_server(port):
        done = subprocess.run(
            [*argv, "-P", str(STREAMS)], capture_output=True, text=True, check=True
        )
    head, rest = done.stdout.split('"intervals":\t[', 1)
    intervals, tail = rest.split('],\n\t"end":', 1)
    first = intervals.split("\n\t\t}, {", 1)[0] + "\n\t\t}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + '"intervals":\t[' + first)
        for _ in range(seconds - 1):
            file.write(", " + first.lstrip())
        file.write('],\n\t"end":' + tail)
    return path.stat().st_size
