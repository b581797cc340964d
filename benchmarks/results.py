"""The figures of all benchmarks, as they lie in benchmarks/results.json."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.figures import Figure

ROOT = Path(__file__).parent.parent
RESULTS = Path("benchmarks", "results.json")


class Run(Struct):
    """The figures of one script, and when and on which machine it ran."""

    taken_at: str
    machine: str
    figures: list[Figure]


# By the name of the script.
Results = dict[str, Run]


def decode(data: bytes) -> Results:
    """Results from JSON; raises msgspec.ValidationError for another form of it."""
    return msgspec.json.decode(data, type=Results)


def encode(results: Results) -> bytes:
    """Results as JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(results)) + b"\n"


def committed() -> Results:
    """The results of the last commit, or those of the working tree where git knows none."""
    shown = subprocess.run(
        ["git", "show", f"HEAD:{RESULTS}"], cwd=ROOT, capture_output=True, check=False
    )
    return decode(shown.stdout) if shown.returncode == 0 else in_tree()


def in_tree() -> Results:
    """The results of the working tree; empty when there are none yet."""
    path = ROOT / RESULTS
    return decode(path.read_bytes()) if path.exists() else {}


def find_floors(figures: list[Figure], floors: list[Figure]) -> None:
    """Give each figure that names floors their sum, or None where one of them is missing."""
    known = {floor.what: floor.measured for floor in floors}
    for figure in figures:
        parts = [known[name] for name in figure.floors if name in known]
        complete = parts and len(parts) == len(figure.floors)
        figure.floor = sum(parts[1:], start=parts[0]) if complete else None


def machine() -> str:
    """What the figures depend on: processor, cores, kernel, Python, iperf3."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    iperf3 = subprocess.run(["iperf3", "--version"], capture_output=True, text=True, check=True)
    version = iperf3.stdout.split(" (")[0]
    words = f"{len(os.sched_getaffinity(0))} cores of {name}, {platform.system()}"
    return f"{words} {platform.release()}, Python {platform.python_version()}, {version}"


def today() -> str:
    """The date of today in UTC."""
    return datetime.now(UTC).date().isoformat()
