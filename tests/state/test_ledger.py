"""The ledger: journal and spool agree, whatever could not be read or written for a while."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
from tests.support.outbox import claimed, post_to
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
    outbox = Outbox(post.outbox._delivery, post.gate, ledger, post.supervisor.spawn)
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
