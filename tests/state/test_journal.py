"""The journal: the next run reads what this one has synced, and damage is found."""

import errno
import os
import random
from pathlib import Path

import gevent
import pytest
from structlog.testing import capture_logs

from agent.errors import ConfigError, StateUnusable
from agent.files import frame, unframe
from agent.process.identity import ProcessIdentity
from agent.protocol import Claimed, Report, Task
from agent.state import appended as module
from agent.state.directory import StateDirectory
from agent.state.journal import ChildRecord, Journal
from tests.support.outbox import ORIGIN, change
from tests.support.slow_disk import SlowDisk

CHILD = ChildRecord(ProcessIdentity(77, 1234, "boot"), Report(attempts=1))


@pytest.fixture(name="state")
def fixture_state(directory: Path) -> StateDirectory:
    """A state directory; each `Journal` of it stands for another run of the agent."""
    return StateDirectory(directory)


def claim(journal: Journal, task_id: int, created_at: str | None = None) -> Claimed:
    """Note a task as the claim loop does."""
    task = Task(task_id, "iperf_client_run", created_at=created_at)
    claimed = Claimed(task, ORIGIN, journal.claim_key)
    journal.record_claim(claimed)
    return claimed


def ids(journal: Journal) -> list[int]:
    """The unsettled tasks."""
    return [record.claimed.task.id for record in journal.unsettled()]


def after(journal: Journal, state: StateDirectory) -> Journal:
    """What the next run reads once this one has synced."""
    journal.sync()
    return Journal(state)


def in_the_way(state: StateDirectory) -> Path:
    """A directory in the place of the journal's new file: the journal cannot be rewritten."""
    path = state.path / "journal.new"
    path.mkdir()
    return path


def test_what_was_noted_is_known_in_the_next_run(state: StateDirectory) -> None:
    first = Journal(state)
    client, server, done = (claim(first, task_id) for task_id in (7, 8, 9))
    change(first, client, child=CHILD)
    first.mark_delivered(server, is_final=False)
    first.mark_delivered(done, is_final=True)
    second = after(first, state)
    assert second.unsettled() == first.unsettled()
    one, other = second.unsettled()
    assert (one.claimed, one.child, one.reported) == (client, CHILD, False)
    assert (other.claimed, other.child, other.reported) == (server, None, True)


def test_the_claim_key_changes_with_the_task_that_it_obtained_and_with_nothing_else(
    state: StateDirectory,
) -> None:
    journal = Journal(state)
    key = journal.claim_key
    assert claim(journal, 7).key == key
    second = journal.claim_key
    assert second not in ("", key)
    (record,) = journal.unsettled()
    change(journal, record.claimed, child=CHILD)
    journal.mark_delivered(record.claimed, is_final=False)
    journal.mark_delivered(record.claimed, is_final=True)
    assert journal.claim_key == second
    assert after(journal, state).claim_key == second
    journal.renew_claim_key()
    assert journal.claim_key not in (key, second)
    assert after(journal, state).claim_key == journal.claim_key


def test_a_new_journal_keeps_its_first_key_over_a_restart(state: StateDirectory) -> None:
    first = Journal(state)
    first.sync()
    assert Journal(state).claim_key == first.claim_key


def test_a_settled_task_and_an_unknown_one_have_no_child_and_no_report(
    state: StateDirectory,
) -> None:
    journal = Journal(state)
    claimed = claim(journal, 7)
    journal.mark_delivered(claimed, is_final=True)
    change(journal, claimed, child=CHILD)
    journal.mark_delivered(claimed, is_final=False)
    assert journal.unsettled() == after(journal, state).unsettled() == []


