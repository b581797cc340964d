"""Results in real files: no crash loses one, and a damaged one is not sent."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from agent import files
from agent.errors import ErrorClass
from agent.files import discard
from agent.protocol import Outcome, Report
from agent.state.directory import StateDirectory
from agent.state.message import Message
from agent.state.spool import ANSWER_KEPT, SETTLED, Spool
from tests.support.outbox import ORIGIN, claimed, refuse, with_document

CONTENT = b'stray text\n{"end":{"sum":1}}\nmore'
PLAIN = Outcome("failed", Report(error_class=ErrorClass.REFUSED), exit_code=1, stderr="refused")
RECORD, DOCUMENT = "000000001.result", "000000001.document"


@pytest.fixture(name="state")
def fixture_state(directory: Path) -> StateDirectory:
    """A state directory; each `Spool` of it stands for another run of the agent."""
    return StateDirectory(directory)


def saved(state: StateDirectory, task_id: int, outcome: Outcome = PLAIN) -> Message:
    """An outcome that this run has saved."""
    spool = Spool(state)
    message = Message(claimed(task_id), outcome, number=spool.next_number())
    spool.save(message)
    return message


def measured(state: StateDirectory) -> Outcome:
    """An outcome whose document is where a child wrote it."""
    return with_document(state.children / "7.1.json", CONTENT)


def cleared(state: StateDirectory) -> list[Message]:
    """What the next run finds, before it removes what is of no use."""
    spool = Spool(state)
    found = spool.load()
    spool.clear()
    return found


def in_the_way(state: StateDirectory) -> Path:
    """A directory in the place of the first record's new file: the record cannot be written."""
    path = state.outbox / f"{RECORD}.new"
    path.mkdir()
    return path


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def like(messages: list[Message]) -> list[tuple[object, ...]]:
    """What can be compared: a message is no other, and has a run of its own."""
    same = {"born": 0.0, "tried": True}
    return [
        msgspec.structs.astuple(msgspec.structs.replace(message, **same)) for message in messages
    ]


def ids(messages: list[Message]) -> list[int]:
    return [message.claimed.task.id for message in messages]


def test_the_next_run_reads_a_message_as_it_was_saved(state: StateDirectory) -> None:
    messages = [saved(state, 7, measured(state)), saved(state, 8)]
    assert like(Spool(state).load()) == like(messages)
    assert names(state.outbox) == [DOCUMENT, RECORD, "000000002.result"]
    document = messages[0].document
    assert document and Path(document.path).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["\N{SUPERSCRIPT TWO}.result", "\udcff.result", "7\udcff.new"])
def test_a_file_of_an_odd_name_holds_up_no_result(state: StateDirectory, name: str) -> None:
    message = saved(state, 7)
    (state.outbox / name).touch()
    assert like(Spool(state).load()) == like([message])


def test_a_document_is_moved_and_not_copied(state: StateDirectory) -> None:
    outcome = measured(state)
    before = (state.children / "7.1.json").stat().st_ino
    saved(state, 7, outcome)
    assert names(state.children) == []
    assert (state.outbox / DOCUMENT).stat().st_ino == before


def test_the_directory_may_be_moved_between_two_runs(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "here")
    saved(state, 7, measured(state))
    shutil.copytree(state.path, tmp_path / "there")
    (message,) = Spool(StateDirectory(tmp_path / "there")).load()
    assert message.document
    assert message.document.path == str(tmp_path / "there" / "outbox" / DOCUMENT)


def test_a_crash_after_the_document_was_linked_leaves_it_with_the_child(
    state: StateDirectory,
) -> None:
    measured(state)
    os.link(state.children / "7.1.json", state.outbox / DOCUMENT)
    assert cleared(state) == []
    assert (state.children / "7.1.json").read_bytes() == CONTENT
    assert names(state.outbox) == names(state.rejected) == []


def test_a_crash_while_the_record_was_written_leaves_the_document_with_the_child(
    state: StateDirectory,
) -> None:
    measured(state)
    os.link(state.children / "7.1.json", state.outbox / DOCUMENT)
    (state.outbox / f"{RECORD}.new").write_bytes(b"half of a rec")
    assert cleared(state) == []
    assert (state.children / "7.1.json").read_bytes() == CONTENT
    assert names(state.outbox) == names(state.rejected) == []


