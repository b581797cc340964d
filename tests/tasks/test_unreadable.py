"""Files of children that the disk does not give: a task loses its document at most."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import gevent
import pytest
from gevent.monkey import get_original
from structlog.testing import capture_logs
from structlog.typing import EventDict

from agent.errors import StateUnusable, class_of
from agent.iperf3.verdict import last_served
from agent.process.child import ChildProcess, Ending
from agent.protocol import Document, Report
from agent.registry import TaskRegistry
from agent.state.directory import StateDirectory
from agent.tasks.attempt import judge_attempt
from agent.tasks.client_output import (
    StreamReader,
    figures_of,
    judge_output,
    newest_measured,
    newest_output,
)
from agent.tasks.served import ServedTests, newest_served, served_file
from tests.support.bad_sectors import BLOCK, BadDisk
from tests.support.clock import install_clock
from tests.support.outbox import claimed
from tests.support.recorded_runs import run

MEASURED = run("3.12", "tcp").stdout
STREAM = run("3.22", "stream-tcp-omit").stdout
SERVED = run("3.12", "server-tcp").stdout
NEWEST = SERVED[slice(*(last_served(SERVED).span or ()))]
TASK = claimed(7)
ERRORS = [errno.EACCES, errno.EIO, errno.ESTALE]


@pytest.fixture(name="state")
def fixture_state(bad_disk: BadDisk) -> StateDirectory:
    """A state directory on a disk that can lose a sector."""
    return StateDirectory(bad_disk.path / "state")


@pytest.fixture(name="sound")
def fixture_sound(directory: Path) -> StateDirectory:
    """A state directory on another disk."""
    return StateDirectory(directory)


def written(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def padded(content: bytes) -> bytes:
    """With enough spaces behind it for the next part to begin in a new block."""
    return content.ljust(-(-len(content) // BLOCK) * BLOCK)


def round_in_circles(path: Path) -> Path:
    path.symlink_to(path)
    return path


def content_of(document: Document | None) -> bytes:
    assert document
    return Path(document.path).read_bytes()[document.start : document.end]


def warned(log: list[EventDict]) -> list[object]:
    return [line["event"] for line in log if line["log_level"] in ("warning", "error")]


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("name, content", [("7.1.k.json", MEASURED), ("7.1.k.stream", STREAM)])
def test_the_output_of_an_ended_client(
    bad_disk: BadDisk, state: StateDirectory, name: str, content: bytes
) -> None:
    stdout = written(state.children / name, content)
    bad_disk.spoil(stdout)
    with pytest.raises(StateUnusable, match="Input/output error") as raised:
        judge_output(state, stdout, 0, "")
    assert class_of(raised.value) == "host_error"


@contextmanager
def no_document(number: int, is_over: Callable[[], bool] = bool) -> Iterator[None]:
    """The disk takes no document of a client until it is over."""
    really_open = open

    def no_new_file(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "w" in mode and str(path).endswith(".json.new") and not is_over():
            raise OSError(number, os.strerror(number), str(path))
        return really_open(path, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.open", no_new_file)
        yield


UNWRITTEN = [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES, errno.EMFILE]


@pytest.mark.parametrize("number", UNWRITTEN)
def test_a_stream_is_kept_until_the_disk_takes_its_document(
    sound: StateDirectory, number: int
) -> None:
    """An agent that starts again leaves it for its next look."""
    stdout = written(sound.children / f"7.1.{TASK.key}.stream", STREAM)
    report = Report()
    with no_document(number):
        with pytest.raises(StateUnusable, match=os.strerror(number)):
            newest_measured(sound, TASK, report)
        figures = figures_of(sound, stdout)
    assert os.listdir(sound.children) == [stdout.name]
    document, is_whole = newest_measured(sound, TASK, report)
    assert is_whole and os.listdir(sound.children) == [stdout.with_suffix(".json").name]
    assert figures and figures == last_served(content_of(document)).figures


def test_a_stream_that_cannot_be_read_does_not_hold_up_what_a_previous_run_left(
    bad_disk: BadDisk, state: StateDirectory
) -> None:
    stdout = written(state.children / f"7.1.{TASK.key}.stream", STREAM)
    bad_disk.spoil(stdout, 0)
    with capture_logs() as log:
        assert newest_measured(state, TASK, Report()) == (None, False)
    assert warned(log) == ["the output of a test is lost"]


class Ended:
    """A client that has ended well."""

    def __init__(self, stdout: Path) -> None:
        self.stdout = stdout

    def take_stderr(self) -> str:
        return ""


@pytest.mark.parametrize("number", UNWRITTEN)
@pytest.mark.parametrize("back", [True, False])
def test_the_document_of_an_ended_client_is_tried_for_some_seconds(
    sound: StateDirectory, monkeypatch: pytest.MonkeyPatch, number: int, back: bool
) -> None:
    """If the disk does not take it, its figures remain."""
    stdout = written(sound.children / "7.1.k.stream", STREAM)
    clock = install_clock(monkeypatch, "tasks.attempt.gevent")
    with no_document(number, lambda: back and len(clock.pauses) == 3):
        attempt = judge_attempt(sound, cast(ChildProcess, Ended(stdout)), 0, Ending.ENDED)
    assert attempt.verdict.figures and attempt.verdict.ok is back
    assert len(clock.pauses) == (3 if back else 4)
    if not back:
        assert attempt.verdict.span is None and attempt.output == stdout
        assert "the document is lost" in attempt.verdict.message


def test_a_running_tests_stream(bad_disk: BadDisk, state: StateDirectory) -> None:
    stdout = written(state.children / "7.1.k.stream", STREAM)
    bad_disk.spoil(stdout, 0)
    entry = TaskRegistry().enter(TASK)
    StreamReader(stdout, entry).read_new(len(STREAM))
    assert entry.intervals == []


def test_a_running_servers_output_loses_what_is_there_and_the_next_test_is_reported(
    bad_disk: BadDisk, state: StateDirectory
) -> None:
    stdout = written(state.children / "7.k.json", padded(SERVED))
    bad_disk.spoil(stdout, 0)
    served = ServedTests(stdout)
    with capture_logs() as log:
        for _ in range(3):
            served.read()
            assert not served.tests
    assert warned(log).count("the document of a served test cannot be kept") == 1
    assert served.newest is None
    with open(stdout, "ab") as file:
        file.write(SERVED)
    served.read()
    ((document, _),) = served.tests
    assert content_of(document) == content_of(served.newest) == NEWEST
    assert served.may_lack_some


def test_an_error_that_is_over_costs_no_served_test(
    sound: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedTests(written(sound.children / "7.k.json", SERVED))
    for name in ("fstat", "replace", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(errno.EIO if name != "fstat" else errno.EMFILE))
            served.read()
            assert not served.tests
            # Without a name for a report of its own, it is the server's last document all the same.
            assert served.may_lack_some is (name != "link")
    assert content_of(served.newest) == NEWEST
    served.read()
    ((document, _),) = served.tests
    assert content_of(document) == content_of(served.newest) == NEWEST
    assert not served.may_lack_some


def test_the_output_of_a_killed_agents_server(bad_disk: BadDisk, state: StateDirectory) -> None:
    stdout = written(state.children / "7.k.json", SERVED)
    bad_disk.spoil(stdout)
    with capture_logs() as log:
        assert newest_served(stdout) is None
        written(served_file(stdout), b"{}")
        assert content_of(newest_served(stdout)) == b"{}"
    assert warned(log) == ["the output of a server cannot be read"] * 2


def test_files_whose_links_go_round(sound: StateDirectory) -> None:
    stdout = round_in_circles(sound.children / "7.k.json")
    round_in_circles(served_file(stdout))
    with capture_logs() as log:
        assert newest_served(stdout) is None
    assert len(warned(log)) == 2
    served = ServedTests(stdout)
    served.read()
    assert not served.tests and served.newest is None
    for name in ("7.1.key of 7.stream", "7.2.key of 7.json"):
        found = round_in_circles(sound.children / name)
        number = int(name.split(".")[1])
        assert newest_output(sound.children, TASK) == (number, found)
        with pytest.raises(StateUnusable, match="symbolic links") as raised:
            judge_output(sound, found, 0, "")
        assert class_of(raised.value) == "host_error"
        StreamReader(found, TaskRegistry().enter(TASK)).read_new(len(STREAM))


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("name", ["stat", "listdir", "open"])
def test_calls_that_fail(
    sound: StateDirectory, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    client = written(sound.children / "7.1.key of 7.json", MEASURED)
    stdout = written(sound.children / "7.k.json", SERVED)
    served = ServedTests(stdout)
    served.read()
    place = "builtins" if name == "open" else "os"
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{name}", failing(number))
        found = newest_output(sound.children, TASK)
        newest = newest_served(stdout)
        served.read()
    assert found == (None if name == "listdir" else found)
    assert found in (None, (1, client))
    assert newest is None or content_of(newest) == NEWEST


def test_a_document_that_cannot_be_read_is_logged_once(sound: StateDirectory) -> None:
    stdout = written(sound.children / "7.k.json", NEWEST[:-2])
    served = ServedTests(stdout)
    with capture_logs() as log:
        served.read()
        assert served.incomplete.startswith('{ "start":') and not log
        for _ in range(2):
            with open(stdout, "ab") as file:
                file.write(b"\n" + SERVED)
            served.read()
    assert warned(log) == ["iperf3 wrote JSON that cannot be read"]
    assert content_of(served.newest) == NEWEST and not served.incomplete


def test_a_document_in_other_bytes_is_mended_also_after_a_restart(sound: StateDirectory) -> None:
    title = b'{\n\t"title":\t"caf\xe9",'
    stdout = written(sound.children / "7.k.json", SERVED, title, NEWEST[1:])
    with capture_logs() as log:
        content = content_of(newest_served(stdout))
    assert content == title.replace(b"\xe9", b"?") + NEWEST[1:]
    assert warned(log) == ["a server's JSON was mended"]


def test_a_stray_file_is_no_attempt(sound: StateDirectory) -> None:
    written(sound.children / "7.x.key of 7.json", MEASURED)
    assert newest_output(sound.children, TASK) is None


@pytest.mark.parametrize("kind", ["stream", "server"])
def test_the_hub_turns_while_a_slow_disk_is_read(
    sound: StateDirectory, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The disk waits for another greenlet."""
    there = get_original("_thread", "allocate_lock")()
    really_open = open

    def slow_open(*args: Any, **kwargs: Any) -> Any:
        assert there.acquire(timeout=5), "no other greenlet could run"
        there.release()
        return really_open(*args, **kwargs)

    stream = written(sound.children / "7.1.k.stream", STREAM)
    output = written(sound.children / "7.k.json", SERVED)
    entry, served = TaskRegistry().enter(TASK), ServedTests(output)
    there.acquire()
    gevent.spawn(there.release)
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", slow_open)
        if kind == "stream":
            StreamReader(stream, entry).read_new(len(STREAM))
        else:
            served.read()
    assert entry.intervals if kind == "stream" else served.newest


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("name", ["stat", "listdir", "open"])
def test_a_moment_of_need_of_the_host_is_no_loss(
    sound: StateDirectory, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    written(sound.children / "7.1.key of 7.json", MEASURED)
    stdout = written(sound.children / "7.k.json", SERVED)
    written(served_file(stdout), b"older")
    place = "builtins" if name == "open" else "os"
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{name}", failing(number))
        with pytest.raises(OSError) as raised:
            newest_output(sound.children, TASK)
            newest_served(stdout)
            stdout.unlink()
            newest_served(stdout)
    assert raised.value.errno == number


def test_what_an_ended_server_wrote_is_read_when_the_host_has_descriptors_again(
    sound: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = install_clock(monkeypatch, "tasks.served.gevent")
    served = ServedTests(written(sound.children / "7.k.json", SERVED))
    really_open = open

    def opened_later(*args: Any, **kwargs: Any) -> Any:
        if len(clock.pauses) < 3:
            failing(errno.EMFILE)()
        return really_open(*args, **kwargs)

    monkeypatch.setattr("builtins.open", opened_later)
    served.read_rest()
    assert clock.pauses == [1.0] * 3
    assert content_of(served.newest) == NEWEST and not served.may_lack_some
