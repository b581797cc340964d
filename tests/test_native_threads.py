"""Native threads and looks: what waits in them holds up nothing else."""

import errno
import time
from contextvars import ContextVar
from typing import Any

import gevent
import pytest
from gevent.monkey import get_original

from agent.native_threads import Looks, NativeThreads

CONTEXT: ContextVar[str] = ContextVar("CONTEXT")


@pytest.fixture(name="held")
def fixture_held() -> Any:
    """A native lock that is held until the test releases it."""
    lock = get_original("_thread", "allocate_lock")()
    lock.acquire()
    return lock


def fail() -> None:
    raise OSError(errno.EIO, "it failed")


def test_others_run_while_a_call_waits(held: Any) -> None:
    gevent.spawn(held.release)
    assert NativeThreads(1).call(held.acquire, True, 5)


def test_an_error_is_raised_where_the_call_was_made() -> None:
    with pytest.raises(OSError, match="it failed"):
        NativeThreads(1).call(fail)


def test_a_look_is_waited_for_a_while_and_goes_on_alone(held: Any) -> None:
    threads, looks, seen = NativeThreads(1), Looks[None](0.1), list[str]()

    def look() -> None:
        threads.call(held.acquire)
        held.release()
        seen.append(CONTEXT.get())

    CONTEXT.set("of the task")
    began = time.monotonic()
    for _ in range(100):
        looks.take(look)
    assert time.monotonic() - began < 5, "waited for once"
    assert not seen
    held.release()
    looks.finish()
    assert seen == ["of the task"], "there was one at a time"
    looks.take(look)
    looks.finish()
    assert len(seen) == 2


def test_a_look_that_fails_says_so_at_once_or_to_the_next_one(held: Any) -> None:
    threads, looks = NativeThreads(1), Looks[None](0.1)
    with pytest.raises(OSError, match="it failed"):
        looks.take(fail)

    def fail_late() -> None:
        threads.call(held.acquire)
        fail()

    looks = Looks[None](0.1)
    looks.take(fail_late)
    held.release()
    with gevent.Timeout(10), pytest.raises(OSError, match="it failed"):
        while True:
            looks.take(lambda: None)
