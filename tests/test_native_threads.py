"""Native threads and looks: what waits in them holds up nothing else."""

import errno
import subprocess
import sys
import time
from contextvars import ContextVar
from typing import Any

import gevent
import pytest
from gevent import threadpool
from gevent.monkey import get_original

from agent.files import Whose, whose
from agent.native_threads import Looks, NativeThreads, Resolver

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


def test_an_address_is_found_while_no_thread_is_free_and_a_name_waits(held: Any) -> None:
    resolver = Resolver()  # type: ignore[no-untyped-call]
    resolver.pool = NativeThreads(1)
    gevent.spawn(resolver.pool.call, held.acquire, True, 5)
    gevent.sleep(0.05)
    name = gevent.spawn(resolver.getaddrinfo, "localhost", 80, 0, 0, 0, 0)
    for address in ("127.0.0.1", "::1"):
        found = gevent.spawn(resolver.getaddrinfo, address, 80, 0, 0, 0, 0).get(timeout=5)
        assert found[0][4][:2] == (address, 80)
    assert not name.ready()
    held.release()
    assert name.get(timeout=5)


@pytest.mark.process
def test_an_agents_process_starts_no_thread_to_find_an_address() -> None:
    script = """
from agent import __main__
__main__._prepare_process()
import gevent, socket
socket.getaddrinfo("127.0.0.1", 80)
assert gevent.get_hub().threadpool.size == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_work_without_a_thread_is_an_error_of_the_host_and_is_not_done_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, done = NativeThreads(2), list[int]()
    with monkeypatch.context() as patch:
        patch.setattr(threadpool, "start_new_thread", refuse)
        with pytest.raises(OSError, match="can't start new thread") as caught:
            pool.call(done.append, 1)
    assert whose(caught.value) is Whose.HOST
    pool.call(done.append, 2)
    assert done == [2]


def test_work_waits_for_the_threads_that_are_there(
    monkeypatch: pytest.MonkeyPatch, held: Any
) -> None:
    pool = NativeThreads(2)
    first = gevent.spawn(pool.call, held.acquire, True, 5)
    gevent.sleep(0.05)
    monkeypatch.setattr(threadpool, "start_new_thread", refuse)
    second = gevent.spawn(pool.call, len, "abc")
    gevent.sleep(0.05)
    assert not second.ready()
    held.release()
    assert (first.get(), second.get()) == (True, 3)


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


@pytest.mark.process
def test_threads_that_decode_at_once_crash_nothing() -> None:
    """Without `_prepare`, half of the runs and more end by SIGSEGV."""
    run = [sys.executable, "-m", "tests.support.first_decode"]
    assert [subprocess.run(run, timeout=30).returncode for _ in range(8)] == [0] * 8
