"""Children: started, watched, stopped, and what they leave."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import gevent
import pytest
from gevent import monkey
from gevent.event import Event

from agent.errors import TaskError
from agent.process.child import STDERR_KEPT, ChildProcess, Ending
from agent.process.identity import identify
from agent.process.output import free_start, view_of
from agent.process.spawn import capture_output
from agent.process.watch import FLOODED, MAX_STDERR_BYTES, STDERR_FLOODED, Watch
from tests.support.clock import Clock
from tests.support.harness import is_running, until

pytestmark = pytest.mark.process

Shell = Callable[[str], ChildProcess]
MUCH = 1 << 30


@pytest.fixture(name="shell")
def fixture_shell(tmp_path: Path) -> Iterator[Shell]:
    """Starts children that run a line of shell, and kills those that still run."""
    children: list[ChildProcess] = []

    def start(line: str) -> ChildProcess:
        stem = tmp_path / str(len(children))
        children.append(
            ChildProcess(
                ["/bin/sh", "-c", line], stem.with_suffix(".out"), stem.with_suffix(".err")
            )
        )
        return children[-1]

    yield start
    for child in children:
        child.stop(0, Event())


def said(child: ChildProcess, start: int = 0) -> bytes:
    """What a child wrote to stdout."""
    return bytes(view_of(child.stdout, start))


def stands_still(child: ChildProcess) -> bool:
    """Whether a signal has stopped the child."""
    return "State:\tT" in Path(f"/proc/{child.pid}/status").read_text()


def test_a_childs_output_and_exit_code_are_kept(shell: Shell) -> None:
    child = shell("echo out; echo err >&2; exit 3")
    assert child.ended.wait(10)
    assert said(child) == b"out\n"
    assert said(child, 2) == b"t\n"
    assert said(child, 99) == b""
    assert child.take_stderr() == "err"
    assert not child.stderr.exists()
    assert child.close() == 3


def test_gevent_forgets_a_child_that_was_closed(shell: Shell) -> None:
    child = shell("exit 3")
    assert child.ended.wait(10)
    assert child.close() == 3
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


def test_only_the_end_of_stderr_is_kept(shell: Shell) -> None:
    child = shell(f"head -c {STDERR_KEPT} /dev/zero | tr '\\0' x >&2; echo last words >&2")
    assert child.ended.wait(10)
    text = child.take_stderr()
    assert len(text) < STDERR_KEPT
    assert text.endswith("last words")


def test_a_child_has_its_own_session(shell: Shell) -> None:
    child = shell("sleep 60")
    assert os.getsid(child.pid) == child.pid


def test_a_child_has_the_identity_of_its_process(shell: Shell) -> None:
    child = shell("sleep 60")
    assert child.identity == identify(child.pid) is not None


def test_a_child_gets_only_the_variables_that_it_needs(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_KEY", "hush")
    child = shell("env")
    assert child.ended.wait(10)
    names = {line.partition(b"=")[0].decode() for line in said(child).splitlines()}
    assert "PATH" in names
    assert names <= {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PWD", "_", "SHLVL"}


def has_secret_files(pid: int) -> bool:
    """Whether a process has a file in memory open."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(each))
    return "/memfd:secret (deleted)" in found


def test_a_child_gets_its_secrets_in_memory_and_another_child_gets_none(tmp_path: Path) -> None:
    secrets = {"[file]": "hush", "[other]": "hushed", "WORD": "quiet"}
    line = "cat $0 $0 $1; echo $WORD; stat -L -c %a $0; exec sleep 60"
    children = [
        ChildProcess(argv, tmp_path / f"{argv[0]}.out", tmp_path / f"{argv[0]}.err", given)
        for argv, given in (
            (["sh", "-c", line, "[file]", "[other]"], secrets),
            (["sleep", "60"], {}),
        )
    ]
    try:
        until(lambda: b"600" in said(children[0]))
        assert said(children[0]) == b"hushhushhushedquiet\n600\n"
        for child, has in zip(children, (True, False)):
            process = Path(f"/proc/{child.pid}")
            assert b"hush" not in (process / "cmdline").read_bytes()
            assert (b"quiet" in (process / "environ").read_bytes()) is has
            assert has_secret_files(child.pid) is has
    finally:
        for child in children:
            child.close()
    assert not has_secret_files(os.getpid())


def test_no_secret_stays_open_when_its_program_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as raised:
        ChildProcess([str(tmp_path)], tmp_path / "out", tmp_path / "err", {"[file]": "hush"})
    assert "hush" not in str(raised.value)
    assert not has_secret_files(os.getpid())


