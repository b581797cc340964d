"""Final answers to a result, and results that are too large."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.iperf3.documents import without_intervals
from agent.manager.upload import Body
from agent.protocol import Claimed, Document, Outcome, Report, Task
from tests.support.faulty_manager import Request, raw_reply, reply, well
from tests.support.outbox import claimed, post_to, with_document
from tests.support.recorded_runs import run
from tests.support.sockets import MakeManager

DOCUMENT = run("3.12", "tcp-parallel").stdout.rstrip()
MEASURED = json.loads(DOCUMENT)
# The document without its intervals, and what goes around it.
SMALLEST = len(without_intervals(DOCUMENT)) + 120
SUCCEEDED = Outcome("succeeded", Report(), answer={"killed": True})


def takes_up_to(size: int) -> Callable[[Request], bytes]:
    """A Manager behind a proxy that takes bodies of at most so many bytes."""
    return lambda request: (
        well(request) if len(request.body) <= size else raw_reply(b"<html>", 413)
    )


def invalid_state(status: str) -> bytes:
    detail = {"error": "invalid_task_state", "details": {"current_status": status}}
    return reply({"detail": detail}, 400)


def test_a_document_is_sent_untouched_and_its_file_goes_with_it(
    faulty: MakeManager, directory: Path, tmp_path: Path
) -> None:
    post = post_to(faulty(well), directory)
    path = tmp_path / "document"
    path.write_bytes(b"stray text\n" + DOCUMENT + b"\nmore")
    document = Document(str(path), 11, 11 + len(DOCUMENT))
    post.put(7, Outcome("succeeded", Report(attempts=1), document=document))
    assert post.outbox.flush(5)
    (request,) = post.manager.requests
    assert DOCUMENT[1:] in request.body
    assert request.json()["result"] == {"agent": {"attempts": 1}, **MEASURED}
    assert not path.exists()


def test_a_result_is_on_the_disk_before_it_is_sent_and_until_the_manager_has_it(
    faulty: MakeManager, directory: Path, tmp_path: Path
) -> None:
    there = []

    def answer(request: Request) -> bytes:
        there.append(post.files())
        return well(request) if len(there) > 1 else b""

    post = post_to(faulty(answer), directory)
    post.put(7, with_document(tmp_path / "document", DOCUMENT))
    assert post.outbox.flush(10)
    assert there == [["outbox/000000001.document", "outbox/000000001.result"]] * 2
    assert post.files() == []


def test_a_result_that_proves_to_be_settled_is_not_sent(
    faulty: MakeManager, directory: Path, tmp_path: Path
) -> None:
    """The journal, which says so, could not be read when the record was."""
    post = post_to(faulty(well), directory, start=False)
    post.put(7, with_document(tmp_path / "document", DOCUMENT))
    (message,) = post.outbox.messages()
    message.settled = True
    post.outbox.start()
    assert post.outbox.flush(5)
    assert "result" not in post.manager.calls()
    assert post.files() == ["kept/000000001.document"]


def test_a_result_too_large_for_the_manager_is_sent_without_the_streams(
    faulty: MakeManager, directory: Path, tmp_path: Path
) -> None:
    post = post_to(faulty(takes_up_to(len(DOCUMENT))), directory)
    post.put(7, with_document(tmp_path / "document", DOCUMENT))
    assert post.outbox.flush(5)
    first, second = post.manager.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    result = second.json()["result"]
    assert result.pop("agent") == {"version": "1", "truncated": "the streams of each interval"}
    intervals = [{**interval, "streams": []} for interval in MEASURED["intervals"]]
    assert result == {**MEASURED, "intervals": intervals}
    assert post.files() == ["kept/000000001.document"]
    assert (post.state.kept / "000000001.document").read_bytes() == DOCUMENT


def test_a_whole_document_is_kept_although_the_disk_has_no_space_for_a_second_name(
    faulty: MakeManager, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document is moved instead, which takes no space."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    post = post_to(faulty(takes_up_to(len(DOCUMENT))), directory, start=False)
    post.put(7, with_document(tmp_path / "document", DOCUMENT))
    monkeypatch.setattr(os, "link", full)
    post.outbox.start()
    assert post.outbox.flush(5)
    assert post.files() == ["kept/000000001.document"]
    assert (post.state.kept / "000000001.document").read_bytes() == DOCUMENT


def test_a_result_still_too_large_is_sent_without_the_intervals(
    faulty: MakeManager, directory: Path, tmp_path: Path
) -> None:
    post = post_to(faulty(takes_up_to(SMALLEST)), directory)
    with capture_logs() as logs:
        post.put(7, with_document(tmp_path / "document", DOCUMENT))
        assert post.outbox.flush(5)
    assert logs[-1]["event"] == "result delivered"
    result = post.manager.requests[-1].json()["result"]
    assert result.pop("agent") == {"version": "1", "truncated": "the intervals"}
    assert result == {**MEASURED, "intervals": []}
    assert len(post.manager.requests) == 3


def test_a_result_over_the_byte_budget_is_made_smaller_before_it_is_sent(
    faulty: MakeManager, directory: Path, tmp_path: Path
) -> None:
    post = post_to(faulty(well), directory, max_result_bytes=SMALLEST)
    post.put(7, with_document(tmp_path / "document", DOCUMENT))
    assert post.outbox.flush(5)
    (request,) = post.manager.requests
    assert len(request.body) <= SMALLEST
    assert request.json()["result"]["agent"]["truncated"] == "the intervals"
    assert request.json()["result"]["end"] == MEASURED["end"]


def test_a_document_of_an_unexpected_shape_is_made_smaller_too(
    faulty: MakeManager, directory: Path, tmp_path: Path
) -> None:
    strange = json.dumps({"intervals": ["x" * 5000], "end": {"sum": 1}}).encode()
    post = post_to(faulty(well), directory, max_result_bytes=1000)
    post.put(7, with_document(tmp_path / "document", strange))
    assert post.outbox.flush(5)
    assert post.supervisor.failure is None
    result = post.manager.requests[-1].json()["result"]
    assert (result["intervals"], result["end"]) == ([], {"sum": 1})


def test_a_result_that_is_too_large_in_every_form_is_set_aside(
    faulty: MakeManager, directory: Path, tmp_path: Path
) -> None:
    post = post_to(faulty(takes_up_to(10)), directory)
    with capture_logs() as logs:
        post.put(7, with_document(tmp_path / "document", DOCUMENT))
        assert post.outbox.flush(5)
    assert len(post.manager.requests) == 4
    assert [line for line in logs if line["log_level"] == "error"]
    assert post.files() == [
        f"rejected/000000001.{kind}" for kind in ("answer", "document", "result")
    ]
    assert "agent" in post.manager.requests[-1].json()["result"]


@pytest.mark.parametrize(("call", "status"), [("result", "succeeded"), ("started", "running")])
def test_a_refusal_that_names_the_status_sent_means_that_it_was_delivered(
    faulty: MakeManager, directory: Path, call: str, status: str
) -> None:
    answers = [b""]
    manager = faulty(lambda _: answers.pop() if answers else invalid_state(status))
    post = post_to(manager, directory)
    entry = post.registry.enter(claimed(7))
    with capture_logs() as logs:
        if call == "result":
            post.put(7, SUCCEEDED)
        else:
            post.send_started(7, 77)
        assert post.outbox.flush(5)
    assert manager.calls() == [call] * 2
    assert not [line for line in logs if line["log_level"] == "error"]
    assert not entry.stop.ordered.is_set() and post.files() == []


def test_a_refusal_of_the_first_attempt_cannot_mean_that_it_was_delivered(
    faulty: MakeManager, directory: Path
) -> None:
    """The Manager took another result for this task: its own stays on the disk."""
    post = post_to(faulty(lambda _: invalid_state("succeeded")), directory)
    post.put(7, SUCCEEDED)
    assert post.outbox.flush(5)
    assert post.files() == ["rejected/000000001.answer", "rejected/000000001.result"]


def test_a_refusal_that_names_the_status_of_a_server_does_not_mean_that_its_document_was_delivered(
    faulty: MakeManager, directory: Path, tmp_path: Path
) -> None:
    """The server has succeeded since it listens, and a first attempt may have come to nothing."""
    answers = [b""]
    post = post_to(
        faulty(lambda _: answers.pop() if answers else invalid_state("succeeded")), directory
    )
    server = claimed(7, "iperf_server_start", post.claimed(7).origin)
    post.outbox.put(server, with_document(tmp_path / "document", DOCUMENT))
    assert post.outbox.flush(5)
    assert post.manager.calls() == ["result"] * 2
    assert post.files() == [
        f"rejected/000000001.{kind}" for kind in ("answer", "document", "result")
    ]


def test_an_upload_ends_when_the_number_of_its_task_is_given_away(
    faulty: MakeManager, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = post_to(faulty(well), directory)
    old = post.claimed(7)
    post.journal.record_claim(old)
    document = with_document(tmp_path / "document", b"{" + b" " * 10 * 1024**2 + b"}")
    send, pieces = post.client.send_result, []

    def send_watched(task: Task, body: Body, key: str) -> None:
        def give_the_number_away() -> None:
            pieces.append(1)
            if len(pieces) == 20:
                post.journal.record_claim(Claimed(old.task, old.origin, "another key"))

        body.before_each.insert(0, give_the_number_away)
        send(task, body, key)

    monkeypatch.setattr(post.client, "send_result", send_watched)
    post.outbox.put(old, document)
    assert post.outbox.flush(5)
    assert "rejected/000000001.result" in post.files() and len(pieces) == 20
    assert all(len(request.body) < 10 * 1024**2 for request in post.manager.requests)


@pytest.mark.parametrize("call", ["result", "started"])
def test_a_canceled_task_is_passed_on_and_counts_as_delivered(
    faulty: MakeManager, directory: Path, tmp_path: Path, call: str
) -> None:
    post = post_to(faulty(lambda _: invalid_state("canceled")), directory)
    entry = post.registry.enter(claimed(7))
    path = tmp_path / "document"
    if call == "result":
        post.put(7, with_document(path, DOCUMENT))
    else:
        post.send_started(7, 77)
    assert post.outbox.flush(5)
    assert entry.stop.reason == "canceled at the Manager"
    assert post.manager.calls() == [call]
    assert not path.exists()


@pytest.mark.parametrize(
    "answer",
    [
        invalid_state("failed"),
        reply({"detail": {"error": "task_not_found"}}, 400),
        reply({"detail": [{"msg": "does not fit"}]}, 422),
        reply({"error": "gone"}, 410),
    ],
)
def test_any_other_final_refusal_is_logged_and_the_result_set_aside(
    faulty: MakeManager, directory: Path, tmp_path: Path, answer: bytes
) -> None:
    post = post_to(faulty(lambda _: answer), directory)
    entry = post.registry.enter(claimed(7))
    path = tmp_path / "document"
    with capture_logs() as logs:
        post.put(7, with_document(path, DOCUMENT))
        assert post.outbox.flush(5)
    assert post.manager.calls() == ["result"]
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert line["event"] == "the Manager refuses it: set aside"
    assert not path.exists()
    assert post.files() == [
        f"rejected/000000001.{kind}" for kind in ("answer", "document", "result")
    ]
    assert (post.state.rejected / "000000001.answer").read_bytes() == answer.partition(b"\r\n\r\n")[
        2
    ]
    assert (post.state.rejected / "000000001.document").read_bytes() == DOCUMENT
    assert not entry.stop.ordered.is_set()


def test_the_message_after_a_refused_one_still_goes(faulty: MakeManager, directory: Path) -> None:
    gone = reply({"error": "gone"}, 410)
    post = post_to(
        faulty(lambda request: gone if request.call == "started" else well(request)), directory
    )
    post.send_started(7, 77)
    post.put(7, SUCCEEDED)
    assert post.outbox.flush(5)
    assert post.manager.calls() == ["started", "result"]
