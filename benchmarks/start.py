"""How soon a new agent process is registered, with everything in the page cache."""

from gevent import monkey

monkey.patch_all()

import signal  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402

from benchmarks.bench import bench_of, moment  # noqa: E402
from benchmarks.figures import Figure, Floor, median, progress, show  # noqa: E402

STARTS = 20


def main() -> Iterator[Figure]:
    """Milliseconds from the start of the process until the Manager has registered it."""
    times = []
    with bench_of() as bench:
        for number in range(STARTS + 1):
            progress(f"start {number} of {STARTS}")
            began = time.time()
            agent = bench.agent()
            line = agent.wait_for("registered")
            times.append((moment(line) - began) * 1000)
            agent.signal(signal.SIGTERM)
            agent.exit_code()
    # The first one has filled the page cache.
    yield median("process start to registered", times[1:], "ms", most=350, floors=(Floor.START,))


if __name__ == "__main__":
    show(main())
