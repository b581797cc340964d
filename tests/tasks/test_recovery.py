"""An agent that starts again after a kill: one outcome for each task that has none."""

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from gevent import subprocess
from structlog.testing import capture_logs

from agent import __version__
from agent.iperf3.documents import find_documents
from agent.metrics import Metrics
from agent.outbox import delivery as delivery_module
from agent.outbox import queue as queue_module
from agent.outbox.delivery import Delivery
from agent.outbox.queue import Outbox
from agent.process.identity import identify
from agent.protocol import Claimed, Outcome, Report
from agent.registry import TaskRegistry
from agent.state.journal import ChildRecord, Journal
from agent.state.ledger import Ledger
from agent.state.spool import Spool
from agent.tasks.client_output import output_file
from agent.tasks.recovery import clear_leftovers, recover
from agent.tasks.served import served_file, server_output
from tests.support.faulty_manager import FaultyManager, well
from tests.support.harness import until
from tests.support.outbox import Post, change, claimed, post_to, task_of, with_document
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


@pytest.fixture(name="killed")
def fixture_killed(faulty: MakeManager, directory: Path) -> Post:
    """An agent that will be killed; its outbox delivers nothing."""
    return post_to(faulty(well), directory, start=False)


def claimed_task(killed: Post, task_id: int, task_type: str = "iperf_client_run") -> Claimed:
    """A task that the killed agent has claimed, and nothing more."""
    assert killed.registration.origin
    task = claimed(task_id, task_type, killed.registration.origin)
    killed.journal.record_claim(task)
    return task


def written(killed: Post, task: Claimed, attempt: int = 1) -> Path:
    """Where its child writes."""
    if task.task.type == "iperf_server_start":
        return server_output(killed.state.children, task)
    return output_file(killed.state.children, task, attempt, streams=False)


def ran(
    killed: Post, task: Claimed, stdout: bytes, pid: int | None = None, report: Report = ARGV
) -> None:
    """Its child, of a client the second attempt, has started and has written that."""
    written(killed, task, 2).write_bytes(stdout)
    identity = identify(pid) if pid else None
    change(killed.journal, task, child=ChildRecord(identity, report))


def restarted(killed: Post, grace: float = 1) -> Post:
    """The agent that starts again on the same state directory, recovered and delivering."""
    killed.journal.sync()
    ledger, registry = Ledger(killed.state), TaskRegistry()
    delivery = Delivery(killed.client, killed.gate, ledger, registry, 64 << 20)
    outbox = Outbox(delivery, killed.supervisor.spawn)
    recover(ledger, outbox, Metrics(), grace)
    clear_leftovers(ledger)
    outbox.start()
    return replace(killed, ledger=ledger, registry=registry, outbox=outbox)


def sent(manager: FaultyManager, task_id: int) -> list[Sent]:
    """The results of a task that reached the Manager."""
    found = [r.json() for r in manager.requests if r.call == "result" and task_of(r) == task_id]
    return [Sent(body["status"], body["stderr"], body["result"]) for body in found]


def only_result(killed: Post, task_id: int) -> Sent:
    """Start again, wait until all is delivered and removed; returns the task's only result."""
    later = restarted(killed)
    assert later.outbox.flush(10)
    later.ledger.mend()
    assert later.journal.unsettled() == Journal(killed.state).unsettled() == []
    assert later.files() == []
    assert list(killed.state.outbox.iterdir()) == []
    assert list(killed.state.children.iterdir()) == []
    (result,) = sent(killed.manager, task_id)
    return result


def test_a_task_without_a_child_fails(killed: Post) -> None:
    claimed_task(killed, 7)
    result = only_result(killed, 7)
    assert (result.status, result.stderr) == ("failed", INTERRUPTED)
    assert result.report["error_class"] == "interrupted"


def test_an_unfinished_kill_all_fails(killed: Post) -> None:
    claimed_task(killed, 7, "kill_all")
    assert only_result(killed, 7).status == "failed"