def test_a_crash_after_the_record_was_written_leaves_a_message(state: StateDirectory) -> None:
    saved(state, 7, measured(state))
    os.link(state.outbox / DOCUMENT, state.children / "7.1.json")
    assert ids(Spool(state).load()) == [7]


def test_a_crash_before_a_delivered_document_was_removed_leaves_nothing(
    state: StateDirectory,
) -> None:
    saved(state, 7, measured(state))
    (state.outbox / RECORD).unlink()
    assert cleared(state) == []
    assert names(state.outbox) == names(state.rejected) == []


def spoiled(data: bytes) -> Iterator[bytes]:
    """The content of a file, cut short at many places, and with each byte changed."""
    yield from (data[:length] for length in range(0, len(data) - 1, 7))
    for place, byte in enumerate(data):
        yield data[:place] + bytes([byte ^ (1, 32, 128)[place % 3]]) + data[place + 1 :]


def test_damaged_results_are_set_aside_and_intact_ones_are_loaded(state: StateDirectory) -> None:
    saved(state, 7, measured(state))
    saved(state, 8)
    whole = {path: path.read_bytes() for path in state.outbox.iterdir()}
    for content in spoiled(whole[state.outbox / RECORD]):
        (state.outbox / RECORD).write_bytes(content)
        with capture_logs() as logs:
            spool = Spool(state)
            assert ids(spool.load()) == [8]
        assert [line["event"] for line in logs] == ["a damaged result is set aside"]
        assert names(state.outbox) == ["000000002.result"]
        assert names(state.rejected) == ["000000001.answer", DOCUMENT, RECORD]
        assert (state.rejected / RECORD).read_bytes() == content
        assert (state.rejected / "000000001.answer").read_bytes()
        assert spool.rejected == Spool(state).rejected == 1
        assert not spool.unread
        for path in state.rejected.iterdir():
            path.unlink()
        for path, intact in whole.items():
            path.write_bytes(intact)


def lost(state: StateDirectory) -> None:
    """The next run finds the outcome without its document, and says so in the report."""
    with capture_logs() as logs:
        spool = Spool(state)
        (message,) = spool.load()
    assert [line["event"] for line in logs] == ["the document of a result is lost"]
    assert message.document is None and message.outcome and message.saved
    assert message.outcome.report.warnings == ["The document was lost on the agent's disk."]
    assert (message.outcome.status, message.outcome.report.version) == ("succeeded", "1")
    assert names(state.outbox) == [RECORD] and spool.rejected == 0 and not spool.unread
    assert ids(Spool(state).load()) == [7], "as often as the agent starts"


def test_a_damaged_document_is_set_aside_and_costs_nothing_but_itself(
    state: StateDirectory,
) -> None:
    saved(state, 7, measured(state))
    for content in spoiled(CONTENT):
        (state.outbox / DOCUMENT).write_bytes(content)
        lost(state)
        assert names(state.rejected) == [DOCUMENT]
        (state.rejected / DOCUMENT).rename(state.outbox / DOCUMENT)


def test_a_damaged_document_that_cannot_be_moved_now_is_moved_later(
    state: StateDirectory,
) -> None:
    saved(state, 7, measured(state))
    (state.outbox / DOCUMENT).write_bytes(b"nonsense")
    (obstacle := state.rejected / DOCUMENT).mkdir()
    spool = Spool(state)
    (message,) = spool.load()
    assert message.document is None and names(state.outbox) == [DOCUMENT, RECORD]
    with pytest.raises(OSError):
        spool.settle(message, False)
    obstacle.rmdir()
    spool.settle(message, False)
    assert cleared(state) and names(state.rejected) == [DOCUMENT]


def test_a_missing_document_costs_nothing_but_itself(state: StateDirectory) -> None:
    saved(state, 7, measured(state))
    (state.outbox / DOCUMENT).unlink()
    lost(state)
    assert names(state.rejected) == []