def test_off_linux_a_child_with_a_secret_file_is_unsupported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(TaskError, match="on Linux only") as raised:
        ChildProcess(["true"], tmp_path / "out", tmp_path / "err", {"[file]": "hush"})
    assert raised.value.error_class == "unsupported"


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.write_text("not executable")]
)
def test_a_program_that_cannot_run_is_named_with_the_remedy_and_leaves_no_files(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    make(program := tmp_path / "program")
    with pytest.raises(TaskError, match=f"{program} cannot be run .*set IPERF3_PATH") as raised:
        ChildProcess([str(program)], tmp_path / "out", tmp_path / "err")
    assert raised.value.error_class == "iperf3_missing"
    assert not (tmp_path / "out").exists() and not (tmp_path / "err").exists()


def test_a_child_whose_output_cannot_be_written_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=f"{tmp_path / 'no'} cannot be written") as raised:
        ChildProcess(["/bin/true"], tmp_path / "no" / "out", tmp_path / "no" / "err")
    assert raised.value.error_class == "host_error"


def test_outputs_that_cannot_be_opened_now_hold_up_no_other_child(
    shell: Shell, tmp_path: Path
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    waiting = [
        gevent.spawn(ChildProcess, ["/bin/true"], pipe, tmp_path / str(number))
        for number in range(9)
    ]
    gevent.idle()
    assert shell("exit 3").ended.wait(10)
    assert not any(each.ready() for each in waiting)
    # The pipe can be opened from now on, as somebody reads it.
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    children = [each.get(timeout=10) for each in waiting]
    assert all(child.ended.wait(10) and child.close() == 0 for child in children)
    os.close(reader)


def test_a_child_ends_on_term(shell: Shell) -> None:
    child = shell("sleep 60")
    child.stop(30, Event())
    assert child.close() == -signal.SIGTERM


def test_a_child_that_ignores_term_is_killed_after_the_grace(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, clock = deaf(shell), Clock()
    monkeypatch.setattr("agent.process.child.gevent", clock)
    child.stop(0.3, Event())
    assert clock.pauses == [0.3]
    assert child.close() == -signal.SIGKILL


def test_a_child_that_ignores_term_is_killed_at_once_when_forced(shell: Shell) -> None:
    child, force = deaf(shell), Event()
    stopping = gevent.spawn(child.stop, 60, force)
    gevent.sleep(0)
    force.set()
    stopping.get(timeout=15)
    assert child.close() == -signal.SIGKILL


def test_a_child_suspended_by_a_signal_ends_on_term(shell: Shell) -> None:
    child = shell("sleep 60")
    os.kill(child.pid, signal.SIGSTOP)
    until(lambda: stands_still(child))
    child.stop(30, Event())
    assert child.close() == -signal.SIGTERM


def test_stopping_a_child_that_has_ended_does_nothing(shell: Shell) -> None:
    child = shell("exit 4")
    assert child.ended.wait(10)
    child.stop(30, Event())
    assert child.close() == 4
    child.stop(30, Event())


def test_a_grandchild_that_keeps_stdout_open_does_not_delay_the_end(shell: Shell) -> None:
    child = shell("sleep 60 & echo $!; sleep 0.2")
    assert child.ended.wait(10)
    grandchild = int(said(child))
    assert is_running(grandchild)
    child.close()
    until(lambda: not is_running(grandchild))


def test_what_a_child_started_gets_the_time_to_end_well(shell: Shell) -> None:
    """A shell that waits for iperf3 dies of TERM at once."""
    slow = "trap 'sleep 0.3; echo done; exit' TERM; echo \\$\\$; while :; do sleep 0.01; done"
    child = shell(f'/bin/sh -c "{slow}"; true')
    until(lambda: said(child))
    child.stop(20, Event())
    assert child.close() == -signal.SIGTERM and said(child).endswith(b"done\n")
    assert not is_running(int(said(child).split()[0]))


def test_what_a_child_started_is_killed_after_the_grace(shell: Shell) -> None:
    deaf = "trap '' TERM; echo \\$\\$; while :; do sleep 0.01; done"
    child = shell(f'/bin/sh -c "{deaf}"; true')
    until(lambda: said(child))
    child.stop(0.2, Event())
    until(lambda: not is_running(int(said(child))))


def test_freed_output_takes_no_space_and_the_rest_stays(shell: Shell) -> None:
    child = shell("head -c 1000000 /dev/zero; echo rest")
    assert child.ended.wait(10)
    free_start(child.stdout, 1_000_000)
    found = os.stat(child.stdout)
    assert found.st_size == 1_000_005
    assert found.st_blocks * 512 < 100_000
    assert said(child, 1_000_000) == b"rest\n"


def test_a_child_can_write_on_after_its_output_was_freed(shell: Shell) -> None:
    child = shell("echo one; kill -STOP $$; echo two")
    until(lambda: stands_still(child))
    assert said(child) == b"one\n"
    free_start(child.stdout, 4)
    os.kill(child.pid, signal.SIGCONT)
    assert child.ended.wait(10)
    assert said(child, 4) == b"two\n"


def test_a_watch_ends_with_the_child(shell: Shell) -> None:
    assert Watch(shell("sleep 0.1"), Event(), MUCH).wait(60) is Ending.ENDED


def test_a_watch_ends_with_the_order_to_stop(shell: Shell) -> None:
    stop = Event()
    gevent.spawn_later(0.1, stop.set)
    assert Watch(shell("sleep 60"), stop, MUCH).wait(60) is Ending.STOPPED


@pytest.mark.parametrize("seconds", [0.3, 1.2])
def test_a_child_that_ended_while_the_agent_was_held_up_has_ended(
    shell: Shell, seconds: float
) -> None:
    """Its time is over as well when the agent looks, but that is not why the wait ended."""
    child = shell("sleep 0.1")
    gevent.spawn(monkey.get_original("time", "sleep"), seconds + 0.3)
    assert Watch(child, Event(), MUCH).wait(seconds) is Ending.ENDED


@pytest.mark.parametrize("seconds", [0.1, 1.2])
def test_a_watch_ends_when_the_time_is_over(
    shell: Shell, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("agent.process.watch.wait", clock.wait)
    monkeypatch.setattr("agent.process.watch.time", clock)
    assert Watch(shell("sleep 60"), Event(), MUCH).wait(seconds) is Ending.TIME
    assert sum(clock.pauses) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("stream", "size", "most", "words"),
    [(1, 2000, 1000, FLOODED), (2, MAX_STDERR_BYTES + 1, 10 * MAX_STDERR_BYTES, STDERR_FLOODED)],
)
def test_a_watch_ends_when_the_child_writes_too_much(
    shell: Shell, stream: int, size: int, most: int, words: str
) -> None:
    child = shell(f"head -c {size} /dev/zero >&{stream}; sleep 60")
    assert Watch(child, Event(), most).wait(60) is Ending.OUTPUT
    assert child.flooded == words


def test_the_limit_of_stderr_is_its_own(shell: Shell) -> None:
    child = shell(f"head -c {MAX_STDERR_BYTES} /dev/zero >&2")
    assert Watch(child, Event(), 0).wait(60) is Ending.ENDED


def test_a_child_that_wrote_too_much_and_ended_wrote_too_much(shell: Shell) -> None:
    assert Watch(shell("head -c 2000 /dev/zero"), Event(), 1000).wait(60) is Ending.OUTPUT


def test_the_output_of_a_command_includes_its_stderr() -> None:
    words = capture_output(["/bin/sh", "-c", "echo out; echo err >&2"], 10)
    assert sorted(words.split()) == ["err", "out"]


def test_of_a_command_that_prints_without_an_end_a_mib_is_read_and_then_it_is_killed(
    tmp_path: Path,
) -> None:
    pid = tmp_path / "pid"
    line = f"echo $$ > {pid}; exec yes"
    with pytest.raises(TaskError, match="/bin/sh prints without an end"):
        capture_output(["/bin/sh", "-c", line], 60)
    assert not is_running(int(pid.read_text()))


def test_a_command_that_closes_its_output_and_hangs_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    line = f"echo $$ > {pid}; exec sleep 60 >&- 2>&-"
    with pytest.raises(TaskError, match="did not answer within 0.3 s"):
        capture_output(["/bin/sh", "-c", line], 0.3)
    assert not is_running(int(pid.read_text()))


def test_a_command_that_hangs_is_killed_with_all_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    line = f"sleep 60 & echo $$ $! > {pids}; wait"
    with gevent.Timeout(10, AssertionError("a grandchild keeps the pipe open")):
        with pytest.raises(TaskError, match="did not answer within 0.3 s"):
            capture_output(["/bin/sh", "-c", line], 0.3)
    until(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()))


def deaf(shell: Shell) -> ChildProcess:
    """A child that ignores TERM already."""
    child = shell("trap '' TERM; echo deaf; while :; do sleep 0.05; done")
    until(lambda: said(child))
    return child
