"""A disk that fails or stands still for one process, as a test says while that process runs.

A library is preloaded into the agent: faulty_disk.c says how. Children of the agent are not
affected, as they get an environment of their own.
"""

import os
import shutil
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from gevent import subprocess

from tests.support.harness import until

SOURCE = Path(__file__).with_suffix(".c")
# What a test may call: the libc functions that count as one are in faulty_disk.c.
CALLS = frozenset(
    "access close fdatasync fsync link mkdir open opendir read readdir rename stat unlink "
    "write".split()
)
POSSIBLE = sys.platform == "linux" and shutil.which("gcc")
_HOLD = 0


class FaultyDisk:
    """The faults of one disk. `variables` are for the environment of the process that has it."""

    def __init__(self, directory: Path) -> None:
        """Have no fault yet. The directory is this disk's own, and is made."""
        directory.mkdir()
        self._rules = directory / "rules"
        self._met = directory / "met"
        self._lines: list[str] = []
        self.variables = {"LD_PRELOAD": str(library()), "FAULTY_DISK": str(directory)}

    def fail(self, calls: str, pattern: Path | str, number: int) -> None:
        """From now on let these calls fail with this errno for the paths that match."""
        self._add(calls, pattern, number)

    def hold(self, calls: str, pattern: Path | str) -> None:
        """From now on let these calls wait, until `lift`."""
        self._add(calls, pattern, _HOLD)

    def lift(self) -> None:
        """Take all faults away; calls that are held go on."""
        self._lines.clear()
        self._write()

    def met(self) -> set[tuple[str, str]]:
        """The calls that a fault was for, each with its path."""
        if not self._met.exists():
            return set()
        found = (line.partition(" ") for line in self._met.read_text().splitlines())
        return {(call, path) for call, _, path in found}

    def wait_until_met(self, call: str, name: str) -> None:
        """Return once a fault was for this call, with a path of this name."""
        until(lambda: any(Path(path).name == name for met, path in self.met() if met == call))

    def _add(self, calls: str, pattern: Path | str, number: int) -> None:
        for call in calls.split():
            assert call in CALLS, call
            self._lines.append(f"{call} {number} {pattern}")
        self._write()

    def _write(self) -> None:
        fresh = self._rules.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in self._lines))
        os.replace(fresh, self._rules)


@cache
def library() -> Path:
    """The library, compiled once for each process that runs tests, and removed at its end."""
    place = Path(_PLACE.name) / "faulty_disk.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(place), str(SOURCE), "-ldl"], check=True)
    return place


_PLACE = TemporaryDirectory(prefix="faulty-disk-")
