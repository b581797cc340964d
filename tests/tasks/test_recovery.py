"""What an agent makes of its former life: one outcome for each task that has none."""

from dataclasses import dataclass
from pathlib import Path

import gevent
import msgspec
import pytest
from gevent import subprocess
from structlog.testing import capture_logs

from agent import __version__
from agent.iperf3.documents import find_documents
from agent.metrics import Metrics
from agent.outbox import delivery as delivery_room
from agent.outbox import queue as outbox_room
from agent.outbox.delivery import Delivery
from agent.outbox.queue import Outbox
from agent.process.identity import identify
from agent.protocol import Claimed, Outcome, Report
from agent.registry import TaskRegistry
from agent.state.journal import ChildRecord, Journal
from agent.state.ledger import Ledger
from agent.state.spool import Spool
from agent.tasks.client_output import output_file
from agent.tasks.recovery import recover
from agent.tasks.served import served_file, server_output
from tests.support.faulty_manager import FaultyManager, well
from tests.support.outbox import Post, claimed, post_to, task_of, with_document
from tests.support.recorded_runs import run
from tests.support.sockets import MakeManager

INTERRUPTED = "interrupted: the agent restarted"
WHOLE = run("3.12", "tcp").stdout
CUT_SHORT = run("3.12", "client-term").stdout
SERVED = run("3.12", "server-tcp").stdout
ARGV = Report(version="1", argv=["iperf3", "-c", "host"], attempts=2, interface="eth0")


@dataclass
class Sent:
    """A result as the Manager got it."""

    status: str
    stderr: str
    result: dict[str, object]

    @property
    def report(self) -> dict[str, object]:
        """What the agent says in it."""
        found = self.result["agent"]
        assert isinstance(found, dict)
        return found


@pytest.fixture(name="former")
def fixture_former(faulty: MakeManager, directory: Path) -> Post:
    """The rooms of an agent that will be killed; its outbox delivers nothing."""
    return post_to(faulty(well), directory, start=False)


def took(former: Post, task_id: int, task_type: str = "iperf_client_run") -> Claimed:
    """The former life claimed a task and did no more about it."""
    assert former.registration.life
    task = claimed(task_id, task_type, former.registration.life)
    former.journal.record_claim(task)
    return task


def written(former: Post, task: Claimed, attempt: int = 1) -> Path:
    """Where its child writes."""
    if task.task.type == "iperf_server_start":
        return server_output(former.state.children, task)
    return output_file(former.state.children, task, attempt, streams=False)


def ran(former: Post, task: Claimed, stdout: bytes, pid: int | None = None) -> None:
    """It had started a child, a client at its second attempt, which has written that."""
    written(former, task, 2).write_bytes(stdout)
    identity = identify(pid) if pid else None
    former.journal.record_child(task, ChildRecord(identity, ARGV))


def next_life(former: Post, grace: float = 1) -> Post:
    """The rooms of the agent that starts again over the same directory, recovered and started."""
    ledger, registry = Ledger(former.state), TaskRegistry()
    delivery = Delivery(former.client, former.registration, ledger, registry, 64 << 20)
    outbox = Outbox(delivery, former.registration, ledger.spool, former.supervisor.spawn)
    recover(ledger, outbox, Metrics(), grace)
    outbox.start()
    return Post(
        former.manager,
        former.client,
        former.supervisor,
        former.registration,
        ledger,
        registry,
        outbox,
    )


def sent(manager: FaultyManager, task_id: int) -> list[Sent]:
    """The results of a task that reached the Manager."""
    found = [r.json() for r in manager.requests if r.call == "result" and task_of(r) == task_id]
    return [Sent(body["status"], body["stderr"], body["result"]) for body in found]


def only(former: Post, task_id: int) -> Sent:
    """Start again and wait until all is delivered and forgotten; the one result of the task."""
    later = next_life(former)
    assert later.outbox.flush(10)
    assert later.journal.unsettled() == Journal(former.state).unsettled() == []
    assert later.files() == []
    assert list(former.state.children.iterdir()) == []
    (result,) = sent(former.manager, task_id)
    return result


def test_a_task_without_a_child_has_failed(former: Post) -> None:
    took(former, 7)
    result = only(former, 7)
    assert (result.status, result.stderr) == ("failed", INTERRUPTED)
    assert result.report["error_class"] == "interrupted"


def test_a_kill_all_that_was_not_done_has_failed(former: Post) -> None:
    took(former, 7, "kill_all")
    assert only(former, 7).status == "failed"


def test_a_client_whose_document_is_complete_has_succeeded(former: Post) -> None:
    ran(former, took(former, 7), WHOLE)
    result = only(former, 7)
    assert (result.status, result.stderr) == ("succeeded", "")
    assert result.report == {
        "version": "1",
        "argv": ["iperf3", "-c", "host"],
        "attempts": 2,
        "interface": "eth0",
    }
    assert "sum_received" in str(result.result["end"])


