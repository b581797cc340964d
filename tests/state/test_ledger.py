"""The ledger: journal and spool agree, whatever could not be read or written for a while."""

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.errors import StateUnusable
from agent.metrics import Metrics
from agent.outbox.queue import Outbox
from agent.protocol import Claimed, Outcome, Report
from agent.state.directory import StateDirectory
from agent.state.ledger import Ledger
from agent.state.message import Message
from agent.tasks.recovery import INTERRUPTED, clear_leftovers, recover
from tests.support.faulty_manager import well
from tests.support.outbox import ORIGIN, claimed, post_to, refuse
from tests.support.record_state import DATA
from tests.support.sockets import MakeManager

PLAIN = Outcome("succeeded", Report(), answer={"killed": True})
LISTENS = Outcome("succeeded", Report(), answer={"started": True}, final=False)


@pytest.fixture(name="state")
def fixture_state(directory: Path) -> StateDirectory:
    """A state directory; each `Ledger` of it stands for another run of the agent."""
    return StateDirectory(directory)


def claim(ledger: Ledger, task_id: int, task_type: str = "iperf_client_run") -> Claimed:
    """A task in the journal."""
    task = claimed(task_id, task_type)
    ledger.journal.record_claim(task)
    ledger.journal.sync()
    return task


def put(ledger: Ledger, task: Claimed, outcome: Outcome = PLAIN) -> Message:
    """An outcome that is saved."""
    message = Message(task, outcome, number=ledger.spool.next_number())
    ledger.save(message)
    return message


def lose_line(state: StateDirectory, task: Claimed) -> None:
    """The sector with the lines of a task is lost."""
    path = state.path / "journal"
    lines = path.read_bytes().splitlines(keepends=True)
    number = b'"id":%d,' % task.task.id
    path.write_bytes(b"".join(b"\0\n" if number in line else line for line in lines))


def after(state: StateDirectory) -> tuple[list[int], list[int]]:
    """What the next run sends of the one before, and what it reports as interrupted."""
    ledger = Ledger(state)
    waiting = [message.claimed.task.id for message in ledger.load_waiting()]
    return waiting, [record.claimed.task.id for record in ledger.interrupted()]


