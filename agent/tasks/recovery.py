"""What the agent's previous run left: children, results, and tasks without an outcome."""

import msgspec
import structlog

from agent import __version__
from agent.error_classes import ErrorClass
from agent.errors import StateUnusable
from agent.files import Whose, discard, whose
from agent.iperf3.verdict import last_served
from agent.iperf3.warnings import is_cut_short
from agent.metrics import Metrics
from agent.outbox.queue import Outbox
from agent.process.identity import stop_orphan
from agent.process.output import view_of
from agent.protocol import Document, Figures, Outcome, Report
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
    TERM to KILL. What cannot be read now is left for the next call. Raises StateUnusable.
    """
    for message in ledger.load_waiting():
        outbox.enqueue(message)
    for record in ledger.interrupted():
        identity = record.child and record.child.identity
        task_id = record.claimed.task.id
        if identity and stop_orphan(identity, grace):
            log.warning(
                "a child of the previous run was stopped", task_id=task_id, pid=identity.pid
            )
        outcome = _outcome(ledger.state, record)
        figures = ledger.state.run(_figures, outcome.document)
        outcome = msgspec.structs.replace(outcome, figures=figures)
        log.warning(
            "a task of the previous run",
            task_id=task_id,
            status=outcome.status,
            error=outcome.stderr or outcome.report.ended,
        )
        outbox.put(record.claimed, outcome)
        metrics.count_outcome(record.claimed.task, outcome)


def _outcome(state: StateDirectory, record: TaskRecord) -> Outcome:
    report = record.child.report if record.child else Report(version=__version__)
    is_server = record.claimed.task.type == "iperf_server_start"
    try:
        if not is_server:
            return _client_outcome(state, record, report)
        stdout = server_output(state.children, record.claimed)
        document = state.run(newest_served, stdout)
    except (OSError, StateUnusable) as error:
        if whose(error) is Whose.HOST:
            raise StateUnusable(str(error)) from error
        log.error("the output of a test is lost", error=str(error))
        document = None
    return _server_outcome(record, report, document) if is_server else _interrupted(report)


def _client_outcome(state: StateDirectory, record: TaskRecord, report: Report) -> Outcome:
    # The journal may lack the last child: a short test can end before it is written there.
    newest = state.run(newest_output, state.children, record.claimed)
    if newest is None:
        return _interrupted(report)
    report.attempts, stdout = newest
    judged, path = judge_output(state, stdout, exit_code=0, stderr="")
    document = Document(str(path), *judged.span) if judged.span else None
    if judged.ok and judged.summary and not is_cut_short(judged.summary):
        return Outcome("succeeded", report, document=document)
    return _interrupted(report, document)


def _server_outcome(record: TaskRecord, report: Report, document: Document | None) -> Outcome:
    """Its newest document; a server that was reported to listen stays a success."""
    if not record.reported:
        return _interrupted(report, document)
    report.ended = INTERRUPTED
    return Outcome(
        "succeeded", report, answer={} if document else {"started": True}, document=document
    )


def _interrupted(report: Report, document: Document | None = None) -> Outcome:
    report.error_class = ErrorClass.INTERRUPTED
    return Outcome("failed", report, exit_code=1, stderr=INTERRUPTED, document=document)


def _figures(document: Document | None) -> Figures | None:
    if document is None:
        return None
    try:
        view = view_of(document.path, document.start)
        return last_served(view[: document.end - document.start]).figures
    except OSError:
        return None


def clear_leftovers(ledger: Ledger) -> None:
    """Remove what the previous run left half done: what is of use is in the outbox.

    Call it before a child is started. All stays while something is unread or cannot be written.
    """
    if ledger.is_behind:
        return
    try:
        # Now, so that no claim waits while the file is written anew.
        ledger.journal.sync()
        ledger.state.write(ledger.spool.clear)
        ledger.state.run(lambda: discard(*ledger.state.children.iterdir()))
    except StateUnusable as error:
        log.error("old output of children cannot be removed", error=str(error))
