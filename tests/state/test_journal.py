"""The journal: the next run reads what this one noted, and damage is found."""

import random
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from agent.errors import StateUnusable
from agent.process.identity import ProcessIdentity
from agent.protocol import Claimed, Life, Report, Task
from agent.state import journal as module
from agent.state.directory import StateDirectory
from agent.state.journal import ChildRecord, Journal

LIFE = Life("http://manager", 1, "2026-01-02T03:04:05")
CHILD = ChildRecord(ProcessIdentity(77, 1234, "boot"), Report(attempts=1))


@pytest.fixture(name="state")
def fixture_state(directory: Path) -> StateDirectory:
    """A state directory; each `Journal` of it stands for another run of the agent."""
    return StateDirectory(directory, 1024**3)


def claim(journal: Journal, task_id: int, payload: bytes = b"{}") -> Claimed:
    """Note a task as the claim loop does."""
    task = Task(task_id, "iperf_client_run", msgspec.Raw(payload))
    claimed = Claimed(task, LIFE, journal.claim_key)
    journal.record_claim(claimed)
    return claimed


def ids(journal: Journal) -> list[int]:
    """The unsettled tasks."""
    return [record.claimed.task.id for record in journal.unsettled()]


def in_the_way(state: StateDirectory) -> Path:
    """A directory in the place of the journal's new file: the journal cannot be rewritten."""
    path = state.path / "journal.new"
    path.mkdir()
    return path


def test_what_was_noted_is_known_in_the_next_run(state: StateDirectory) -> None:
    first = Journal(state)
    client, server, done = (claim(first, task_id) for task_id in (7, 8, 9))
    first.record_child(client, CHILD)
    first.mark_reported(server)
    first.mark_settled(done)
    second = Journal(state)
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
    journal.record_child(record.claimed, CHILD)
    journal.mark_reported(record.claimed)
    journal.mark_settled(record.claimed)
    assert journal.claim_key == second
    assert Journal(state).claim_key == second
    journal.renew_claim_key()
    assert journal.claim_key not in (key, second)
    assert Journal(state).claim_key == journal.claim_key


def test_a_new_journal_keeps_its_first_key_over_a_restart(state: StateDirectory) -> None:
    first = Journal(state)
    first.mend()
    assert Journal(state).claim_key == first.claim_key


def test_a_settled_task_and_an_unknown_one_have_no_child_and_no_report(
    state: StateDirectory,
) -> None:
    journal = Journal(state)
    claimed = claim(journal, 7)
    journal.mark_settled(claimed)
    journal.record_child(claimed, CHILD)
    journal.mark_reported(claimed)
    assert journal.unsettled() == Journal(state).unsettled() == []


def test_a_growing_journal_is_rewritten(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE_LINES", 10)
    journal = Journal(state)
    stays = claim(journal, 1)
    most = 0
    for task_id in range(2, 60):
        journal.mark_settled(claim(journal, task_id))
        most = max(most, len((state.path / "journal").read_bytes().splitlines()))
    assert 5 < most <= 1 + 1 + 1 + 10
    later = Journal(state)
    assert [record.claimed for record in later.unsettled()] == [stays]
    assert later.claim_key == journal.claim_key


def test_a_rewritten_journal_still_names_what_was_settled_lately(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result may still be in the outbox, and must not be sent again."""
    monkeypatch.setattr(module, "SPARE_LINES", 3)
    journal = Journal(state)
    for task_id in range(1, 20):
        claimed = claim(journal, task_id)
        journal.mark_settled(claimed)
        assert claimed.key in Journal(state).settled_before


def test_no_changed_byte_is_read_as_something_else_and_the_intact_lines_survive(
    state: StateDirectory,
) -> None:
    before = Journal(state)
    for task_id in (1, 2, 3, 4):
        before.record_child(claim(before, task_id), CHILD)
    path = state.path / "journal"
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    written = {record.claimed.task.id: record for record in before.unsettled()}
    bits = random.Random(1)
    for place in range(len(data)):
        for byte in (data[place] ^ 1 << bits.randrange(8), 0, ord("\n")):
            if bytes([byte, data[place]]) in (b"\n\n", b"\r\n"):
                continue
            path.write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
            with capture_logs() as logs:
                after = Journal(state)
            assert [line["event"] for line in logs] == ["the journal has damaged lines"]
            # The first line has the first key, and then two lines are about each task. A lost
            # line break costs the next line as well.
            hit = data[:place].count(b"\n")
            touched = {hit, hit + 1} if data[place : place + 1] == b"\n" else {hit}
            for record in after.unsettled():
                task_id = record.claimed.task.id
                assert record.claimed == written[task_id].claimed
                assert record.child in (None, CHILD)
            for task_id in written:
                left = {2 * task_id - 1, 2 * task_id} - touched
                assert (task_id in ids(after)) == bool(left)
            assert after.claim_key not in {record.claimed.key for record in after.unsettled()}
            for aside in state.rejected.iterdir():
                aside.unlink()
    assert len(lines) == 9


def test_a_torn_journal_has_the_lines_before_the_tear_and_goes_on(state: StateDirectory) -> None:
    before = Journal(state)
    for task_id in (1, 2, 3):
        claim(before, task_id)
    path = state.path / "journal"
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = data[: length + 1].count(b"\n") if data[length : length + 1] == b"\n" else None
        whole = data[:length].count(b"\n") if whole is None else whole
        with capture_logs():
            after = Journal(state)
            assert ids(after) == list(range(1, whole))
            claim(after, 9)
        with capture_logs() as logs:
            assert ids(Journal(state)) == [*range(1, whole), 9]
        assert not logs, "the next run finds nothing damaged"


def test_a_damaged_journal_is_set_aside_as_it_was(state: StateDirectory) -> None:
    claim(Journal(state), 7)
    path = state.path / "journal"
    path.write_bytes(damaged := path.read_bytes() + b"stray")
    with capture_logs() as logs:
        journal = Journal(state)
    journal.mend()
    (aside,) = state.rejected.iterdir()
    assert aside.read_bytes() == damaged
    (said,) = logs
    assert (said["lines"], said["set_aside"]) == (1, str(aside))
    assert ids(Journal(state)) == [7]
    assert len(list(state.rejected.iterdir())) == 1


def test_an_emptied_journal_knows_no_task_and_takes_a_new_key(state: StateDirectory) -> None:
    first = Journal(state)
    claim(first, 7)
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
    with pytest.raises(StateUnusable, match="journal.new"):
        claim(journal, 7)
    assert "journal.new" in state.trouble
    with pytest.raises(StateUnusable):
        claim(journal, 8)
    with pytest.raises(StateUnusable):
        journal.mark_settled(journal.unsettled()[0].claimed)
    assert ids(journal) == [8]
    assert journal.claim_key != key
    assert Journal(state).unsettled() == []
    obstacle.rmdir()
    journal.mend()
    later = Journal(state)
    assert (ids(later), later.claim_key) == ([8], journal.claim_key)