def test_a_client_with_a_complete_document_succeeds(killed: Post) -> None:
    ran(killed, claimed_task(killed, 7), WHOLE)
    result = only_result(killed, 7)
    assert (result.status, result.stderr) == ("succeeded", "")
    end: Any = result.result["end"]
    figures: Any = result.report.pop("figures")
    assert figures["received"] == end["sum_received"]["bits_per_second"]
    assert result.report == {
        "version": "1",
        "argv": ["iperf3", "-c", "host"],
        "attempts": 2,
        "interface": "eth0",
    }
    assert "sum_received" in str(result.result["end"])


def test_the_bitrate_of_a_document_without_it_is_that_of_the_command_line(killed: Post) -> None:
    """Of UDP, iperf3 3.9 does not say it."""
    words = "iperf3 -c host -u -b 25000000/5 -P 2 -J"
    report = Report(argv=words.split(), attempts=2)
    ran(killed, claimed_task(killed, 7), run("3.9", "udp").stdout, report=report)
    figures: Any = only_result(killed, 7).report["figures"]
    assert figures["asked"] == 50_000_000


@pytest.mark.parametrize(
    ("version", "case"),
    [("3.9", "client-of-server-term"), ("3.12", "client-term"), ("3.22", "client-term")],
)
def test_a_client_that_was_cut_short_fails_with_its_partial_document(
    killed: Post, version: str, case: str
) -> None:
    ran(killed, claimed_task(killed, 7), run(version, case).stdout)
    result = only_result(killed, 7)
    assert (result.status, result.stderr) == ("failed", INTERRUPTED)
    assert result.report["error_class"] == "interrupted"
    assert result.result["intervals"]


