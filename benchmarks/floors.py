"""What the parts that the agent is made of cost by themselves: for scale.

Processes that it starts have the packages of requirements.txt alone. The request and the fsync are
made in this one, which is the Manager that answers, too.
"""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from statistics import fmean  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402

import msgspec  # noqa: E402
import requests  # noqa: E402
from gevent import subprocess  # noqa: E402

from agent.files import sync  # noqa: E402
from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import PARTS, Figure, Floor, median, progress, show, spread  # noqa: E402
from benchmarks.lean import ROOT, lean_agent  # noqa: E402
from benchmarks.servers import (  # noqa: E402
    PATIENCE,
    SERVERS,
    START_TIMES,
    pending_servers,
    wait_until_reported,
)

TIMES = 40
POLLING_SECONDS = 30
# Prints its own resident memory in kB.
_RESIDENT = """
import re
print(re.search(r"VmRSS:\\s*(\\d+)", open("/proc/self/status").read())[1])
"""
# Prints its CPU in milliseconds a second, in each of some parts.
_POLLING = """
from gevent import monkey; monkey.patch_all()
import sys, time, gevent, requests
session = requests.Session()
session.trust_env = False
session.get(sys.argv[1])
for _ in range(int(sys.argv[3])):
    began, busy = time.monotonic(), time.process_time()
    while time.monotonic() - began < float(sys.argv[2]):
        gevent.sleep(1 / 1.2)
        session.get(sys.argv[1])
    print((time.process_time() - busy) / (time.monotonic() - began) * 1000)
"""
_PARTS = {
    "bare Python": "",
    "gevent, patched": "from gevent import monkey; monkey.patch_all()",
    "gevent and requests": "from gevent import monkey; monkey.patch_all()\nimport requests",
}


def main() -> Iterator[Figure]:
    """Start and memory of the parts; a child, a request, and a fsync."""
    python = lean_agent()[0]
    for name, lines in _PARTS.items():
        argv = [python, "-c", lines + _RESIDENT]
        resident = [int(subprocess.check_output(argv)) / 1024 for _ in range(PARTS)]
        yield Figure(f"resident, {name}", spread(resident), "MiB")
        yield median(f"start to end, {name}", timed(partial(quietly, argv)), "ms")
    for way in ("posix_spawn", "fork", "gevent.subprocess"):
        progress(f"starting children by {way}")
        said = subprocess.check_output([python, "-m", "benchmarks.starting", way])
        times = msgspec.json.decode(said, type=list[float])
        yield median(f"{way} to execve, when idle before", times, "ms")
    with bench_of() as bench:
        progress(f"requests alone, for {POLLING_SECONDS} s")
        seconds = str(POLLING_SECONDS / PARTS)
        argv = [python, "-c", _POLLING, f"{bench.manager.url}/healthz", seconds, str(PARTS)]
        costs = list(map(float, subprocess.check_output(argv).split()))
        yield Figure(Floor.CALLS, spread(costs, fmean), "ms/s")
    progress(f"{SERVERS} servers by the smallest agent")
    starts = spread([smallest_agent(python) for _ in range(START_TIMES)])
    note = f"{starts.value / SERVERS * 1000:.1f} ms a server; {START_TIMES} times"
    yield Figure(Floor.SERVERS, starts, "s", note=note)
    with bench_of() as bench, requests.Session() as session:
        session.trust_env = False
        times = timed(partial(session.get, f"{bench.manager.url}/healthz"))
        yield median(Floor.REQUEST, times, "ms")
    # Where the state directories of the other benchmarks are.
    with TemporaryDirectory() as directory:
        times = timed(partial(fsync, Path(directory, "file")))
        yield median(Floor.FSYNC, times, "ms")


def smallest_agent(python: str) -> float:
    """Seconds from its first claim until it has reported its last server."""
    with bench_of() as bench:
        servers = pending_servers(bench, SERVERS)
        argv = [python, "-m", "benchmarks.smallest", bench.manager.url]
        # It ends its servers when its stdin is closed.
        with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE):
            bench.wait(lambda: servers[0].status != "pending", PATIENCE)
            began = time.monotonic()
            wait_until_reported(bench, servers)
            return time.monotonic() - began


def timed(function: Callable[[], object]) -> list[float]:
    """Milliseconds of each of TIMES calls."""
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        function()
        found.append((time.perf_counter() - began) * 1000)
    return found


def quietly(argv: list[str]) -> None:
    """Run a command to its end, with gevent.subprocess."""
    subprocess.run(argv, capture_output=True, check=True)


def fsync(path: Path) -> None:
    """Write a few bytes into a new file and have them on the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(b"0" * 500)
    sync(path)


if __name__ == "__main__":
    show(main())
