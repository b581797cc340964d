"""The journal's file: one fdatasync serves many, and none of them is told too early."""

import errno
import os
from pathlib import Path

import gevent
import pytest

from agent.errors import StateUnusable
from agent.files import unframe
from agent.state.appended import AppendedFile
from agent.state.directory import StateDirectory
from tests.support.harness import until
from tests.support.slow_disk import SlowDisk, native_event


class Lines(AppendedFile):
    """An appended file, all of whose lines are of use."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lines"
        self.state = StateDirectory(directory)
        self.noted: list[bytes] = []
        super().__init__(self.state, self.path)

    def useful_lines(self) -> list[bytes]:
        """All of them."""
        return self.noted

    def append(self, line: bytes) -> None:
        """Note a line."""
        self.noted.append(line)
        super().append(line)

    def there(self) -> list[bytes]:
        """What the file has now."""
        return [unframe(line) for line in self.path.read_bytes().splitlines()]


@pytest.fixture(name="lines")
def fixture_lines(directory: Path) -> Lines:
    """A file that was written once."""
    lines = Lines(directory)
    lines.append(b"first")
    lines.sync()
    return lines


def test_many_syncs_share_few_fdatasyncs_and_each_has_its_line(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)

    def note(number: int) -> bool:
        line = b"line %d" % number
        lines.append(line)
        lines.sync()
        return line in lines.there()

    syncs = [gevent.spawn(note, number) for number in range(50)]
    disk.reached.wait(5)
    disk.release()
    gevent.joinall(syncs, timeout=10)
    assert [each.value for each in syncs] == [True] * 50
    assert disk.syncs <= 3
    assert sorted(lines.there()) == sorted(lines.noted)


def test_no_sync_returns_before_an_fdatasync_that_began_after_its_note(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    lines.append(b"one")
    first = gevent.spawn(lines.sync)
    disk.reached.wait(5)
    lines.append(b"two")
    second = gevent.spawn(lines.sync)
    gevent.sleep(0.1)
    assert not first.ready() and not second.ready()
    disk.release()
    gevent.joinall([first, second], timeout=5, raise_error=True)
    assert disk.syncs == 2
    assert lines.there() == [b"first", b"one", b"two"]


def test_a_sync_of_what_was_only_written_waits_for_an_fdatasync(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    lines.append(b"one")
    until(lambda: lines.there() == [b"first", b"one"])
    assert disk.syncs == 0
    sync = gevent.spawn(lines.sync)
    assert disk.reached.wait(5)
    assert not sync.ready()
    disk.release()
    sync.get(timeout=5)
    lines.sync()
    assert disk.syncs == 1, "and not for a second one"


def test_a_note_during_a_slow_fdatasync_is_written_and_does_not_wait(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    lines.append(b"one")
    sync = gevent.spawn(lines.sync)
    disk.reached.wait(5)
    with gevent.Timeout(1):
        lines.append(b"two")
        lines.append(b"three")
    until(lambda: lines.there() == [b"first", b"one", b"two", b"three"])
    assert not sync.ready()
    disk.release()
    sync.get(timeout=5)
    assert disk.syncs == 1, "without a sync: nobody asked for one"


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_after_a_failure_the_next_sync_writes_the_whole_file_anew(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = lines.path.stat().st_ino
    with monkeypatch.context() as patch:
        if call == "write":
            half = os.write

            def torn(descriptor: int, data: bytes) -> int:
                half(descriptor, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr(os, "write", torn)
        else:
            disk = SlowDisk(patch)
            disk.release(fails_with=errno.EIO)
        lines.append(b"one")
        with pytest.raises(StateUnusable):
            lines.sync()
    assert lines.state.trouble
    lines.append(b"two")
    lines.sync()
    assert lines.there() == [b"first", b"one", b"two"]
    assert lines.path.stat().st_ino != before
    lines.append(b"three")
    lines.sync()
    assert lines.there() == [b"first", b"one", b"two", b"three"]


def test_a_failure_of_one_fails_all_that_waited_for_it(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them tries itself, and none is told that its line is on the disk."""
    disk = SlowDisk(monkeypatch)
    lines.append(b"one")
    syncs = [gevent.spawn(lines.sync) for _ in range(3)]
    disk.reached.wait(5)
    obstacle = lines.path.with_name("lines.new")
    obstacle.mkdir()
    disk.release(fails_with=errno.EIO)
    gevent.joinall(syncs, timeout=5)
    assert [type(each.exception) for each in syncs] == [StateUnusable] * 3
    obstacle.rmdir()
    lines.sync()
    assert lines.there() == [b"first", b"one"]


def test_a_write_that_failed_in_the_background_is_made_up_for_by_the_next(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failed: list[int] = []

        def full(descriptor: int, data: bytes) -> int:
            failed.append(descriptor)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "write", full)
        lines.append(b"one")
        until(lambda: failed)
        until(lambda: lines.state.trouble)
    lines.append(b"two")
    until(lambda: lines.there() == [b"first", b"one", b"two"])


def test_a_write_that_succeeds_meanwhile_hides_no_failed_fdatasync(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an fdatasync did not take is lost, and the next fdatasync would not say so."""
    before, write = lines.path.stat().st_ino, os.write
    begun, go = native_event(), native_event()

    def slow(descriptor: int, data: bytes) -> int:
        if b"two" in data:
            begun.set()
            go.wait()
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        disk = SlowDisk(patch)
        patch.setattr(os, "write", slow)
        lines.append(b"one")
        sync = gevent.spawn(lines.sync)
        assert disk.reached.wait(5)
        lines.append(b"two")
        until(begun.is_set)
        disk.release(fails_with=errno.EIO)
        with pytest.raises(StateUnusable):
            sync.get(timeout=5)
        go.set()
        until(lambda: b"two" in lines.there())
    lines.sync()
    assert lines.path.stat().st_ino != before
    assert lines.there() == [b"first", b"one", b"two"]


def test_a_bug_in_the_background_is_not_silent(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda *_: b"no number")
    lines.append(b"one")
    gevent.sleep(0.1)
    for _ in range(2):
        with pytest.raises(TypeError):
            lines.append(b"two")
    with pytest.raises(TypeError):
        lines.sync()


def test_a_file_that_is_replaced_during_an_fdatasync_fails_no_sync(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, before = os.write, lines.path.stat().st_ino
    with monkeypatch.context() as patch:
        disk = SlowDisk(patch)

        def full_once(descriptor: int, data: bytes) -> int:
            patch.setattr(os, "write", write)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        lines.append(b"one")
        sync = gevent.spawn(lines.sync)
        assert disk.reached.wait(5)
        patch.setattr(os, "write", full_once)
        lines.append(b"two")
        until(lambda: lines.state.trouble)
        lines.append(b"three")
        until(lambda: lines.path.stat().st_ino != before)
        disk.release()
        sync.get(timeout=5)
    lines.append(b"four")
    lines.sync()
    assert lines.there() == [b"first", b"one", b"two", b"three", b"four"]
