"""The disk loop: what failed is tried again, what is unread is read, and the quota holds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.event import Event
from structlog.testing import capture_logs

from agent.errors import StateUnusable
from agent.protocol import Outcome, Report
from agent.service import disk as module
from agent.service.disk import watch_disk
from agent.state.directory import StateDirectory
from agent.state.ledger import Ledger
from agent.state.message import Message
from tests.support.harness import until
from tests.support.outbox import claimed

PLAIN = Outcome("failed", Report())


def ledger_in(directory: Path) -> Ledger:
    """The ledger of a directory in which nothing is unread."""
    ledger = Ledger(StateDirectory(directory))
    ledger.load_waiting()
    return ledger


@contextmanager
def watched(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, max_bytes: int = 1024**3
) -> Iterator[list[Message]]:
    """Watch the disk every 10 ms; gives what of the previous run was read meanwhile."""
    monkeypatch.setattr(module, "LOOK", 0.01)
    found: list[Message] = []
    stop = Event()
    greenlet = gevent.spawn(
        watch_disk, ledger, max_bytes, lambda: found.extend(ledger.load_waiting()), stop
    )
    try:
        yield found
    finally:
        stop.set()
        greenlet.join(5)
        assert greenlet.successful()


def fill(path: Path, age: int, size: int = 8192) -> Path:
    """A file that was written so many seconds ago."""
    path.write_bytes(b"x" * size)
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def fail_to_write(ledger: Ledger) -> None:
    """A write that fails, whatever the disk is like."""
    with pytest.raises(StateUnusable):
        ledger.state.write(os.unlink, ledger.state.path / "nowhere")


def message_in(ledger: Ledger, task_id: int) -> Message:
    """An outcome that is not saved yet."""
    return Message(claimed(task_id), PLAIN, number=ledger.spool.next_number())


def test_trouble_is_over_when_the_directory_can_be_written_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_in(directory)
    obstacle = directory / "writable.new"
    obstacle.mkdir()
    with watched(ledger, monkeypatch):
        fail_to_write(ledger)
        until(lambda: "writable.new" in ledger.state.trouble)
        with capture_logs() as logs:
            obstacle.rmdir()
            until(lambda: not ledger.state.trouble)
    assert [line["event"] for line in logs] == ["the state directory can be written again"]


def test_trouble_lasts_until_what_waits_in_memory_is_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One obstacle holds up no other outcome, and nobody is told of an end that is none."""
    ledger = ledger_in(directory)
    for task_id in (7, 8):
        (ledger.state.outbox / f"{task_id - 6:09d}.result.new").mkdir()
        ledger.save(message_in(ledger, task_id))
    assert ledger.is_behind and ".result.new" in ledger.state.trouble
    (ledger.state.outbox / "000000002.result.new").rmdir()
    with watched(ledger, monkeypatch), capture_logs() as logs:
        until((ledger.state.outbox / "000000002.result").exists)
        gevent.sleep(0.1)
        assert ledger.state.trouble and not logs
        (ledger.state.outbox / "000000001.result.new").rmdir()
        until(lambda: not ledger.state.trouble)
    assert (ledger.state.outbox / "000000001.result").exists() and not ledger.is_behind


