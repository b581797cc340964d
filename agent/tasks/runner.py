"""From a claimed task to its outcomes, whatever happens: one greenlet a task."""

import time
from collections.abc import Callable, Iterator

import structlog

from agent.error_classes import ErrorClass
from agent.errors import TaskError
from agent.protocol import TASK_TYPES, Claimed, ClientPayload, Outcome, ServerPayload, unknown_keys
from agent.registry import Entry
from agent.tasks.client import run_client
from agent.tasks.context import TaskContext, failed
from agent.tasks.server import run_server

log = structlog.get_logger()


class TaskRunner:
    """Runs tasks. `spawn` starts a greenlet whose unforeseen end stops the agent."""

    def __init__(self, context: TaskContext, spawn: Callable[..., object]) -> None:
        self._context = context
        self._spawn = spawn

    def has(self, task_id: int) -> bool:
        """Whether a task of that id is in hand."""
        return task_id in self._context.registry

    def accept(self, claimed: Claimed) -> None:
        """Take a task that is not in hand and return at once; its outcome goes to the outbox."""
        self._spawn(self._run, self._context.registry.enter(claimed))

    def _run(self, entry: Entry) -> None:
        structlog.contextvars.bind_contextvars(task_id=entry.task.id)
        log.info("task claimed", type=entry.task.type)
        try:
            self._report_all(entry)
        finally:
            self._context.registry.leave(entry)

    def _report_all(self, entry: Entry) -> None:
        """Put every outcome into the outbox; there is at least one."""
        listens = False
        try:
            for outcome in self._perform(entry):
                self._put(entry, outcome)
                listens = not outcome.final
        except TaskError as error:
            log.warning("task failed", error_class=error.error_class, error=str(error))
            self._put(entry, self._broken_off(error, listens))
        except OSError as error:
            # No bug: a disk that fails, or a host without a descriptor to spare.
            log.error("task broken off", error=str(error))
            words = f"broken off, as this agent's host had an error: {error}"
            self._put(entry, self._broken_off(TaskError(ErrorClass.STATE_FULL, words), listens))
        except Exception:
            bug = TaskError(ErrorClass.OTHER, "a bug in the agent: its log has the traceback")
            self._put(entry, self._broken_off(bug, listens))
            raise

    def _broken_off(self, error: TaskError, listens: bool) -> Outcome:
        """The last outcome of a task that went wrong; a server that listened stays a success."""
        report = self._context.report()
        if not listens:
            return failed(report, error)
        report.ended = str(error)
        return Outcome("succeeded", report, answer={"started": True})

    def _put(self, entry: Entry, outcome: Outcome) -> None:
        """Hand an outcome over, and count it."""
        self._context.outbox.put(entry.claimed, outcome)
        self._context.metrics.reported(entry.task, outcome, time.monotonic() - entry.entered)

    def _perform(self, entry: Entry) -> Iterator[Outcome]:
        task_type = entry.task.type
        if task_type == "kill_all":
            return self._kill_all(entry)
        if task_type not in TASK_TYPES:
            known = ", ".join(TASK_TYPES)
            words = f"unknown task type {task_type!r}: this agent runs {known}"
            raise TaskError(ErrorClass.UNSUPPORTED, words)
        if entry.task.unreadable:
            raise TaskError(ErrorClass.BAD_PAYLOAD, entry.task.unreadable)
        if self._context.state.trouble:
            words = f"this agent's state directory {self._context.state.path} cannot be written"
            advice = "mend that, and it takes tests again by itself"
            raise TaskError(
                ErrorClass.STATE_FULL, f"{words}: {self._context.state.trouble}; {advice}"
            )
        most = self._context.config.max_tasks
        if self._context.registry.count_starts() > most:
            raise TaskError(
                ErrorClass.TOO_MANY, f"this agent runs {most} tasks already (MAX_TASKS)"
            )
        if task_type == "iperf_server_start":
            _note_unknown_keys(entry, ServerPayload)
            return run_server(self._context, entry)
        _note_unknown_keys(entry, ClientPayload)
        return run_client(self._context, entry)

    def _kill_all(self, entry: Entry) -> Iterator[Outcome]:
        """End every task claimed before; report when they are gone, outcomes and all."""
        others = self._context.registry.claimed_before(entry)
        for other in others:
            other.stop.order(ErrorClass.KILLED, "stopped by kill_all")
        for other in others:
            other.gone.wait()
        log.info("all killed", count=len(others))
        answer: dict[str, bool | int] = {"killed": True, "count": len(others)}
        yield Outcome("succeeded", self._context.report(), answer=answer)


def _note_unknown_keys(entry: Entry, kind: type[ServerPayload] | type[ClientPayload]) -> None:
    if unknown := unknown_keys(entry.task.payload, kind):
        log.warning("payload keys that this agent does not know are ignored", keys=unknown)