def test_a_growing_journal_is_rewritten(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE_LINES", 10)
    journal = Journal(state)
    stays = claim(journal, 1)
    most = 0
    for task_id in range(2, 60):
        journal.mark_delivered(claim(journal, task_id), is_final=True)
        journal.sync()
        most = max(most, len((state.path / "journal").read_bytes().splitlines()))
    assert 5 < most <= 1 + 1 + 2 + 10
    later = Journal(state)
    assert [record.claimed for record in later.unsettled()] == [stays]
    assert later.claim_key == journal.claim_key


def test_no_changed_byte_is_read_as_something_else_and_the_intact_lines_survive(
    state: StateDirectory,
) -> None:
    before = Journal(state)
    before.sync()
    for task_id in (1, 2, 3):
        change(before, claim(before, task_id), child=CHILD)
        before.sync()
    path = state.path / "journal"
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    written = {record.claimed.task.id: record for record in before.unsettled()}
    bits = random.Random(1)
    for place in range(len(data)):
        for byte in (data[place] ^ 1 << bits.randrange(8), (0, ord("\n"))[place % 2]):
            if bytes([byte, data[place]]) in (b"\n\n", b"\r\n"):
                continue
            path.write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
            with capture_logs() as logs:
                later = Journal(state)
            said = [line["event"] for line in logs if line["log_level"] == "error"]
            assert said == ["the journal has damaged lines"]
            # The first line has the first key, and then two lines are about each task. A lost
            # line break costs the next line as well.
            hit = data[:place].count(b"\n")
            touched = {hit, hit + 1} if data[place : place + 1] == b"\n" else {hit}
            for record in later.unsettled():
                task_id = record.claimed.task.id
                assert record.claimed == written[task_id].claimed
                assert record.child in (None, CHILD)
            for task_id in written:
                left = {2 * task_id - 1, 2 * task_id} - touched
                assert (task_id in ids(later)) == bool(left)
            assert later.claim_key not in {record.claimed.key for record in later.unsettled()}
            for aside in state.rejected.iterdir():
                aside.unlink()
    assert len(lines) == 7


def test_a_torn_journal_has_the_lines_before_the_tear_and_goes_on(state: StateDirectory) -> None:
    before = Journal(state)
    before.sync()
    for task_id in (1, 2, 3):
        claim(before, task_id)
        before.sync()
    path = state.path / "journal"
    data = path.read_bytes()
    ends = [place for place, byte in enumerate(data) if byte == ord("\n")]
    near = {end + step for end in ends for step in (-1, 0, 1) if end + step < len(data)}
    for length in sorted({*range(0, len(data), 9), *near}):
        path.write_bytes(data[:length])
        whole = data[: length + 1].count(b"\n") if data[length : length + 1] == b"\n" else None
        whole = data[:length].count(b"\n") if whole is None else whole
        with capture_logs():
            later = Journal(state)
            assert ids(later) == list(range(1, whole))
            claim(later, 9)
            later.sync()
        with capture_logs() as logs:
            assert ids(Journal(state)) == [*range(1, whole), 9]
        assert not logs, "the next run finds nothing damaged"


def test_a_damaged_journal_is_set_aside_as_it_was(state: StateDirectory) -> None:
    claim(first := Journal(state), 7)
    first.sync()
    path = state.path / "journal"
    path.write_bytes(damaged := path.read_bytes() + b"stray")
    with capture_logs() as logs:
        journal = Journal(state)
    journal.sync()
    (aside,) = state.rejected.iterdir()
    assert aside.read_bytes() == damaged
    (said,) = logs
    assert (said["lines"], said["set_aside"]) == (1, str(aside))
    assert ids(Journal(state)) == [7]
    assert len(list(state.rejected.iterdir())) == 1


def test_an_emptied_journal_knows_no_task_and_takes_a_new_key(state: StateDirectory) -> None:
    first = Journal(state)
    claim(first, 7)
    first.sync()
    (state.path / "journal").write_bytes(b"")
    with capture_logs() as logs:
        second = Journal(state)
    assert [line["event"] for line in logs] == ["the journal has damaged lines"]
    assert second.unsettled() == []
    assert second.claim_key not in ("", first.claim_key)


def test_what_could_not_be_written_is_kept_in_memory_and_written_later(
    state: StateDirectory,
) -> None:
    obstacle = in_the_way(state)
    journal = Journal(state)
    key = journal.claim_key
    for task_id in (7, 8):
        claim(journal, task_id)
        with pytest.raises(StateUnusable, match="journal.new"):
            journal.sync()
        assert "journal.new" in state.trouble
    journal.mark_delivered(journal.unsettled()[0].claimed, is_final=True)
    with pytest.raises(StateUnusable):
        journal.sync()
    assert ids(journal) == [8]
    assert journal.claim_key != key
    assert Journal(state).unsettled() == []
    obstacle.rmdir()
    journal.sync()
    later = Journal(state)
    assert (ids(later), later.claim_key) == ([8], journal.claim_key)


def has(journal: Journal, task_id: int, created_at: str | None = None) -> bool:
    """Whether the journal has a claim's task in hand."""
    task = Task(task_id, "iperf_client_run", created_at=created_at)
    return journal.has(Claimed(task, ORIGIN, ""))


def test_a_new_task_of_an_old_number_replaces_the_old_one(state: StateDirectory) -> None:
    journal = Journal(state)
    old, other = claim(journal, 7, created_at="2026-01-01T00:00:00Z"), claim(journal, 8)
    assert has(journal, 7, "2026-01-01T00:00:00Z")
    assert not has(journal, 7, "2026-02-02T00:00:00Z")
    new = claim(journal, 7, created_at="2026-02-02T00:00:00Z")
    assert [journal.of(each).replaced for each in (old, other, new)] == [True, False, False]
    assert not has(journal, 7, "2026-01-01T00:00:00Z")
    assert has(journal, 7, "2026-02-02T00:00:00Z") and has(journal, 8)
    for _ in range(2):
        journal = after(journal, state)
        assert [journal.of(each).replaced for each in (old, other, new)] == [True, False, False]
        change(journal, old, child=CHILD)
        journal.mark_delivered(old, is_final=False)
        assert journal.of(old).replaced, "whatever is noted of it later"


def test_a_task_that_the_manager_has_replaced_stays_so(state: StateDirectory) -> None:
    journal = Journal(state)
    journal.sync()
    old = claim(journal, 7)
    change(journal, old, replaced=True)
    journal = after(journal, state)
    assert journal.of(old).replaced and not has(journal, 7)
    journal.mark_delivered(old, is_final=True)
    assert not journal.of(old).replaced and ids(journal) == []


def test_of_two_tasks_of_a_number_that_0_1_0_left_the_older_is_replaced(
    state: StateDirectory,
) -> None:
    """It noted no more than both claims; the mark outlives the next rewrite."""
    first = Journal(state)
    old, new = claim(first, 7), claim(first, 7)
    first.sync()
    path = state.path / "journal"
    lines = [
        unframe(line).replace(b'"replaced":true', b'"replaced":false')
        for line in path.read_bytes().splitlines()
    ]
    path.write_bytes(b"".join(map(frame, lines)))
    second = Journal(state)
    assert second.of(old).replaced and not second.of(new).replaced
    assert b'"replaced":true' not in path.read_bytes()
    third = after(second, state)
    assert third.of(old).replaced and not third.of(new).replaced
    assert b'"replaced":true' in path.read_bytes()


def test_a_journal_behind_a_loop_of_links_is_a_fault_of_the_configuration(
    state: StateDirectory,
) -> None:
    (state.path / "journal").symlink_to("journal")
    with pytest.raises(ConfigError, match="symbolic links.*journal"):
        Journal(state)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ENOTDIR])
