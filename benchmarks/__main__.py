"""Run the benchmarks, one after the other, and compare what they find with what is committed.

    python -m benchmarks [NAME ...]   # or: make bench BENCH="latency idle"

Each is a process of its own. The figures go to benchmarks/results.json, those that have a target
also into the table of docs/performance.md. With names, only these and the floors are measured anew.
The exit code is 1 when a script failed: its figures stay as they were, all others are kept.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks import page
from benchmarks.comparison import compare, report
from benchmarks.figures import FIGURES_FILE, Figure
from benchmarks.results import (
    RESULTS,
    ROOT,
    Results,
    Run,
    committed,
    encode,
    find_floors,
    in_tree,
    machine,
    today,
)

FLOORS = "floors"
# Seconds that each takes. The floors come first, and next to them what is compared with them.
SECONDS = {
    FLOORS: 120,
    "latency": 150,
    "servers": 140,
    "start": 30,
    "delivery": 90,
    "far": 30,
    "slow_link": 75,
    "idle": 130,
    "large_result": 30,
    "throughput": 150,
    "observing": 150,
    "many_tasks": 300,
    "crowd": 180,
    "fleet": 220,
}


def measured(name: str) -> list[Figure]:
    """The figures of one benchmark; raises CalledProcessError when it fails."""
    with TemporaryDirectory() as directory:
        figures = Path(directory, "figures.json")
        environment = {**os.environ, FIGURES_FILE: str(figures)}
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        return msgspec.json.decode(figures.read_bytes(), type=list[Figure])


def measure_all(
    names: list[str],
    results: Results,
    keep: Callable[[Results], None],
    measure: Callable[[str], list[Figure]] = measured,
) -> list[str]:
    """Put anew what is named into the results, and keep them after each; returns what failed.

    The names begin with the floors, or no figure has one.
    """
    failed = []
    floors: list[Figure] = []
    left = sum(SECONDS[name] for name in names)
    for number, name in enumerate(names, 1):
        clock = time.strftime("%H:%M")
        minutes = f"{left / 60:.0f} min are left"
        print(f"{clock} {name}, {number} of {len(names)}; {minutes}", flush=True)
        left -= SECONDS[name]
        try:
            figures = measure(name)
        except subprocess.CalledProcessError as error:
            print(f"{name} failed: {error}", file=sys.stderr)
            failed.append(name)
            continue
        if not figures:
            # It has said why.
            continue
        if name == FLOORS:
            floors = figures
        find_floors(figures, floors)
        results[name] = Run(today(), machine(), figures)
        keep(results)
    return failed


def keep(results: Results) -> None:
    """Write the results into their file and their table into the page."""
    ordered = {name: results[name] for name in SECONDS if name in results}
    (ROOT / RESULTS).write_bytes(encode(ordered))
    page.write(ordered)


def main(names: list[str]) -> int:
    """Measure what is named, or everything, and compare it; returns the exit code."""
    if unknown := [name for name in names if name not in SECONDS]:
        sys.exit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(SECONDS)}")
    chosen = [name for name in SECONDS if not names or name in (FLOORS, *names)]
    before, results = committed(), in_tree()
    failed = measure_all(chosen, results, keep)
    done = [name for name in chosen if name not in (FLOORS, *failed)]
    print("\n".join(report(compare(results, before, done))))
    if any(results[name].machine != before[name].machine for name in done if name in before):
        print("The committed figures are of another machine: trust only the ratios to floors.")
    if failed:
        print(f"failed, their figures stay as they were: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
