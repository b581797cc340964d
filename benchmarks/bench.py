"""A dev Manager in this process, in a directory of its own that is removed in the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.dev.store.store import Store
from benchmarks.lean import lean_agent
from tests.support.harness import Bench


def moment(line: dict[str, Any]) -> float:
    """When an agent wrote a line of its log, in seconds since the epoch."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


@contextmanager
def bench_of(store: Store | None = None) -> Iterator[Bench]:
    """A bench whose agents have the packages that users have.

    Its Manager knows the long poll unless `store` is one that does not.
    """
    with TemporaryDirectory() as directory:
        bench = Bench(store or Store(), Path(directory), lean_agent())
        bench.manager.start()
        try:
            yield bench
        finally:
            bench.close()
