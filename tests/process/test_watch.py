"""The look at what all running children have written."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.monkey import get_original
from structlog.testing import capture_logs

from agent.native_threads import Looks
from agent.process import watch
from agent.process.child import ChildProcess, Ending
from agent.process.output import in_thread
from agent.process.watch import Sizes
from tests.support.harness import until

pytestmark = pytest.mark.process

Shell = Callable[[str], ChildProcess]
MUCH = 1 << 30


@pytest.fixture(name="shell")
def fixture_shell(tmp_path: Path) -> Iterator[Shell]:
    """Starts children that run a line of shell, and kills those that still run."""
    with ExitStack() as stack:

        def start(line: str) -> ChildProcess:
            (directory := tmp_path / str(len(list(tmp_path.iterdir())))).mkdir()
            argv = ["/bin/sh", "-c", line]
            child = ChildProcess(argv, directory / "out", directory / "err")
            return stack.enter_context(closing(child))

        yield start


@pytest.fixture(name="held")
def fixture_held() -> Any:
    """A native lock that is held until the test releases it."""
    lock = get_original("_thread", "allocate_lock")()
    lock.acquire()
    return lock


def watched(child: ChildProcess, read: Callable[[int], bool] | None = None) -> Any:
    """A greenlet that watches a child."""
    return gevent.spawn(watch.Watch(child, Event(), MUCH, read).wait, 60)


def test_one_call_looks_at_all_children(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(look: Callable[[], list[Any]]) -> list[Any]:
        calls.append(len(found := look()))
        return found

    monkeypatch.setattr(watch, "in_thread", counted)
    watches = [watched(shell("sleep 60")) for _ in range(20)]
    until(lambda: calls.count(20) == 2)
    assert len(calls) <= 4, "those while the children started"
    gevent.killall(watches)


def test_what_was_read_is_not_read_again_and_what_was_not_is(shell: Shell) -> None:
    reads: list[int] = []

    def read(size: int) -> bool:
        reads.append(size)
        return len(reads) > 2

    watching = watched(child := shell("echo one; sleep 3; echo two"), read)
    until(lambda: len(reads) == 3)
    assert reads == [4, 4, 4]
    assert watching.get(timeout=30) is Ending.ENDED
    assert set(reads[3:]) == {8} and len(reads) <= 5
    assert child.seen == (8, 0)


def test_a_read_that_goes_on_alone_is_taken_again_so_that_its_caller_hears_of_it(
    shell: Shell, held: Any
) -> None:
    child = shell("echo one; sleep 60")
    child.looks = Looks(0.1)

    def read(_: int) -> bool:
        in_thread(held.acquire)
        held.release()
        return True

    def once() -> Ending | None:
        return watch.Watch(child, Event(), MUCH, read).wait_once(60)

    for _ in range(2):
        assert once() is None and child.seen is None
    held.release()
    until(lambda: child.looks.finish() == (4, 0))
    with gevent.Timeout(10, AssertionError("nothing more was written")):
        assert once() is None
    assert child.seen == (4, 0)


def test_a_disk_that_stands_still_hides_no_end(
    shell: Shell, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Event()

    def stand_still(_: object) -> Any:
        looking.set()
        return in_thread(held.acquire)

    watching = watched(child := shell("sleep 60"))
    monkeypatch.setattr(watch, "in_thread", stand_still)
    assert looking.wait(10)
    child.stop(0, Event())
    assert watching.get(timeout=10) is Ending.ENDED
    held.release()


def test_nobody_looks_after_the_last_child_and_the_next_one_is_looked_at(shell: Shell) -> None:
    looker = Sizes()
    for _ in range(2):
        looker.add(child := shell("echo one; sleep 60"))
        assert child.has_grown.wait(10)
        assert child.sizes == (4, 0)
        child.stop(0, Event())
        until(lambda: not vars(looker)["_children"])


@pytest.mark.parametrize(("error", "is_bug"), [(ZeroDivisionError, True), (OSError, False)])
def test_a_look_that_fails_ends_none_of_the_next_and_only_a_bug_is_told(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, error: type[Exception], is_bug: bool
) -> None:
    with monkeypatch.context() as patched, capture_logs() as said:
        failed = Event()

        def fail(_: object) -> None:
            failed.set()
            raise error

        patched.setattr(watch, "in_thread", fail)
        Sizes().add(child := shell("echo one; sleep 60"))
        assert failed.wait(10)
    assert child.has_grown.wait(10)
    assert bool(said) == is_bug