def test_so_does_one_that_can_never_be_read(state: StateDirectory) -> None:
    saved(state, 7, measured(state))
    (state.outbox / DOCUMENT).unlink()
    (state.outbox / DOCUMENT).symlink_to(DOCUMENT)
    lost(state)
    assert (state.rejected / DOCUMENT).is_symlink()


def test_a_document_for_which_the_host_is_short_of_descriptors_is_read_later(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(state, 7, measured(state))
    saved(state, 8)
    spool = Spool(state)
    with monkeypatch.context() as patch, capture_logs() as logs:
        refuse(patch, files, "checksum", errno.EMFILE)
        assert ids(spool.load()) == [8]
        assert len(spool.unread) == 1 and "Too many open files" in spool.unread[0]
    assert [line["event"] for line in logs] == ["a result cannot be read now"]
    (message,) = spool.load()
    assert message.claimed.task.id == 7 and message.document
    assert not spool.unread and spool.load() == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE])
def test_a_record_that_cannot_be_read_now_is_left_and_read_later(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    saved(state, 7, measured(state))
    saved(state, 8)
    spool = Spool(state)
    before = names(state.outbox)
    with monkeypatch.context() as patch:
        refuse(patch, Path, "read_bytes", number, only=RECORD)
        for expected in ([8], []):
            assert ids(spool.load()) == expected
            assert len(spool.unread) == 1 and RECORD in spool.unread[0]
    assert names(state.outbox) == before and names(state.rejected) == []
    assert ids(spool.load()) == [7]
    assert not spool.unread


def test_a_damaged_record_that_cannot_be_set_aside_is_not_removed(
    state: StateDirectory,
) -> None:
    saved(state, 7, measured(state))
    (state.outbox / RECORD).write_bytes(b"nonsense")
    obstacle = state.rejected / "000000001.answer.new"
    obstacle.mkdir()
    spool = Spool(state)
    assert spool.load() == []
    assert names(state.outbox) == [DOCUMENT, RECORD] and len(spool.unread) == 1
    obstacle.rmdir()
    assert spool.load() == [] and not spool.unread
    assert names(state.rejected) == ["000000001.answer", DOCUMENT, RECORD]


def test_an_outbox_that_cannot_be_listed_is_not_taken_for_empty(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(state, 7)
    spool = Spool(state)
    assert spool.unread, "until it was read"
    with monkeypatch.context() as patch:
        refuse(patch, os, "listdir", errno.EACCES)
        refuse(patch, os, "scandir", errno.EACCES)
        with pytest.raises(PermissionError):
            spool.load()
    assert spool.unread
    assert ids(spool.load()) == [7] and not spool.unread


def test_new_numbers_are_higher_than_all_that_are_in_use(state: StateDirectory) -> None:
    assert saved(state, 7).number == 1
    spool = Spool(state)
    refused = saved(state, 8)
    spool.set_aside(refused, b"no")
    assert saved(state, 9).number == 3
    for message in Spool(state).load():
        spool.settle(message, keep_document=False)
    discard(*spool.files(SETTLED))
    smaller = saved(state, 10, measured(state))
    assert smaller.number == 3, "the highest that is left is the one that was set aside"
    spool.settle(smaller, keep_document=True)
    discard(*spool.files(SETTLED))
    assert saved(state, 11).number == 4


def test_more_than_nine_digits_of_results_stay_in_order(state: StateDirectory) -> None:
    (state.kept / "999999998.document").touch()
    for task_id in (7, 8, 9):
        saved(state, task_id)
    assert ids(Spool(state).load()) == [7, 8, 9]


def test_a_refused_result_is_kept_with_the_answer(state: StateDirectory) -> None:
    message = saved(state, 7, measured(state))
    spool = Spool(state)
    spool.set_aside(message, b"x" * (ANSWER_KEPT + 1))
    assert names(state.outbox) == []
    assert (state.rejected / "000000001.answer").read_bytes() == b"x" * ANSWER_KEPT
    assert (state.rejected / DOCUMENT).read_bytes() == CONTENT
    record = msgspec.json.decode((state.rejected / RECORD).read_bytes().partition(b" ")[2])
    assert record["claimed"]["life"]["manager_url"] == ORIGIN.manager_url


def test_a_message_that_could_not_be_saved_is_saved_later(state: StateDirectory) -> None:
    spool = Spool(state)
    message = Message(claimed(7), measured(state), number=spool.next_number())
    obstacle = in_the_way(state)
    with pytest.raises(OSError, match="Is a directory"):
        spool.save(message)
    assert not message.saved
    assert (state.children / "7.1.json").read_bytes() == CONTENT
    obstacle.rmdir()
    spool.save(message)
    assert like(Spool(state).load()) == like([message])


@pytest.mark.parametrize("keep", [False, True])
def test_nothing_stays_of_a_message_that_was_saved_only_in_part(
    state: StateDirectory, keep: bool
) -> None:
    spool = Spool(state)
    message = Message(claimed(7), measured(state), number=spool.next_number())
    obstacle = in_the_way(state)
    with pytest.raises(OSError, match="Is a directory"):
        spool.save(message)
    obstacle.rmdir()
    spool.settle(message, keep_document=keep)
    assert names(state.outbox) == names(state.children) == []
    assert names(state.kept) == ([DOCUMENT] if keep else [])


@pytest.mark.parametrize("keep", [False, True])
def test_a_settled_message_leaves_its_record_until_it_is_forgotten(
    state: StateDirectory, keep: bool
) -> None:
    message = saved(state, 7, measured(state))
    Spool(state).settle(message, keep)
    assert names(state.outbox) == ["000000001.settled"]
    assert names(state.kept) == ([DOCUMENT] if keep else [])
    later = Spool(state)
    (found,) = later.load()
    assert found.settled and found.claimed.task.id == 7
    assert later.next_number() == 2
    discard(*later.files(SETTLED))
    assert names(state.outbox) == []


def test_a_settled_record_that_is_damaged_is_set_aside(state: StateDirectory) -> None:
    for task_id in (7, 8):
        Spool(state).settle(saved(state, task_id), keep_document=False)
    (state.outbox / "000000001.settled").write_bytes(b"nonsense")
    with capture_logs() as logs:
        assert ids(Spool(state).load()) == [8]
    assert [line["event"] for line in logs] == ["a damaged result is set aside"]
    assert (state.rejected / "000000001.settled").read_bytes() == b"nonsense"


@pytest.mark.parametrize("suffix", ["result", "settled"])
def test_a_settled_record_that_cannot_be_read_now_is_left(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    message = saved(state, 7)
    if suffix == "settled":
        Spool(state).settle(message, keep_document=False)
    spool = Spool(state)
    with monkeypatch.context() as patch:
        refuse(patch, Path, "read_bytes", errno.EIO, only=suffix)
        assert spool.load() == [] and len(spool.unread) == 1
    (found,) = spool.load()
    assert found.settled == (suffix == "settled") and not spool.unread


def test_foreign_files_are_left_alone(state: StateDirectory) -> None:
    for name in ("1.result", "x.result", "0000000001.result", "notes.settled"):
        (state.outbox / name).touch()
    assert cleared(state) == []
    assert len(names(state.outbox)) == 4 and names(state.rejected) == []


def test_a_directory_that_cannot_be_listed_takes_no_number_away_whatever_the_clock_says(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without a battery for its clock starts in 1970."""

    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    waiting = [saved(state, number).number for number in range(1, 4)]
    monkeypatch.setattr("agent.state.spool.time.time", lambda: 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", fail)
        spool = Spool(state)
    assert spool.next_number() > max(waiting)
    assert [message.number for message in spool.load()] == waiting


def test_a_whole_document_is_kept_although_somebody_has_removed_the_directory_for_it(
    state: StateDirectory,
) -> None:
    """An idle agent does not look for it before the next result."""
    message = saved(state, 7, measured(state))
    shutil.rmtree(state.kept)
    Spool(state).settle(message, keep_document=True)
    assert [path.read_bytes() for path in state.kept.iterdir()] == [CONTENT]


def test_foreign_things_in_the_directories_change_nothing(state: StateDirectory) -> None:
    (state.kept / ("9" * 200)).touch()
    (state.outbox / "mine.new").mkdir()
    waiting = saved(state, 7)
    assert waiting.number == 1
    assert [message.number for message in cleared(state)] == [1]
