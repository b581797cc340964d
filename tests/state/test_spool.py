"""Results in real files: no crash loses one, and a damaged one is not sent."""

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from agent.error_classes import ErrorClass
from agent.errors import StateUnusable
from agent.protocol import Outcome, Report
from agent.state.directory import StateDirectory
from agent.state.spool import ANSWER_KEPT, Parcel, Spool
from tests.support.outbox import LIFE, claimed, with_document

CONTENT = b'stray text\n{"end":{"sum":1}}\nmore'
PLAIN = Outcome("failed", Report(error_class=ErrorClass.REFUSED), exit_code=1, stderr="refused")
RECORD, DOCUMENT = "000000001.result", "000000001.document"


@pytest.fixture(name="state")
def fixture_state(directory: Path) -> StateDirectory:
    """A state directory; each `Spool` of it stands for another run of the agent."""
    return StateDirectory(directory, 1024**3)


def saved(state: StateDirectory, task_id: int, outcome: Outcome = PLAIN) -> Parcel:
    """An outcome that this run has saved."""
    spool = Spool(state)
    parcel = spool.new_parcel(claimed(task_id), outcome, f"idempotency key of {task_id}")
    spool.save(parcel)
    return parcel


def measured(state: StateDirectory) -> Outcome:
    """An outcome whose document is where a child wrote it."""
    return with_document(state.children / "7.1.json", CONTENT)


def in_the_way(state: StateDirectory) -> Path:
    """A directory in the place of the first record's new file: the record cannot be written."""
    path = state.outbox / f"{RECORD}.new"
    path.mkdir()
    return path


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def ids(parcels: list[Parcel]) -> list[int]:
    return [parcel.claimed.task.id for parcel in parcels]


def test_the_next_run_reads_a_parcel_as_it_was_saved(state: StateDirectory) -> None:
    parcels = [saved(state, 7, measured(state)), saved(state, 8)]
    assert Spool(state).load() == parcels
    assert names(state.outbox) == [DOCUMENT, RECORD, "000000002.result"]
    document = parcels[0].outcome.document
    assert document and Path(document.path).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["\N{SUPERSCRIPT TWO}.result", "\udcff.result", "7\udcff.new"])
def test_a_file_of_an_odd_name_holds_up_no_result(state: StateDirectory, name: str) -> None:
    parcel = saved(state, 7)
    (state.outbox / name).touch()
    assert Spool(state).load() == [parcel]


def test_a_document_is_moved_and_not_copied(state: StateDirectory) -> None:
    outcome = measured(state)
    before = (state.children / "7.1.json").stat().st_ino
    saved(state, 7, outcome)
    assert names(state.children) == []
    assert (state.outbox / DOCUMENT).stat().st_ino == before


def test_the_directory_may_be_moved_between_two_runs(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "here", 1024**3)
    saved(state, 7, measured(state))
    shutil.copytree(state.path, tmp_path / "there")
    (parcel,) = Spool(StateDirectory(tmp_path / "there", 1024**3)).load()
    assert parcel.outcome.document
    assert parcel.outcome.document.path == str(tmp_path / "there" / "outbox" / DOCUMENT)


def test_a_crash_after_the_document_was_linked_leaves_it_with_the_child(
    state: StateDirectory,
) -> None:
    measured(state)
    os.link(state.children / "7.1.json", state.outbox / DOCUMENT)
    assert Spool(state).load() == []
    assert (state.children / "7.1.json").read_bytes() == CONTENT
    assert names(state.outbox) == names(state.rejected) == []


def test_a_crash_while_the_record_was_written_leaves_the_document_with_the_child(
    state: StateDirectory,
) -> None:
    measured(state)
    os.link(state.children / "7.1.json", state.outbox / DOCUMENT)
    (state.outbox / f"{RECORD}.new").write_bytes(b"half of a rec")
    assert Spool(state).load() == []
    assert (state.children / "7.1.json").read_bytes() == CONTENT
    assert names(state.outbox) == names(state.rejected) == []


def test_a_crash_after_the_record_was_written_leaves_a_parcel(state: StateDirectory) -> None:
    saved(state, 7, measured(state))
    os.link(state.outbox / DOCUMENT, state.children / "7.1.json")
    assert ids(Spool(state).load()) == [7]


def test_a_crash_before_a_delivered_document_was_removed_leaves_nothing(
    state: StateDirectory,
) -> None:
    saved(state, 7, measured(state))
    (state.outbox / RECORD).unlink()
    assert Spool(state).load() == []
    assert names(state.outbox) == names(state.rejected) == []