@contextmanager
def without(path: Path) -> Iterator[None]:
    """A directory in the place of a file: it cannot be read, and is there again later."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    path.mkdir()
    yield
    path.rmdir()
    aside.rename(path)


def test_an_end_that_cannot_be_read_now_is_kept_until_the_journal_knows_it(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Ledger(state)
    # The journal's line of its delivery went with the power.
    first.spool.settle(put(first, claim(first, 7)), keep_document=False)
    ledger = Ledger(state)
    with monkeypatch.context() as patch:
        refuse(patch, Path, "read_bytes", errno.EIO, only=".settled")
        assert ledger.load_waiting() == [] and ledger.interrupted() == []
        ledger.mend()
    assert ledger.load_waiting() == [] and ledger.interrupted() == []
    ledger.mend()
    assert not list(state.outbox.iterdir())


def test_what_waits_is_sent_and_what_has_no_outcome_was_interrupted(state: StateDirectory) -> None:
    first = Ledger(state)
    for task_id in (7, 8, 9):
        task = claim(first, task_id)
        if task_id < 9:
            message = put(first, task)
        if task_id < 8:
            first.settle(message)
    first.mend()
    assert after(state) == after(state) == ([8], [9])


@pytest.mark.parametrize("lost", ["line", "journal"])
def test_a_task_whose_line_was_lost_is_known_by_its_outcome(
    state: StateDirectory, lost: str
) -> None:
    """It is not run again, and a new task of its number does not get the outcome."""
    first = Ledger(state)
    task = claim(first, 7)
    put(first, task)
    if lost == "line":
        lose_line(state, task)
    else:
        (state.path / "journal").unlink()
    for _ in range(2):
        ledger = Ledger(state)
        (message,) = ledger.load_waiting()
        assert ledger.journal.has(task) and ledger.interrupted() == []
        assert ledger.journal.claim_key != task.key
        ledger.journal.sync()
    new = claimed(7, "kill_all")
    ledger.journal.record_claim(msgspec.structs.replace(new, key=ledger.journal.claim_key))
    assert ledger.journal.of(message.claimed).replaced
    ledger.settle(message)
    ledger.mend()
    assert after(state) == ([], [7])


def test_a_claim_is_not_repeated_with_the_key_of_a_task_that_was_settled(
    state: StateDirectory,
) -> None:
    first = Ledger(state)
    task = Claimed(claimed(7).task, ORIGIN, first.journal.claim_key)
    first.journal.sync()
    first.journal.record_claim(task)
    first.journal.mark_delivered(task, is_final=True)
    first.journal.sync()
    lose_line(state, task)
    assert Ledger(state).journal.claim_key != task.key


def test_of_two_lost_tasks_of_a_number_the_newer_one_has_it(state: StateDirectory) -> None:
    first = Ledger(state)
    for key, task_type in (("a", "kill_all"), ("b", "iperf_client_run")):
        task = msgspec.structs.replace(claimed(7, task_type), key=key)
        first.journal.record_claim(task)
        put(first, task)
    (state.path / "journal").unlink()
    ledger = Ledger(state)
    older, newer = ledger.load_waiting()
    assert (older.claimed.key, newer.claimed.key) == ("a", "b")
    assert ledger.journal.of(older.claimed).replaced
    assert not ledger.journal.of(newer.claimed).replaced


@pytest.mark.parametrize("task_type", ["kill_all", "iperf_client_run"])
def test_a_lost_task_takes_its_number_from_no_task_that_the_journal_has(
    state: StateDirectory, task_type: str
) -> None:
    """Unless both are one, which the Manager has handed out twice."""
    first = Ledger(state)
    put(first, claimed(7))
    second = Ledger(state)
    new = msgspec.structs.replace(claimed(7, task_type), key="of another claim")
    second.journal.record_claim(new)
    second.journal.sync()
    ledger = Ledger(state)
    (message,) = ledger.load_waiting()
    assert ledger.journal.of(message.claimed).replaced is (task_type == "kill_all")
    assert not ledger.journal.of(new).replaced


def test_a_server_whose_line_was_lost_has_ended(state: StateDirectory) -> None:
    first = Ledger(state)
    task = claimed(7, "iperf_server_start")
    put(first, task, LISTENS)
    assert after(state) == ([7], [7])
    put(first, task)
    assert after(state) == ([7, 7], []), "its end waits as well"


@contextmanager
def unmarked(message: Message) -> Iterator[None]:
    """The directory does not take the new name of a record."""
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name != f"{message.number:09d}.result":
            return rename(path, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        yield


def test_an_end_is_kept_until_the_record_shows_it(state: StateDirectory) -> None:
    """However often the journal is written anew, also while another record is unread."""
    first = Ledger(state)
    other, message = put(first, claim(first, 8)), put(first, claim(first, 7))
    with unmarked(message):
        first.settle(message)
        first.journal.sync()
        for _ in range(3):
            with without(state.outbox / f"{other.number:09d}.result"):
                ledger = Ledger(state)
                assert ledger.load_waiting() == []
                ledger.journal.sync()
            ledger = Ledger(state)
            assert [each.claimed.task.id for each in ledger.load_waiting()] == [8]
            with pytest.raises(StateUnusable):
                ledger.mend()
        assert b"settled" in (state.path / "journal").read_bytes()
    ledger.mend()
    assert after(state) == ([8], [])
    Ledger(state).journal.sync()
    later = Ledger(state)
    later.load_waiting()
    later.journal.sync()
    assert b"settled" not in (state.path / "journal").read_bytes(), "nothing is kept for ever"


def test_the_first_writing_of_the_journal_has_the_end_that_comes_with_it(
    state: StateDirectory,
) -> None:
    first = Ledger(state)
    put(first, claim(first, 7))
    ledger = Ledger(state)
    (message,) = ledger.load_waiting()
    with unmarked(message):
        ledger.settle(message)
        ledger.journal.sync()
    assert after(state) == ([], [])


def test_an_older_document_of_a_server_is_not_sent_after_its_end(state: StateDirectory) -> None:
    first = Ledger(state)
    task = claim(first, 7, "iperf_server_start")
    older, end = put(first, task, LISTENS), put(first, task)
    with unmarked(older):
        first.settle(older)
        first.settle(end)
        first.journal.sync()
        for _ in range(3):
            ledger = Ledger(state)
            assert ledger.load_waiting() == [] == ledger.interrupted()
            ledger.journal.sync()


def test_an_outcome_that_an_unread_journal_knows_to_be_settled(state: StateDirectory) -> None:
    first = Ledger(state)
    message = put(first, claim(first, 7))
    with unmarked(message):
        first.settle(message)
        first.journal.sync()
    with without(state.path / "journal"):
        ledger = Ledger(state)
        (waits,) = ledger.load_waiting()
        assert not waits.settled
    assert ledger.load_waiting() == []
    assert waits.settled


def test_an_outcome_that_is_not_the_last_leaves_its_task_interrupted(state: StateDirectory) -> None:
    first = Ledger(state)
    put(first, claim(first, 7, "iperf_server_start"), LISTENS)
    second = Ledger(state)
    assert len(second.load_waiting()) == 1
    (record,) = second.interrupted()
    assert record.reported, "what waits will be with the Manager before what is put now"
    put(second, record.claimed)
    assert second.interrupted() == [] and not second.unread, "once"


def test_nothing_was_interrupted_while_an_outcome_may_be_unread(state: StateDirectory) -> None:
    first = Ledger(state)
    put(first, claim(first, 7))
    claim(first, 8)
    ledger = Ledger(state)
    with without(state.outbox / "000000001.result"):
        assert ledger.load_waiting() == [] and ledger.interrupted() == []
        assert "000000001.result" in ledger.unread
    (message,) = ledger.load_waiting()
    assert message.claimed.task.id == 7
    assert [record.claimed.task.id for record in ledger.interrupted()] == [8]


@pytest.mark.parametrize("call", ["listdir", "open"])
def test_a_refused_task_was_not_interrupted_although_the_host_is_short_of_descriptors(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The power was cut between the refused record's move and the line of the journal."""
    first = Ledger(state)
    message = put(first, claim(first, 7))
    first.spool.set_aside(message, b"no")
    ledger = Ledger(state)
    ledger.load_waiting()
    real = getattr(io if call == "open" else os, call)

    def short(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).startswith(str(state.rejected)):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(io if call == "open" else os, call, short)
        with suppress(StateUnusable):
            assert ledger.interrupted() == []
    assert ledger.interrupted() == []