@pytest.mark.parametrize("stdout", [b"", WHOLE[:-3], WHOLE[: len(WHOLE) // 2], b"{}", b"\0" * 99])
def test_a_client_without_a_complete_document_fails(killed: Post, stdout: bytes) -> None:
    ran(killed, claimed_task(killed, 7), stdout)
    result = only_result(killed, 7)
    assert (result.status, result.stderr) == ("failed", INTERRUPTED)
    assert result.report["error_class"] == "interrupted"


def test_a_client_whose_output_is_gone_fails(killed: Post) -> None:
    ran(killed, task := claimed_task(killed, 7), WHOLE)
    written(killed, task, 2).unlink()
    assert only_result(killed, 7).status == "failed"


def test_a_client_that_ended_before_the_journal_had_its_child_succeeds(killed: Post) -> None:
    """iperf3 transfers a megabyte in the time that the journal takes to write a line."""
    task = claimed_task(killed, 7)
    written(killed, task).write_bytes(WHOLE)
    written(killed, task).with_suffix(".err").touch()
    written(killed, claimed(71)).write_bytes(CUT_SHORT)
    result = only_result(killed, 7)
    assert (result.status, result.stderr) == ("succeeded", "")
    assert result.report.pop("figures")
    assert result.report == {"version": __version__, "attempts": 1}
    assert "sum_received" in str(result.result["end"])


def test_the_output_of_another_managers_task_of_the_same_number_is_not_used(killed: Post) -> None:
    """It was not removed, as the disk could not be written when the agent started."""
    claimed_task(killed, 7)
    stranger = msgspec.structs.replace(claimed(7), key="another claim's")
    written(killed, stranger).write_bytes(WHOLE)
    assert only_result(killed, 7).stderr == INTERRUPTED


@pytest.mark.parametrize("attempt", [3, 10])
def test_an_attempt_missing_from_the_journal_can_be_the_newest(killed: Post, attempt: int) -> None:
    ran(killed, task := claimed_task(killed, 7), b"")
    written(killed, task, attempt).write_bytes(WHOLE)
    result = only_result(killed, 7)
    assert (result.status, result.report["attempts"]) == ("succeeded", attempt)
    assert result.report["argv"] == ARGV.argv


def test_a_server_that_was_never_reported_fails(killed: Post) -> None:
    ran(killed, claimed_task(killed, 7, "iperf_server_start"), b"")
    result = only_result(killed, 7)
    assert (result.status, result.stderr) == ("failed", INTERRUPTED)


def test_a_reported_server_stays_a_success_and_has_ended(killed: Post) -> None:
    server = claimed_task(killed, 7, "iperf_server_start")
    ran(killed, server, b"")
    killed.journal.mark_delivered(server, is_final=False)
    result = only_result(killed, 7)
    assert (result.status, result.stderr) == ("succeeded", "")
    assert result.result["started"] is True
    assert result.report["ended"] == INTERRUPTED
    assert "error_class" not in result.report


def test_the_newest_document_of_a_reported_server_is_repeated(killed: Post) -> None:
    server = claimed_task(killed, 7, "iperf_server_start")
    ran(killed, server, SERVED + SERVED[: len(SERVED) // 2])
    killed.journal.mark_delivered(server, is_final=False)
    result = only_result(killed, 7)
    assert result.status == "succeeded"
    assert result.report["ended"] == INTERRUPTED
    assert result.result["end"] and "started" not in result.result


def test_output_that_cannot_be_read_costs_a_server_its_document_and_nothing_else(
    killed: Post,
) -> None:
    server = claimed_task(killed, 7, "iperf_server_start")
    ran(killed, server, SERVED)
    killed.journal.mark_delivered(server, is_final=False)
    output = written(killed, server)
    output.unlink()
    output.mkdir()
    later = restarted(killed)
    assert later.outbox.flush(10)
    (result,) = sent(killed.manager, 7)
    assert result.status == "succeeded" and result.result["started"] is True


def test_a_document_copied_out_of_a_servers_output_is_repeated(killed: Post) -> None:
    server = claimed_task(killed, 7, "iperf_server_start")
    ran(killed, server, b"")
    killed.journal.mark_delivered(server, is_final=False)
    start, end = find_documents(SERVED)[0]
    served_file(written(killed, server)).write_bytes(SERVED[start:end])
    assert only_result(killed, 7).result["end"]


def test_a_server_whose_first_result_still_waits_counts_as_reported(killed: Post) -> None:
    server = claimed_task(killed, 7, "iperf_server_start")
    ran(killed, server, b"")
    listens = Outcome("succeeded", ARGV, answer={"started": True, "pid": 77}, final=False)
    killed.outbox.put(server, listens)
    until((killed.state.outbox / "000000001.result").exists)
    later = restarted(killed)
    assert later.outbox.flush(10)
    first, second = sent(killed.manager, 7)
    assert (first.status, first.result["pid"]) == ("succeeded", 77)
    assert (second.status, second.report["ended"]) == ("succeeded", INTERRUPTED)
    later.ledger.mend()
    assert later.files() == []
    assert Journal(killed.state).unsettled() == []


def test_a_waiting_final_result_is_not_followed_by_another(killed: Post) -> None:
    task = claimed_task(killed, 7)
    ran(killed, task, WHOLE)
    document = written(killed, task, 2)
    killed.outbox.put(task, with_document(document, WHOLE.strip()))
    (kept,) = Spool(killed.state).load()
    assert only_result(killed, 7).status == "succeeded"
    (request,) = killed.manager.requests
    assert request.headers["idempotency-key"] == kept.idempotency_key


def test_recovered_tasks_are_counted_and_shown(killed: Post) -> None:
    claimed_task(killed, 7)
    killed.journal.sync()
    metrics = Metrics()
    recover(Ledger(killed.state), killed.outbox, metrics, 1)
    assert metrics.outcomes == Counter({("iperf_client_run", "failed", "interrupted"): 1})
    (shown,) = metrics.results
    assert (shown.task_id, shown.message) == (7, INTERRUPTED)


def test_a_result_that_was_settled_before_the_kill_is_not_sent_again(killed: Post) -> None:
    task = claimed_task(killed, 7)
    killed.outbox.put(task, Outcome("succeeded", Report(), answer={"killed": True}))
    killed.journal.mark_delivered(task, is_final=True)
    later = restarted(killed)
    assert later.outbox.flush(10)
    assert later.files() == []
    assert not sent(killed.manager, 7)


@pytest.mark.parametrize("final", [True, False])
def test_a_result_delivered_while_the_disk_was_full_is_not_sent_again(
    killed: Post, final: bool
) -> None:
    """The disk is full during the delivery, and the agent is killed before it has space again."""
    task = claimed_task(killed, 7, "iperf_client_run" if final else "iperf_server_start")
    outcome = with_document(killed.state.children / "7.1.json", WHOLE.strip())
    killed.outbox.put(task, msgspec.structs.replace(outcome, final=final))
    until((killed.state.outbox / "000000001.result").exists)
    killed.journal.sync()
    in_the_way = killed.state.path / "journal.new"
    in_the_way.mkdir()
    delivering = restarted(killed)
    assert delivering.outbox.flush(10)
    # What the end of a server would add has no document, of which the Manager has one.
    told = 1
    assert len(sent(killed.manager, 7)) == told
    settled = [f"{number:09d}.settled" for number in ((1,) if final else (1, 2))]
    assert sorted(file.name for file in killed.state.outbox.iterdir()) == settled
    in_the_way.rmdir()
    killed.state.trouble = ""
    later = restarted(killed)
    assert later.outbox.flush(10)
    assert len(sent(killed.manager, 7)) == told
    later.ledger.mend()
    assert list(killed.state.outbox.iterdir()) == []
    assert later.journal.unsettled() == Journal(killed.state).unsettled() == []


@pytest.mark.process
def test_a_child_that_still_runs_is_stopped_before_its_output_is_read(killed: Post) -> None:
    task = claimed_task(killed, 7)
    with capture_logs() as logs, subprocess.Popen(["sleep", "60"]) as child:
        ran(killed, task, CUT_SHORT, child.pid)
        assert only_result(killed, 7).status == "failed"
        with gevent.Timeout(5):
            assert child.wait() == -15
    (said,) = [line for line in logs if line.get("pid") == child.pid]
    assert said["task_id"] == 7


def test_a_large_result_waits_while_a_client_test_runs(
    killed: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "LARGE_RESULT", 1000)
    monkeypatch.setattr(queue_module, "LARGE_RESULT_LOOK", 0.02)
    registry, outbox = killed.registry, killed.outbox
    outbox.start()
    running = registry.enter(claimed(1))
    running.record_start(77)
    killed.put(7, with_document(killed.state.children / "7.json", WHOLE.strip()))
    killed.put(8, with_document(killed.state.children / "8.json", b'{"end": {}}'))
    killed.manager.wait_for(lambda: sent(killed.manager, 8))
    for _ in range(3):
        killed.client.send_heartbeat("10.0.0.1", [])
        gevent.sleep(0.1)
    assert not sent(killed.manager, 7)
    running.record_end()
    killed.manager.wait_for(lambda: sent(killed.manager, 7))


def test_a_large_result_waits_only_for_a_while(
    killed: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "LARGE_RESULT", 1000)
    monkeypatch.setattr(queue_module, "LARGE_RESULT_LOOK", 0.02)
    monkeypatch.setattr(delivery_module, "LARGE_RESULT_WAITS", 0.5)
    killed.outbox.start()
    killed.registry.enter(claimed(1)).record_start(77)
    killed.put(7, with_document(killed.state.children / "7.json", WHOLE.strip()))
    (message,) = killed.outbox.messages()
    assert time.monotonic() - message.born < 0.5 and not sent(killed.manager, 7)
    killed.manager.wait_for(lambda: sent(killed.manager, 7))


def test_a_large_result_does_not_wait_when_the_agent_ends(
    killed: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "LARGE_RESULT", 1000)
    killed.outbox.start()
    killed.registry.enter(claimed(1)).record_start(77)
    killed.put(7, with_document(killed.state.children / "7.json", WHOLE.strip()))
    assert killed.outbox.flush(5)


def test_a_large_result_that_waits_for_a_test_is_not_sent_after_a_stop(
    killed: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "LARGE_RESULT", 1000)
    killed.outbox.start()
    killed.registry.enter(claimed(1)).record_start(77)
    killed.put(7, with_document(killed.state.children / "7.json", WHOLE.strip()))
    killed.outbox.stop()
    for _ in range(11):
        killed.client.send_heartbeat("10.0.0.1", [])
    assert not sent(killed.manager, 7)
    assert len(killed.outbox) == 1
