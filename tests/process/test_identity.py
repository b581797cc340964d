"""Orphans of a previous run: stopped if they are provably ours; nothing else is touched."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import msgspec
import pytest
from gevent import subprocess

from agent.process import identity
from agent.process.identity import ProcessIdentity, identify, stop_orphan
from tests.support.harness import is_running, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="identities need Linux's /proc"),
]

Orphan = Callable[[str], ProcessIdentity]


@pytest.fixture(name="orphan")
def fixture_orphan(tmp_path: Path) -> Iterator[Orphan]:
    """Starts a line of shell whose parent is dead, as a killed agent is."""
    pids: list[int] = []

    def start(line: str) -> ProcessIdentity:
        ready = tmp_path / str(len(pids))
        argv = ["/bin/sh", "-c", f"sh -c '{line}' {ready} >&- 2>&- & echo $!"]
        pids.append(int(subprocess.check_output(argv, cwd=tmp_path)))
        until(ready.exists)
        identity = identify(pids[-1])
        assert identity
        return identity

    yield start
    for pid in pids:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_process_keeps_its_identity_whatever_it_runs(orphan: Orphan, tmp_path: Path) -> None:
    child = orphan(f": >$0; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exec sleep 60")
    (tmp_path / "go").touch()
    until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n")
    assert identify(child.pid) == child


def test_a_start_time_is_in_clock_ticks_since_the_boot(orphan: Orphan) -> None:
    started = orphan(": >$0; exec sleep 60").start_time / os.sysconf("SC_CLK_TCK")
    assert abs(time.clock_gettime(time.CLOCK_BOOTTIME) - started) < 10


def test_the_start_time_is_found_behind_a_name_with_spaces_and_parentheses(
    orphan: Orphan, tmp_path: Path
) -> None:
    plain = orphan(": >$0; exec sleep 60")
    (tmp_path / "a) b 1 2").symlink_to("/bin/sleep")
    named = orphan(': >$0; exec "./a) b 1 2" 60')
    until(lambda: Path(f"/proc/{named.pid}/comm").read_text() == "a) b 1 2\n")
    assert identify(named.pid) == named
    assert plain.start_time <= named.start_time < plain.start_time + 10 * os.sysconf("SC_CLK_TCK")


def test_a_free_pid_has_no_identity() -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        ended = identify(process.pid)
    assert identify(process.pid) is None
    assert ended and not stop_orphan(ended, 60)


def test_an_orphan_is_ended_by_term(orphan: Orphan, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    child = orphan(f'trap ": >{heard}; exit" TERM; : >$0; while :; do sleep 0.05; done')
    assert stop_orphan(child, 60)
    assert heard.exists()
    assert not is_running(child.pid)


def test_an_orphan_that_ignores_term_is_killed_after_the_grace(
    orphan: Orphan, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = orphan('trap "" TERM; : >$0; while :; do sleep 0.05; done')
    waits: list[float | None] = []

    def wait(pidfd: int, seconds: float | None) -> bool:
        waits.append(seconds)
        return wait_for_end(pidfd, seconds)

    wait_for_end = identity._wait_for_end
    monkeypatch.setattr(identity, "_wait_for_end", wait)
    assert stop_orphan(child, 0.3)
    # Before the signals, for the grace after TERM, and without a limit after KILL.
    assert waits == [0, 0.3, None]
    assert not is_running(child.pid)


def test_an_orphan_suspended_by_a_signal_is_ended_by_term(orphan: Orphan) -> None:
    child = orphan(": >$0; exec sleep 60")
    os.kill(child.pid, signal.SIGSTOP)
    until(lambda: state_of(child.pid) == "T")
    with gevent.Timeout(15, AssertionError("it was never continued")):
        assert stop_orphan(child, 60)
    assert not is_running(child.pid)


@pytest.mark.parametrize("wrong", [{"start_time": 1}, {"boot_id": "of-another-boot"}])
def test_another_process_with_the_pid_of_an_orphan_is_not_touched(
    orphan: Orphan, tmp_path: Path, wrong: dict[str, object]
) -> None:
    heard = tmp_path / "heard"
    stranger = orphan(f'trap ": >{heard}" TERM CONT; : >$0; while :; do sleep 0.05; done')
    assert not stop_orphan(msgspec.structs.replace(stranger, **wrong), 0)
    # A signal would have been heard within two more rounds of its loop.
    gevent.sleep(0.2)
    assert is_running(stranger.pid)
    assert not heard.exists()


def test_a_zombie_counts_as_ended() -> None:
    # A child whose parent never waits for it.
    argv = ["/bin/sh", "-c", "sleep 0.1 & echo $!; exec sleep 60 >&-"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        try:
            zombie = int(parent.stdout.readline())
            until(lambda: state_of(zombie) == "Z")
            ended = identify(zombie)
            assert ended and not stop_orphan(ended, 60)
        finally:
            parent.kill()


def test_other_greenlets_run_while_an_orphan_takes_its_time(orphan: Orphan) -> None:
    child = orphan('trap "" TERM; : >$0; while :; do sleep 0.05; done')
    stopping = gevent.spawn(stop_orphan, child, 60)
    with gevent.Timeout(10, AssertionError("the hub is blocked")):
        gevent.sleep(0.2)
    assert not stopping.ready()
    os.kill(child.pid, signal.SIGKILL)
    assert stopping.get(timeout=10)


def state_of(pid: int) -> str:
    """The state of a process, as one letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_agent_with_many_open_descriptors_stops_an_orphan() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        identity = identify(child.pid)
        assert identity
        many = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
        try:
            assert stop_orphan(identity, 1)
        finally:
            child.kill()
            for descriptor in many:
                os.close(descriptor)
    assert child.returncode == -signal.SIGTERM