def test_what_this_run_has_saved_is_not_taken_for_the_previous_ones(state: StateDirectory) -> None:
    """The disk is read again and again while one record cannot be read."""
    first = Ledger(state)
    put(first, claim(first, 7))
    ledger = Ledger(state)
    with without(state.outbox / "000000001.result"):
        assert ledger.load_waiting() == []
        waits, done = (put(ledger, claim(ledger, task_id)) for task_id in (8, 9))
        ledger.settle(done)
        assert ledger.load_waiting() == []
    (message,) = ledger.load_waiting()
    assert message.claimed.task.id == 7
    assert not waits.settled


@pytest.mark.parametrize("end", ["settle", "set_aside"])
def test_an_end_that_an_unread_journal_does_not_know_is_noted_when_it_is_read(
    state: StateDirectory, end: str
) -> None:
    first = Ledger(state)
    put(first, claim(first, 7))
    with without(state.path / "journal"):
        ledger = Ledger(state)
        (message,) = ledger.load_waiting()
        if end == "settle":
            ledger.settle(message)
        else:
            ledger.set_aside(message, b"no")
        with pytest.raises(StateUnusable):
            ledger.mend()
    assert ledger.load_waiting() == [] == ledger.interrupted()
    ledger.mend()
    assert list(state.outbox.iterdir()) == []
    assert after(state) == ([], [])


def test_an_end_of_a_previous_run_is_noted_when_the_journal_is_read(state: StateDirectory) -> None:
    first = Ledger(state)
    message = put(first, claim(first, 7))
    with without(state.path / "journal"):
        first.spool.settle(message, False)
        ledger = Ledger(state)
        assert ledger.load_waiting() == []
    assert ledger.load_waiting() == [] == ledger.interrupted()
    ledger.mend()
    assert after(state) == ([], [])


def test_an_outbox_that_cannot_be_listed_is_read_later(
    state: StateDirectory,
    faulty: MakeManager,
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until then nothing was interrupted, and no child's output is removed."""
    first = Ledger(state)
    put(first, claim(first, 7))
    claim(first, 8)
    output = state.children / "8.1.json"
    output.touch()
    post = post_to(faulty(well), tmp_path / "other", start=False)
    ledger = Ledger(state)
    outbox = Outbox(replace(post.outbox._delivery, ledger=ledger), post.supervisor.spawn)
    with monkeypatch.context() as patch:
        listdir = os.listdir

        def short(path: Path) -> list[str]:
            if Path(path) == state.outbox:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return listdir(path)

        patch.setattr(os, "listdir", short)
        with pytest.raises(StateUnusable):
            recover(ledger, outbox, Metrics(), 1)
        clear_leftovers(ledger)
    assert ledger.unread and output.exists() and len(outbox) == 0
    recover(ledger, outbox, Metrics(), 1)
    assert len(outbox) == 2 and not ledger.unread
    outcomes = [message.outcome for message in Ledger(state).load_waiting()]
    assert [outcome.stderr for outcome in outcomes if outcome] == ["", INTERRUPTED]


def test_a_started_that_the_manager_has_is_no_outcome(state: StateDirectory) -> None:
    """A server that was never reported to listen is no success after a restart."""
    ledger = Ledger(state)
    task = claim(ledger, 7, "iperf_server_start")
    ledger.settle(Message(task, pid=77))
    ledger.mend()
    (record,) = Ledger(state).journal.unsettled()
    assert not record.reported


def test_a_delivered_outcome_of_a_server_that_goes_on_is_noted(state: StateDirectory) -> None:
    ledger = Ledger(state)
    ledger.settle(put(ledger, claim(ledger, 7, "iperf_server_start"), LISTENS))
    ledger.mend()
    (record,) = Ledger(state).journal.unsettled()
    assert record.reported


def test_a_settled_record_of_0_1_0_ends_its_task(tmp_path: Path) -> None:
    shutil.copytree(DATA / "0.1.0" / "settled", tmp_path / "state")
    state = StateDirectory(tmp_path / "state")
    assert after(state) == ([1], [])
