"""What a former life of the agent left: its children, its results, and tasks without an outcome."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from agent import __version__
from agent.error_classes import ErrorClass
from agent.errors import StateUnusable
from agent.iperf3 import verdict
from agent.iperf3.warnings import is_cut_short
from agent.metrics import Metrics
from agent.outbox.queue import Outbox
from agent.process.identity import stop_orphan
from agent.process.output import find_data, map_file
from agent.protocol import Document, Outcome, Report
from agent.state.directory import StateDirectory
from agent.state.journal import Journal, TaskRecord
from agent.state.ledger import Ledger
from agent.state.spool import Spool
from agent.tasks.client_output import newest_output, written_document
from agent.tasks.server import served_file, server_output

INTERRUPTED = "interrupted: the agent restarted"

log = structlog.get_logger()


def recover(ledger: Ledger, outbox: Outbox, metrics: Metrics, grace: float) -> None:
    """Put into the outbox what the Manager does not have yet, one outcome for each task.

    Children that are provably of the former life, and still run, are stopped first, each with
    `grace` seconds from TERM to KILL.
    """
    journal, spool, state = ledger.journal, ledger.spool, ledger.state
    _note_delivered(journal, spool)
    parcels = []
    for parcel in spool.load():
        if parcel.claimed.key in journal.settled_before:
            # It was settled, and the agent was killed before it could remove the file.
            with suppress(StateUnusable):
                spool.remove(parcel)
            continue
        parcels.append(parcel)
        outbox.restore(parcel)
    told = {parcel.claimed.key for parcel in parcels}
    ended = {parcel.claimed.key for parcel in parcels if parcel.outcome.final}
    for record in journal.unsettled():
        if record.claimed.key in ended:
            continue
        record.reported |= record.claimed.key in told
        _stop(record, grace)
        outcome = _outcome(state, record)
        log.warning(
            "a task of the agent's former life",
            task_id=record.claimed.task.id,
            status=outcome.status,
            error=outcome.stderr or outcome.report.ended,
        )
        outbox.put(record.claimed, outcome)
        metrics.reported(record.claimed.task, outcome)
    if not state.trouble:
        _clear(ledger)


def _note_delivered(journal: Journal, spool: Spool) -> None:
    """What the former life's journal had no room for; on a disk that is still full, in memory."""
    for parcel in spool.load_settled():
        note = journal.mark_settled if parcel.outcome.final else journal.mark_reported
        with suppress(StateUnusable):
            note(parcel.claimed)


def _stop(record: TaskRecord, grace: float) -> None:
    if record.child and record.child.identity and stop_orphan(record.child.identity, grace):
        log.warning(
            "a child of the agent's former life was stopped",
            task_id=record.claimed.task.id,
            pid=record.child.identity.pid,
        )


def _outcome(state: StateDirectory, record: TaskRecord) -> Outcome:
    report = record.child.report if record.child else Report(version=__version__)
    if record.claimed.task.type == "iperf_server_start":
        return _server_outcome(state, record, report)
    report.error_class = ErrorClass.INTERRUPTED
    failed = Outcome("failed", report, exit_code=1, stderr=INTERRUPTED)
    # Not the journal's last word: a short test can be over before its child is in there.
    newest = newest_output(state.children, record.claimed)
    if newest is None:
        return failed
    report.attempts, stdout = newest
    try:
        path = written_document(state, stdout)
    except StateUnusable as error:
        log.error("what a test left is lost", error=str(error))
        return failed
    with map_file(path) as output:
        judged = verdict.judge_client(0, output, "")
    if not judged.span:
        return failed
    document = Document(str(path), *judged.span)
    if judged.ok and judged.summary and not is_cut_short(judged.summary):
        report.error_class = None
        return Outcome("succeeded", report, document=document)
    return msgspec.structs.replace(failed, document=document)


def _server_outcome(state: StateDirectory, record: TaskRecord, report: Report) -> Outcome:
    """The newest document is repeated; what was reported a success stays one."""
    document = _newest_served(server_output(state.children, record.claimed))
    if not record.reported:
        report.error_class = ErrorClass.INTERRUPTED
        return Outcome("failed", report, exit_code=1, stderr=INTERRUPTED, document=document)
    report.ended = INTERRUPTED
    return Outcome(
        "succeeded", report, answer={} if document else {"started": True}, document=document
    )


def _newest_served(stdout: Path) -> Document | None:
    """The last document in the output, else the one that was taken out of it before."""
    if stdout.exists():
        # Before it is what was taken out.
        start = find_data(stdout)
        with map_file(stdout, start) as output:
            span = verdict.last_served(output).span
        if span:
            return Document(str(stdout), start + span[0], start + span[1])
    kept = served_file(stdout)
    return Document(str(kept), 0, kept.stat().st_size) if kept.exists() else None


def _clear(ledger: Ledger) -> None:
    """Remove what the children of the former life wrote: what was of use is in the outbox."""
    try:
        ledger.mend()
        for file in ledger.state.children.iterdir():
            ledger.state.run(os.unlink, file)
    except StateUnusable as error:
        log.error("old output of children stays", error=str(error))
