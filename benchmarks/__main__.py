"""Run every benchmark, one after the other, and write what they find.

    python -m benchmarks [NAME ...]   # or: make bench BENCH="latency idle"

Each is a process of its own. The figures go to benchmarks/results.json and, as a table, into
docs/performance.md. With names, only those are measured anew, on the machine of the last run.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.figures import FIGURES_FILE, RESULTS, Figure, Results, machine, now, table

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN = "<!-- What follows is written by `make bench`. -->\n"
END = "<!-- Up to here. -->\n"
# In the order of the table, with the minutes that each takes.
MINUTES = {
    "latency": 8,
    "servers": 1,
    "delivery": 3,
    "large_result": 1,
    "idle": 2,
    "start": 1,
    "throughput": 7,
    "many_tasks": 5,
    "crowd": 4,
    "fleet": 5,
    "floors": 1,
}


def measured(name: str) -> list[Figure]:
    """The figures of one benchmark; raises CalledProcessError when it fails."""
    with TemporaryDirectory() as directory:
        figures = Path(directory, "figures.json")
        environment = {**os.environ, FIGURES_FILE: str(figures)}
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], env=environment, check=True)
        return msgspec.json.decode(figures.read_bytes(), type=list[Figure])


def written_before() -> dict[str, list[Figure]]:
    """The figures of the last run by benchmark; exits when that was on another machine."""
    found: dict[str, list[Figure]] = {}
    if RESULTS.exists():
        before = msgspec.json.decode(RESULTS.read_bytes(), type=Results)
        if before.machine != machine():
            sys.exit(f"{RESULTS.name} is of another machine, {before.machine}: measure everything")
        for figure in before.figures:
            found.setdefault(figure.command.rpartition(".")[2], []).append(figure)
    return found


def write(results: Results) -> None:
    """Put the results into their file, and the table into the page."""
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + "\n".join(["", *table(results), "", ""]) + END + after)


def main(names: list[str]) -> None:
    """Measure what is named, or everything, and write it down."""
    if unknown := [name for name in names if name not in MINUTES]:
        sys.exit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(MINUTES)}")
    figures = written_before() if names else {}
    chosen = [name for name in MINUTES if name in names or not names]
    left = sum(MINUTES[name] for name in chosen)
    for number, name in enumerate(chosen, 1):
        clock = time.strftime("%H:%M")
        print(f"{clock} {name}, {number} of {len(chosen)}; {left} min are left", flush=True)
        figures[name] = measured(name)
        left -= MINUTES[name]
    ordered = [figure for name in MINUTES for figure in figures.get(name, [])]
    write(Results(machine(), now(), ordered))
    missed = sum(figure.missed for figure in ordered)
    print(f"written: {RESULTS.name}, {PAGE.name}; {missed} targets missed")


if __name__ == "__main__":
    main(sys.argv[1:])