def test_a_write_that_fails_while_others_are_tried_again_is_a_new_trouble(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_in(directory)
    state = ledger.state
    looks: list[str] = []

    def look(*_: object) -> None:
        looks.append(state.trouble)
        if len(looks) == 1:
            state.trouble = "a write failed meanwhile"

    monkeypatch.setattr(module, "_look", look)
    with watched(ledger, monkeypatch), capture_logs() as logs:
        until(lambda: len(looks) == 2)
        until(lambda: not state.trouble)
    assert looks[:2] == ["", "a write failed meanwhile"]
    # A greenlet of another test may log something as well.
    told = [line["event"] for line in logs if "state directory" in line["event"]]
    assert told == ["the state directory can be written again"]


def test_settled_records_go_when_the_journal_on_the_disk_knows_of_them(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_in(directory)
    obstacle = directory / "journal.new"
    obstacle.mkdir()
    message = message_in(ledger, 7)
    ledger.journal.record_claim(message.claimed)
    ledger.save(message)
    ledger.settle(message)
    record = ledger.state.outbox / "000000001.settled"
    with watched(ledger, monkeypatch):
        seen = ledger.state.runs
        until(lambda: ledger.state.runs >= seen + 20)
        assert "journal.new" in ledger.state.trouble and record.exists()
        obstacle.rmdir()
        until(lambda: not record.exists())
    assert Ledger(ledger.state).journal.unsettled() == []


def test_what_is_unread_is_tried_again_until_it_is_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ledger_in(directory)
    message = message_in(first, 7)
    first.journal.record_claim(message.claimed)
    first.save(message)
    first.mend()
    (directory / "journal").rename(directory / "elsewhere")
    (directory / "journal").mkdir()
    record = first.state.outbox / "000000001.result"
    record.rename(directory / "record")
    record.mkdir()
    ledger = Ledger(first.state)
    assert ledger.load_waiting() == []
    assert ledger.unread and ledger.interrupted() == []
    with watched(ledger, monkeypatch) as found:
        (directory / "journal").rmdir()
        (directory / "elsewhere").rename(directory / "journal")
        until(ledger.journal.readable.is_set)
        gevent.sleep(0.05)
        assert ledger.unread and not found
        assert ledger.interrupted() == [], "an outcome of it may be what is unread"
        record.rmdir()
        (directory / "record").rename(record)
        until(lambda: ledger.interrupted() == [] and not ledger.unread)
    assert [each.claimed for each in found] == [message.claimed]
    assert ledger.interrupted() == []


def test_over_the_quota_the_oldest_kept_documents_go_and_nothing_else(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its files, without the journal and the marker, take 40 KiB.
    ledger = ledger_in(directory)
    state = ledger.state
    waiting = fill(state.outbox / "000000001.document", age=500)
    refused = fill(state.rejected / "000000002.document", age=400)
    oldest, older, newest = (
        fill(state.kept / f"{number:09d}.document", age)
        for number, age in ((9, 300), (3, 200), (5, 100))
    )
    with watched(ledger, monkeypatch, 44_000):
        until(lambda: not oldest.exists())
        gevent.sleep(0.1)
    assert waiting.exists() and refused.exists() and older.exists() and newest.exists()
    assert not state.trouble


def test_the_directory_is_looked_at_again_when_something_was_done(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_in(directory)
    kept = fill(ledger.state.kept / "000000001.document", age=10)
    with watched(ledger, monkeypatch, 12_000):
        until(lambda: not kept.exists())
        gevent.sleep(0.1)
        fill(kept, age=10)
        gevent.sleep(0.2)
        assert kept.exists(), "this agent has done nothing since, and sleeps"
        ledger.state.run(os.getpid)
        until(lambda: not kept.exists())


def test_files_that_may_not_be_removed_are_trouble_when_they_exceed_the_quota(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_in(directory)
    kept = fill(ledger.state.kept / "000000001.document", age=10)
    refused = fill(ledger.state.rejected / "000000002.document", age=400, size=40_960)
    with watched(ledger, monkeypatch, 20_000):
        until(lambda: "empty rejected/, or raise STATE_MAX_BYTES" in ledger.state.trouble)
        assert not kept.exists() and refused.exists()
        refused.unlink()
        until(lambda: not ledger.state.trouble)


def test_a_directory_among_the_kept_documents_keeps_none_of_them(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledger_in(directory)
    foreign = ledger.state.kept / "foreign"
    foreign.mkdir()
    os.utime(foreign, (1, 1))
    kept = fill(ledger.state.kept / "000000001.document", age=10)
    with watched(ledger, monkeypatch, 6_000):
        until(lambda: not kept.exists())
    assert foreign.exists()
