"""What the agent's previous run left: children, results, and tasks without an outcome."""

import os

import structlog

from agent import __version__
from agent.error_classes import ErrorClass
from agent.errors import StateUnusable
from agent.iperf3.warnings import is_cut_short
from agent.metrics import Metrics
from agent.outbox.queue import Outbox
from agent.process.identity import stop_orphan
from agent.protocol import Document, Outcome, Report
from agent.state.directory import StateDirectory
from agent.state.journal import TaskRecord
from agent.state.ledger import Ledger
from agent.tasks.client_output import judge_output, newest_output
from agent.tasks.served import newest_served, server_output

INTERRUPTED = "interrupted: the agent restarted"

log = structlog.get_logger()


def recover(ledger: Ledger, outbox: Outbox, metrics: Metrics, grace: float) -> None:
    """Put into the outbox what the Manager does not have yet: one outcome for each task.

    Children of the previous run that still run are stopped first, each with `grace` seconds from
    TERM to KILL.
    """
    waiting = ledger.load_waiting()
    for parcel in waiting:
        outbox.restore(parcel)
    have_outcome = {parcel.claimed.key for parcel in waiting}
    have_ended = {parcel.claimed.key for parcel in waiting if parcel.outcome.final}
    for record in ledger.journal.unsettled():
        if record.claimed.key in have_ended:
            continue
        record.reported |= record.claimed.key in have_outcome
        identity = record.child and record.child.identity
        task_id = record.claimed.task.id
        if identity and stop_orphan(identity, grace):
            log.warning(
                "a child of the previous run was stopped", task_id=task_id, pid=identity.pid
            )
        outcome = _outcome(ledger.state, record)
        log.warning(
            "a task of the previous run",
            task_id=task_id,
            status=outcome.status,
            error=outcome.stderr or outcome.report.ended,
        )
        outbox.put(record.claimed, outcome)
        metrics.count_outcome(record.claimed.task, outcome)
    if not ledger.state.trouble:
        _clear(ledger)


def _outcome(state: StateDirectory, record: TaskRecord) -> Outcome:
    report = record.child.report if record.child else Report(version=__version__)
    if record.claimed.task.type == "iperf_server_start":
        return _server_outcome(state, record, report)
    # The journal may lack the last child: a short test can end before it is written there.
    newest = newest_output(state.children, record.claimed)
    if newest is None:
        return _interrupted(report)
    report.attempts, stdout = newest
    try:
        judged, path = judge_output(state, stdout, exit_code=0, stderr="")
    except StateUnusable as error:
        log.error("the output of a test is lost", error=str(error))
        return _interrupted(report)
    document = Document(str(path), *judged.span) if judged.span else None
    if judged.ok and judged.summary and not is_cut_short(judged.summary):
        return Outcome("succeeded", report, document=document)
    return _interrupted(report, document)


def _server_outcome(state: StateDirectory, record: TaskRecord, report: Report) -> Outcome:
    """Its newest document; a server that was reported to listen stays a success."""
    document = newest_served(server_output(state.children, record.claimed))
    if not record.reported:
        return _interrupted(report, document)
    report.ended = INTERRUPTED
    return Outcome(
        "succeeded", report, answer={} if document else {"started": True}, document=document
    )


def _interrupted(report: Report, document: Document | None = None) -> Outcome:
    report.error_class = ErrorClass.INTERRUPTED
    return Outcome("failed", report, exit_code=1, stderr=INTERRUPTED, document=document)


def _clear(ledger: Ledger) -> None:
    """Remove what the children of the previous run wrote: what is of use is in the outbox."""
    try:
        ledger.mend()
        for file in ledger.state.children.iterdir():
            ledger.state.run(os.unlink, file)
    except StateUnusable as error:
        log.error("old output of children cannot be removed", error=str(error))