@pytest.mark.parametrize("suffix", ["result", "document"])
def test_damaged_results_are_set_aside_and_intact_ones_are_loaded(
    state: StateDirectory, suffix: str
) -> None:
    saved(state, 7, measured(state))
    saved(state, 8)
    damaged = state.outbox / f"000000001.{suffix}"
    whole = {path: path.read_bytes() for path in state.outbox.iterdir()}
    data = whole[damaged]
    wrong = [data[:length] for length in range(len(data) - 1)]
    for place, byte in enumerate(data):
        wrong += [data[:place] + bytes([byte ^ bit]) + data[place + 1 :] for bit in (1, 32, 128)]
    for content in wrong:
        damaged.write_bytes(content)
        with capture_logs() as logs:
            spool = Spool(state)
            assert ids(spool.load()) == [8]
        assert [line["event"] for line in logs] == ["a damaged result is set aside"]
        assert names(state.outbox) == ["000000002.result"]
        assert names(state.rejected) == ["000000001.answer", DOCUMENT, RECORD]
        assert (state.rejected / damaged.name).read_bytes() == content
        assert (state.rejected / "000000001.answer").read_bytes()
        assert spool.rejected == Spool(state).rejected == 1
        for path in state.rejected.iterdir():
            path.unlink()
        for path, intact in whole.items():
            path.write_bytes(intact)


def test_a_record_whose_document_is_gone_is_set_aside(state: StateDirectory) -> None:
    saved(state, 7, measured(state))
    (state.outbox / DOCUMENT).unlink()
    assert Spool(state).load() == []
    assert names(state.rejected) == ["000000001.answer", RECORD]


def test_new_numbers_are_higher_than_all_that_are_in_use(state: StateDirectory) -> None:
    assert saved(state, 7).number == 1
    spool = Spool(state)
    refused = saved(state, 8)
    spool.set_aside(refused, b"no")
    assert saved(state, 9).number == 3
    for parcel in Spool(state).load():
        spool.remove(parcel)
    smaller = saved(state, 10, measured(state))
    assert smaller.number == 3, "the highest that is left is the one that was set aside"
    spool.keep(smaller)
    assert saved(state, 11).number == 4


def test_more_than_nine_digits_of_results_stay_in_order(state: StateDirectory) -> None:
    (state.kept / "999999998.document").touch()
    for task_id in (7, 8, 9):
        saved(state, task_id)
    assert ids(Spool(state).load()) == [7, 8, 9]


def test_a_refused_result_is_kept_with_the_answer(state: StateDirectory) -> None:
    parcel = saved(state, 7, measured(state))
    spool = Spool(state)
    spool.set_aside(parcel, b"x" * (ANSWER_KEPT + 1))
    assert names(state.outbox) == []
    assert (state.rejected / "000000001.answer").read_bytes() == b"x" * ANSWER_KEPT
    assert (state.rejected / DOCUMENT).read_bytes() == CONTENT
    record = msgspec.json.decode((state.rejected / RECORD).read_bytes().partition(b" ")[2])
    assert record["claimed"]["life"]["manager_url"] == LIFE.manager_url


def test_a_parcel_that_could_not_be_saved_is_saved_later(state: StateDirectory) -> None:
    spool = Spool(state)
    parcel = spool.new_parcel(claimed(7), measured(state), "key")
    obstacle = in_the_way(state)
    with pytest.raises(StateUnusable):
        spool.save(parcel)
    assert not parcel.saved
    assert (state.children / "7.1.json").read_bytes() == CONTENT
    obstacle.rmdir()
    spool.save(parcel)
    assert Spool(state).load() == [parcel]


@pytest.mark.parametrize("dispose", ["remove", "keep"])
def test_nothing_stays_of_a_parcel_that_was_saved_only_in_part(
    state: StateDirectory, dispose: str
) -> None:
    spool = Spool(state)
    parcel = spool.new_parcel(claimed(7), measured(state), "key")
    obstacle = in_the_way(state)
    with pytest.raises(StateUnusable):
        spool.save(parcel)
    obstacle.rmdir()
    if dispose == "keep":
        spool.keep(parcel)
    spool.remove(parcel)
    assert names(state.outbox) == names(state.children) == []
    assert names(state.kept) == ([DOCUMENT] if dispose == "keep" else [])
