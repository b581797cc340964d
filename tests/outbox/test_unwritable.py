"""Results and claims while the disk cannot be written."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.errors import ErrorClass, StateUnusable
from agent.manager.upload import Body
from agent.protocol import Outcome, Report, Task
from agent.state.journal import Journal
from agent.state.spool import Spool
from tests.support.claim_loop import ClaimAnswers, claimed, claiming
from tests.support.clock import Clock
from tests.support.faulty_manager import reply, well
from tests.support.outbox import Post, post_to, with_document
from tests.support.sockets import MakeManager

CONTENT = b'{"end":{"sum":1}}'
PLAIN = Outcome("failed", Report(error_class=ErrorClass.REFUSED), exit_code=1, stderr="refused")


def no_record(post: Post, number: int) -> Path:
    """A directory in the place of one record's new file: the record cannot be written."""
    path = post.state.outbox / f"{number:09d}.result.new"
    path.mkdir()
    return path


def no_journal(post: Post) -> Path:
    """A directory in the place of the journal's new file: the journal cannot be rewritten."""
    path = post.state.path / "journal.new"
    path.mkdir()
    return path


def test_a_result_that_cannot_be_written_is_delivered_from_memory(
    faulty: MakeManager, directory: Path
) -> None:
    post = post_to(faulty(well), directory)
    obstacle = no_record(post, 1)
    with capture_logs() as logs:
        post.put(7, with_document(post.state.children / "7.1.json", CONTENT))
        assert post.outbox.flush(5)
    obstacle.rmdir()
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "the state directory cannot be written",
        "the state directory does not take a result now: it waits in memory",
    ]
    (request,) = post.manager.requests
    assert request.json()["result"]["end"] == {"sum": 1}
    assert post.files() == [] and not list(post.state.children.iterdir())


def test_results_in_memory_are_written_once_the_disk_works_again(
    faulty: MakeManager, directory: Path
) -> None:
    post = post_to(faulty(well), directory, start=False)
    obstacles = [no_record(post, number) for number in (1, 2)]
    post.put(7, with_document(post.state.children / "7.1.json", CONTENT))
    post.put(8, PLAIN)
    for obstacle in obstacles:
        obstacle.rmdir()
    post.ledger.mend()
    assert [message.claimed.task.id for message in Spool(post.state).load()] == [7, 8]
    post.outbox.start()
    assert post.outbox.flush(5)
    assert post.files() == []


def test_a_document_that_is_saved_during_its_upload_arrives_whole(
    faulty: MakeManager, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has another name from then on, and costs one more attempt at most."""
    post = post_to(faulty(well), directory, start=False)
    obstacle, send = no_record(post, 1), post.client.send_result
    pieces: list[int] = []

    def save() -> None:
        pieces.append(1)
        if len(pieces) == 5:
            obstacle.rmdir()
            post.ledger.mend()

    def send_watched(task: Task, body: Body, key: str) -> None:
        body.before_each.append(save)
        send(task, body, key)

    monkeypatch.setattr(post.client, "send_result", send_watched)
    content = b'{"end":' + b"1" * 1024**2 + b"}"
    post.put(7, with_document(post.state.children / "7.1.json", content))
    assert post.ledger.is_behind
    post.outbox.start()
    assert post.outbox.flush(10)
    assert not obstacle.exists() and len(pieces) > 5
    assert content[1:] in post.manager.requests[-1].body
    assert post.files() == []


def test_a_delivered_result_frees_its_space_although_the_journal_cannot_be_written(
    faulty: MakeManager, directory: Path
) -> None:
    post = post_to(faulty(well), directory, start=False)
    obstacle = no_journal(post)
    post.journal.record_claim(post.claimed(7))
    with pytest.raises(StateUnusable):
        post.ledger.mend()
    post.put(7, with_document(post.state.children / "7.1.json", CONTENT))
    assert post.files() == ["outbox/000000001.document", "outbox/000000001.result"]
    post.outbox.start()
    assert post.outbox.flush(5)
    (record,) = post.state.outbox.iterdir()
    assert record.name == "000000001.settled", "the record alone, in the journal's place"
    with pytest.raises(StateUnusable):
        post.ledger.mend()
    assert record.exists()
    obstacle.rmdir()
    post.ledger.mend()
    assert post.files() == []
    assert list(post.state.outbox.iterdir()) == []
    assert post.journal.unsettled() == Journal(post.state).unsettled() == []


def test_a_task_that_has_ended_is_not_run_again_although_the_journal_cannot_be_written(
    faulty: MakeManager,
) -> None:
    replayed = {"id": 7, "type": "kill_all", "payload": {}, "status": "succeeded"}
    clock = Clock()
    manager = faulty(ClaimAnswers(clock, reply({"task": replayed}), claimed(8)))
    with claiming(manager, clock) as loop:
        obstacle = no_journal(loop.post)
        manager.wait_for(lambda: "result" in manager.calls())
        obstacle.rmdir()
        loop.post.ledger.mend()
    results = [request.path for request in manager.requests if request.call == "result"]
    assert results == ["/v1/agent/tasks/8/result"]
    keys = [r.headers["idempotency-key"] for r in manager.requests if r.call == "claim"]
    assert len(set(keys[:3])) == 3
