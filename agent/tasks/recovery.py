"""What the agent's previous run left: children, results, and tasks without an outcome."""

import structlog
from msgspec.structs import replace

from agent import __version__
from agent.errors import ErrorClass, StateUnusable
from agent.files import discard
from agent.iperf3.argv import with_argv
from agent.metrics import Metrics
from agent.outbox.queue import Outbox
from agent.process.identity import stop_orphan
from agent.protocol import Outcome, Report
from agent.state.directory import StateDirectory
from agent.state.journal import TaskRecord
from agent.state.ledger import Ledger
from agent.tasks.client_output import figures_in, newest_measured
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
        identity = record.child.identity if record.child else None
        say = log.bind(task_id=record.claimed.task.id)
        if identity and stop_orphan(identity, grace):
            say.warning("a child of the previous run was stopped", pid=identity.pid)
        outcome = _outcome(ledger.state, record)
        if figures := ledger.state.run(figures_in, outcome.document):
            figures = with_argv(figures, outcome.report.argv)
        outcome = replace(outcome, figures=figures)
        error = outcome.stderr or outcome.report.ended
        say.warning("a task of the previous run", status=outcome.status, error=error)
        outbox.put(record.claimed, outcome)
        metrics.count_outcome(record.claimed.task, outcome)


def _outcome(state: StateDirectory, record: TaskRecord) -> Outcome:
    report = record.child.report if record.child else Report(version=__version__)
    is_server = record.claimed.task.type == "iperf_server_start"
    if is_server:
        # One that was reported to listen stays a success.
        is_success = record.reported
        document = state.run(newest_served, server_output(state.children, record.claimed))
    else:
        document, is_success = newest_measured(state, record.claimed, report)
    if not is_success:
        report.error_class = ErrorClass.INTERRUPTED
        return Outcome("failed", report, exit_code=1, stderr=INTERRUPTED, document=document)
    if is_server:
        report.ended = INTERRUPTED
    answer: dict[str, bool | int] = {} if document else {"started": True}
    return Outcome("succeeded", report, answer=answer, document=document)


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