def test_so_is_one_that_this_user_may_not_open(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (state.path / "journal").touch()
    fail_to_read(monkeypatch, number)
    with pytest.raises(ConfigError, match=os.strerror(number)):
        Journal(state)


def test_a_directory_in_its_place_is_left_alone_until_the_journal_is_back(
    state: StateDirectory,
) -> None:
    claimed = claim(first := Journal(state), 7)
    first.sync()
    path = state.path / "journal"
    path.rename(state.path / "elsewhere")
    path.mkdir()
    with capture_logs() as logs:
        journal = Journal(state)
        journal.read()
    assert [line["event"] for line in logs] == ["the journal cannot be read: nothing is claimed"]
    assert not journal.readable.is_set() and "no regular file" in journal.unread
    journal.mark_delivered(claimed, is_final=True)
    with pytest.raises(StateUnusable, match="the journal cannot be read"):
        journal.sync()
    assert path.is_dir() and not state.trouble
    path.rmdir()
    (state.path / "elsewhere").rename(path)
    journal.read()
    assert journal.readable.is_set() and not journal.unread
    assert (ids(journal), journal.claim_key) == ([7], first.claim_key)
    assert [record.claimed for record in journal.previous.values()] == [claimed]
    claim(journal, 8)
    assert ids(after(journal, state)) == [7, 8]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_one_that_cannot_be_read_now_is_read_later(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    claim(first := Journal(state), 7)
    first.sync()
    content = (state.path / "journal").read_bytes()
    with monkeypatch.context() as patch:
        fail_to_read(patch, number)
        journal = Journal(state)
        assert os.strerror(number) in journal.unread and journal.claim_key == ""
    assert (state.path / "journal").read_bytes() == content
    assert not list(state.rejected.iterdir()), "it is not taken for damaged"
    journal.read()
    assert (ids(journal), journal.claim_key) == ([7], first.claim_key)


def fail_to_read(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let no file be read, for that reason."""

    def fail(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)


def test_a_child_is_noted_while_the_disk_hangs(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test waits for the fdatasync of another's claim, and both lines are on the disk then."""
    journal = Journal(state)
    claimed = claim(journal, 7)
    journal.sync()
    claim(journal, 8)
    disk = SlowDisk(monkeypatch)
    sync = gevent.spawn(journal.sync)
    disk.reached.wait(5)
    with gevent.Timeout(1):
        change(journal, claimed, child=CHILD)
        journal.mark_delivered(claimed, is_final=False)
        change(journal, claimed, replaced=True)
        journal.renew_claim_key()
        claim(journal, 9)
    assert not sync.ready()
    disk.release()
    sync.get(timeout=5)
    later = after(journal, state)
    assert ids(later) == [7, 8, 9]
    assert later.unsettled() == journal.unsettled()
    assert later.unsettled()[0].child == CHILD
