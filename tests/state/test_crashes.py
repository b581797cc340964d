"""A crash between any two steps of the disk: one delivery, no loss, and nothing left.

Each test lets an agent's outbox run once, and copies its state directory before each rename, link
and removal. Then it starts again on each of the copies, as after a crash at that moment.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from gevent.monkey import get_original

from agent.metrics import Metrics
from agent.protocol import Claimed, Outcome, Report
from agent.state.journal import ChildRecord, Journal
from agent.tasks.client_output import output_file
from agent.tasks.recovery import clear_leftovers, recover
from agent.tasks.served import served_file, server_output
from tests.support.faulty_manager import FaultyManager, Request, raw_reply, reply, well
from tests.support.outbox import Post, change, claimed, post_to, with_document
from tests.support.recorded_runs import run
from tests.support.sockets import MakeManager

DOCUMENT = run("3.12", "tcp-parallel").stdout.strip()
STEPS = ("rename", "replace", "link", "unlink")
REFUSED = reply({"error": "gone"}, 410)


@dataclass
class Crash:
    """A copy of the state directory, and how many requests the Manager had had by then."""

    state: Path
    requests: int


@contextmanager
def crashes(post: Post, into: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Crash]]:
    """Copy the directory before each step and at the end."""
    found: list[Crash] = []
    # The steps come from several native threads.
    lock = get_original("threading", "RLock")()

    def copy() -> None:
        target = into / str(len(found))
        shutil.copytree(post.state.path, target)
        found.append(Crash(target, len(post.manager.requests)))

    def watched(step: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*args: object, **kwargs: object) -> None:
            with lock:
                if str(post.state.path) in str(args[0]):
                    copy()
                step(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, watched(getattr(os, name)))
        yield found
    copy()


def results(manager: FaultyManager, start: int = 0) -> list[Request]:
    """The results that were sent since then."""
    return [request for request in manager.requests[start:] if request.call == "result"]


def keys(requests: list[Request]) -> set[str]:
    """Their Idempotency-Keys."""
    return {request.headers["idempotency-key"] for request in requests}


def client(post: Post) -> tuple[Claimed, Path]:
    """A client's task that was claimed and has run, and the file of its document."""
    task = post.claimed(7)
    post.journal.record_claim(task)
    change(post.journal, task, child=ChildRecord(None, Report(version="1", attempts=1)))
    post.journal.sync()
    path = output_file(post.state.children, task, 1, streams=False)
    path.write_bytes(DOCUMENT)
    return task, path


def deliver(post: Post, task: Claimed, outcome: Outcome) -> None:
    """Put an outcome, deliver all, and tidy up."""
    post.outbox.put(task, outcome)
    assert post.outbox.flush(10)
    post.ledger.mend()


def start_again(manager: FaultyManager, crash: Crash) -> Post:
    """What an agent does that starts on the copy, up to its end."""
    post = post_to(manager, crash.state, start=False)
    recover(post.ledger, post.outbox, Metrics(), 1)
    clear_leftovers(post.ledger)
    post.outbox.start()
    assert post.outbox.flush(10)
    post.ledger.mend()
    assert Journal(post.state).unsettled() == []
    for below in (post.state.outbox, post.state.children):
        assert list(below.iterdir()) == []
    return post


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_a_result_is_delivered_once_and_whole(
    faulty: MakeManager,
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    links: bool,
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_link)
    manager = faulty(well)
    post = post_to(manager, directory)
    task, path = client(post)
    with crashes(post, tmp_path, monkeypatch) as found:
        deliver(post, task, with_document(path, DOCUMENT))
    assert len(found) >= 6 and found[0].requests == 0 and found[-2].requests
    for crash in found:
        before, told = results(manager)[: crash.requests], len(manager.requests)
        later = start_again(manager, crash)
        sent = before + results(manager, told)
        assert len(keys(sent)) == 1, "what is sent again has its first key"
        for request in sent:
            assert request.json()["status"] == "succeeded" and DOCUMENT[1:] in request.body
        assert later.files() == [] or later.files() == ["kept/000000001.document"]


def no_link(source: object, target: object) -> None:
    """A file system without hard links."""
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(source))


def test_no_whole_document_is_lost_of_which_the_manager_took_a_smaller_form(
    faulty: MakeManager, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [True]
    manager = faulty(
        lambda request: (
            raw_reply(b"", 413) if small and len(request.body) > len(DOCUMENT) else well(request)
        )
    )
    post = post_to(manager, directory)
    task, path = client(post)
    with crashes(post, tmp_path, monkeypatch) as found:
        deliver(post, task, with_document(path, DOCUMENT))
    assert post.files() == ["kept/000000001.document"]
    small.clear()
    for crash in found:
        told = len(manager.requests)
        later = start_again(manager, crash)
        kept = [file.read_bytes() for file in later.state.kept.iterdir()]
        again = results(manager, told)
        assert kept == [DOCUMENT] or DOCUMENT[1:] in again[-1].body
        assert not list(later.state.rejected.iterdir())
        assert len(keys(results(manager)[1 : crash.requests] + again)) == 1


def test_a_refused_result_and_its_document_are_set_aside(
    faulty: MakeManager, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = faulty(lambda request: REFUSED if request.call == "result" else well(request))
    post = post_to(manager, directory)
    task, path = client(post)
    with crashes(post, tmp_path, monkeypatch) as found:
        deliver(post, task, with_document(path, DOCUMENT))
    for crash in found:
        later = start_again(manager, crash)
        assert not list(later.state.kept.iterdir())
        (document,) = later.state.rejected.glob("*.document")
        assert document.read_bytes() == DOCUMENT
        for suffix in (".result", ".answer"):
            assert document.with_suffix(suffix).exists()
        assert later.ledger.spool.rejected == 1, "it has no second outcome"


def test_the_results_of_a_server_arrive_in_order_and_none_is_missing(
    faulty: MakeManager, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens, it has served a test, it was stopped: what the Manager has last is the last."""
    manager = faulty(well)
    post = post_to(manager, directory)
    assert post.registration.origin
    task = claimed(7, "iperf_server_start", post.registration.origin)
    post.journal.record_claim(task)
    post.journal.sync()
    stdout = server_output(post.state.children, task)
    stdout.touch()
    listens = Outcome("succeeded", Report(), answer={"started": True}, final=False)
    served = with_document(served_file(stdout), DOCUMENT)
    with crashes(post, tmp_path, monkeypatch) as found:
        deliver(post, task, listens)
        get_original_link(served_file(stdout), own := Path(f"{served_file(stdout)}.1"))
        document = msgspec.structs.replace(served.document, path=str(own))  # type: ignore[type-var]
        deliver(post, task, msgspec.structs.replace(served, document=document, final=False))
        deliver(post, task, with_document(served_file(stdout), DOCUMENT))
    for crash in found:
        before, told = results(manager)[: crash.requests], len(manager.requests)
        start_again(manager, crash)
        sent = [request.json() for request in before + results(manager, told)]
        if before:
            assert {body["status"] for body in sent} == {"succeeded"}, "it stays a success"
        assert "end" in sent[-1]["result"] or sent[-1]["status"] == "failed"
        if len(before) >= 2:
            assert all("end" in body["result"] for body in sent[2:])


def get_original_link(source: Path, target: Path) -> None:
    """As the server's task gives a document a name of its own."""
    os.link(source, target)
