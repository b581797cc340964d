"""A dev Manager in this process, in a directory of its own that is removed in the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.dev.store import Store
from tests.harness import Bench


@contextmanager
def bench_of(store: Store | None = None) -> Iterator[Bench]:
    """A bench, with a Manager that knows the long poll unless `store` is one that does not."""
    with TemporaryDirectory() as directory:
        bench = Bench(store or Store(), Path(directory))
        bench.manager.start()
        try:
            yield bench
        finally:
            bench.close()