@pytest.mark.parametrize(
    ("version", "case"),
    [("3.9", "client-of-server-term"), ("3.12", "client-term"), ("3.22", "client-term")],
)
def test_a_client_that_was_cut_short_has_failed_with_what_there_is(
    former: Post, version: str, case: str
) -> None:
    ran(former, took(former, 7), run(version, case).stdout)
    result = only(former, 7)
    assert (result.status, result.stderr) == ("failed", INTERRUPTED)
    assert result.report["error_class"] == "interrupted"
    assert result.result["intervals"]


@pytest.mark.parametrize("stdout", [b"", WHOLE[:-3], WHOLE[: len(WHOLE) // 2], b"{}", b"\0" * 99])
def test_a_client_without_a_complete_document_has_failed(former: Post, stdout: bytes) -> None:
    ran(former, took(former, 7), stdout)
    result = only(former, 7)
    assert (result.status, result.stderr) == ("failed", INTERRUPTED)
    assert result.report["error_class"] == "interrupted"


def test_a_client_whose_output_is_gone_has_failed(former: Post) -> None:
    ran(former, task := took(former, 7), WHOLE)
    written(former, task, 2).unlink()
    assert only(former, 7).status == "failed"


def test_a_client_that_ended_before_the_journal_had_its_child_has_succeeded(former: Post) -> None:
    """iperf3 is done with a megabyte in the time that it takes to write that line."""
    task = took(former, 7)
    written(former, task).write_bytes(WHOLE)
    written(former, task).with_suffix(".err").touch()
    written(former, claimed(71)).write_bytes(CUT_SHORT)
    result = only(former, 7)
    assert (result.status, result.stderr) == ("succeeded", "")
    assert result.report == {"version": __version__, "attempts": 1}
    assert "sum_received" in str(result.result["end"])


def test_another_managers_task_of_that_number_is_not_taken_for_it(former: Post) -> None:
    """What it left was not cleared away, as the disk was in trouble when the agent started."""
    took(former, 7)
    stranger = msgspec.structs.replace(claimed(7), key="another claim's")
    written(former, stranger).write_bytes(WHOLE)
    assert only(former, 7).stderr == INTERRUPTED


@pytest.mark.parametrize("attempt", [3, 10])
def test_an_attempt_that_the_journal_does_not_have_yet_is_the_newest(
    former: Post, attempt: int
) -> None:
    ran(former, task := took(former, 7), b"")
    written(former, task, attempt).write_bytes(WHOLE)
    result = only(former, 7)
    assert (result.status, result.report["attempts"]) == ("succeeded", attempt)
    assert result.report["argv"] == ARGV.argv


def test_a_server_that_the_manager_never_heard_of_has_failed(former: Post) -> None:
    ran(former, took(former, 7, "iperf_server_start"), b"")
    result = only(former, 7)
    assert (result.status, result.stderr) == ("failed", INTERRUPTED)


def test_a_server_that_was_reported_stays_a_success_and_has_ended(former: Post) -> None:
    server = took(former, 7, "iperf_server_start")
    ran(former, server, b"")
    former.journal.mark_reported(server)
    result = only(former, 7)
    assert (result.status, result.stderr) == ("succeeded", "")
    assert result.result["started"] is True
    assert result.report["ended"] == INTERRUPTED
    assert "error_class" not in result.report


def test_the_newest_document_of_a_reported_server_is_repeated(former: Post) -> None:
    server = took(former, 7, "iperf_server_start")
    ran(former, server, SERVED + SERVED[: len(SERVED) // 2])
    former.journal.mark_reported(server)
    result = only(former, 7)
    assert result.status == "succeeded"
    assert result.report["ended"] == INTERRUPTED
    assert result.result["end"] and "started" not in result.result


def test_a_document_that_was_taken_out_of_a_servers_output_is_repeated(former: Post) -> None:
    server = took(former, 7, "iperf_server_start")
    ran(former, server, b"")
    former.journal.mark_reported(server)
    start, end = find_documents(SERVED)[0]
    served_file(written(former, server)).write_bytes(SERVED[start:end])
    assert only(former, 7).result["end"]


def test_a_server_whose_first_result_still_waits_is_one_that_is_reported(former: Post) -> None:
    server = took(former, 7, "iperf_server_start")
    ran(former, server, b"")
    listens = Outcome("succeeded", ARGV, answer={"started": True, "pid": 77}, final=False)
    former.outbox.put(server, listens)
    later = next_life(former)
    assert later.outbox.flush(10)
    first, second = sent(former.manager, 7)
    assert (first.status, first.result["pid"]) == ("succeeded", 77)
    assert (second.status, second.report["ended"]) == ("succeeded", INTERRUPTED)
    assert later.files() == []
    assert Journal(former.state).unsettled() == []


def test_a_final_result_that_waits_is_all_there_is_to_tell(former: Post) -> None:
    task = took(former, 7)
    ran(former, task, WHOLE)
    document = written(former, task, 2)
    former.outbox.put(task, with_document(document, WHOLE.strip()))
    (kept,) = Spool(former.state).load()
    assert only(former, 7).status == "succeeded"
    (request,) = former.manager.requests
    assert request.headers["idempotency-key"] == kept.idempotency_key


def test_what_a_former_life_left_is_counted_and_shown(former: Post) -> None:
    took(former, 7)
    metrics = Metrics()
    recover(Ledger(former.state), former.outbox, metrics, 1)
    assert metrics.outcomes == {("iperf_client_run", "failed", "interrupted"): 1}
    (shown,) = metrics.results
    assert (shown.task_id, shown.message) == (7, INTERRUPTED)


def test_a_result_that_was_settled_before_the_kill_is_not_sent_again(former: Post) -> None:
    task = took(former, 7)
    former.outbox.put(task, Outcome("succeeded", Report(), answer={"killed": True}))
    former.journal.mark_settled(task)
    later = next_life(former)
    assert later.outbox.flush(10)
    assert later.files() == []
    assert not sent(former.manager, 7)


@pytest.mark.parametrize("final", [True, False])
def test_what_no_journal_could_note_as_delivered_is_not_told_again(
    former: Post, final: bool
) -> None:
    """The disk is full while it is delivered, and the agent killed before there is room."""
    task = took(former, 7, "iperf_client_run" if final else "iperf_server_start")
    outcome = with_document(former.state.children / "7.1.json", WHOLE.strip())
    former.outbox.put(task, msgspec.structs.replace(outcome, final=final))
    in_the_way = former.state.path / "journal.new"
    in_the_way.mkdir()
    delivering = next_life(former)
    assert delivering.outbox.flush(10)
    told = 1 if final else 2
    assert len(sent(former.manager, 7)) == told
    assert delivering.files() == [f"outbox/{told:09d}.settled"]
    in_the_way.rmdir()
    former.state.trouble = ""
    later = next_life(former)
    assert later.outbox.flush(10)
    assert len(sent(former.manager, 7)) == told
    assert later.files() == []
    assert later.journal.unsettled() == Journal(former.state).unsettled() == []


def test_a_child_that_still_runs_is_stopped_before_its_output_is_read(former: Post) -> None:
    task = took(former, 7)
    with capture_logs() as logs, subprocess.Popen(["sleep", "60"]) as child:
        ran(former, task, CUT_SHORT, child.pid)
        assert only(former, 7).status == "failed"
        with gevent.Timeout(5):
            assert child.wait() == -15
    (said,) = [line for line in logs if line.get("pid") == child.pid]
    assert said["task_id"] == 7


def test_a_large_result_waits_while_a_client_test_runs(
    former: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_room, "LARGE_RESULT", 1000)
    monkeypatch.setattr(outbox_room, "LARGE_RESULT_LOOK", 0.02)
    registry, outbox = former.registry, former.outbox
    outbox.start()
    running = registry.enter(claimed(1))
    running.record_start(77)
    former.put(7, with_document(former.state.children / "7.json", WHOLE.strip()))
    former.put(8, with_document(former.state.children / "8.json", b'{"end": {}}'))
    former.manager.wait_for(lambda: sent(former.manager, 8))
    for _ in range(3):
        former.client.send_heartbeat("10.0.0.1", [])
        gevent.sleep(0.1)
    assert not sent(former.manager, 7)
    running.record_end()
    former.manager.wait_for(lambda: sent(former.manager, 7), timeout=5)


def test_a_large_result_waits_no_longer_than_a_while(
    former: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_room, "LARGE_RESULT", 1000)
    monkeypatch.setattr(outbox_room, "LARGE_RESULT_LOOK", 0.02)
    monkeypatch.setattr(delivery_room, "LARGE_RESULT_WAITS", 0.5)
    former.outbox.start()
    former.registry.enter(claimed(1)).record_start(77)
    former.put(7, with_document(former.state.children / "7.json", WHOLE.strip()))
    assert former.outbox.oldest() < 0.5 and not sent(former.manager, 7)
    former.manager.wait_for(lambda: sent(former.manager, 7), timeout=5)


def test_a_large_result_does_not_wait_when_the_agent_ends(
    former: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_room, "LARGE_RESULT", 1000)
    former.outbox.start()
    former.registry.enter(claimed(1)).record_start(77)
    former.put(7, with_document(former.state.children / "7.json", WHOLE.strip()))
    assert former.outbox.flush(5)
