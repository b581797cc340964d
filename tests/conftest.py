"""Fixtures for all tests. gevent patches first, as it does in the agent."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Generator, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

import pytest  # noqa: E402

from agent.dev.store.store import Store  # noqa: E402
from tests.support.bad_sectors import BadDisk  # noqa: E402
from tests.support.faulty_manager import FaultyManager, Request  # noqa: E402
from tests.support.harness import Bench  # noqa: E402

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


# Directories and fixtures whose tests start processes.
PROCESS_DIRECTORIES = {"faults", "lab", "deployment", "image"}
PROCESS_FIXTURES = {"bench", "todays_bench", "working", "shown", "driver", "bad_disk"}
# The starts of processes by the test that runs.
STARTS = {"os.fork", "os.posix_spawn", "subprocess.Popen"}
STARTED: list[str] = []


def _note_start(event: str, _: object, starts: set[str] = STARTS) -> None:
    # `starts` is still there when Python ends and this module has lost its names.
    if event in starts:
        STARTED.append(event)


sys.addaudithook(_note_start)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose directory or fixtures say that they start a process.

    Without iperf3 they cannot run: they are skipped at home, and CI fails.
    """
    for item in items:
        fixtures = PROCESS_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if fixtures or item.path.parent.name in PROCESS_DIRECTORIES:
            item.add_marker(pytest.mark.process)
    if shutil.which("iperf3"):
        return
    if os.environ.get("CI"):
        raise pytest.UsageError("iperf3 is not installed: CI must not skip")
    for item in items:
        if item.get_closest_marker("process"):
            item.add_marker(pytest.mark.skip(reason="iperf3 is not installed"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Forget what was started before, by the import of a package for one."""
    STARTED.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that started a process without the mark, so that the marks stay right."""
    try:
        return (yield)
    finally:
        if STARTED and not item.get_closest_marker("process"):
            pytest.fail("it started a process: mark it `process`", pytrace=False)


@pytest.fixture(name="bench")
def fixture_bench(tmp_path: Path) -> Iterator[Bench]:
    """A dev Manager with the agents a1 and a2, and a maker of agent processes for it."""
    yield from _running(Bench(Store(), tmp_path))


@pytest.fixture(name="working", scope="module")
def fixture_working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A dev Manager with agent a1 at work, the same for all tests of a module."""
    bench = Bench(Store(), tmp_path_factory.mktemp("working"))
    bench.manager.start()
    try:
        bench.agent(HEARTBEAT_INTERVAL="0.2", STOP_GRACE="1").wait_for("registered")
        yield bench
    finally:
        bench.close()


@pytest.fixture(name="driver", scope="session")
def fixture_driver() -> "Iterator[Chrome]":
    """A browser, the same for all tests of a run: each opens a view of its own."""
    # Selenium takes a moment to load, and few tests are about a page.
    from tests.support.browser import browser

    with browser() as driver:
        yield driver


@pytest.fixture(name="todays_bench")
def fixture_todays_bench(tmp_path: Path) -> Iterator[Bench]:
    """The same with a Manager as it is today: no long poll, no replay, no cancel list."""
    yield from _running(Bench(Store(extensions=False), tmp_path))


def _running(bench: Bench) -> Iterator[Bench]:
    bench.manager.start()
    yield bench
    bench.close()


@pytest.fixture(name="faulty")
def fixture_faulty() -> Iterator[Callable[[Callable[[Request], bytes]], FaultyManager]]:
    """Makes Managers that misbehave as a test says; they are stopped after it."""
    running: list[FaultyManager] = []

    def make(answer: Callable[[Request], bytes]) -> FaultyManager:
        running.append(FaultyManager(answer))
        return running[-1]

    yield make
    for manager in running:
        manager.stop()


@pytest.fixture(name="bad_disk")
def fixture_bad_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BadDisk]:
    """A disk that can lose a sector. To be asked for before an agent that has its state there."""
    disk = BadDisk(tmp_path_factory.mktemp("bad") / "disk")
    yield disk
    disk.close()


@pytest.fixture(name="directory")
def fixture_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the state, so that `tmp_path` is left to what a test itself writes."""
    return tmp_path_factory.mktemp("state")
