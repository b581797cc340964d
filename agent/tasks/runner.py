"""From a claimed task to its outcomes, whatever happens: one greenlet for each task."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import structlog

from agent.errors import ErrorClass, TaskError, class_of
from agent.protocol import PAYLOADS, Claimed, KillAllPayload, Outcome, read_payload, unknown_keys
from agent.registry import KILLED, REPLACED, Entry
from agent.tasks.client import run_client
from agent.tasks.context import TaskContext
from agent.tasks.server import run_server
from agent.text import shortened

# Characters of a type, and of the names of keys, that nobody knows.
TYPE_SHOWN, NAMES_SHOWN = 80, 200

log = structlog.get_logger()


@dataclass
class TaskRunner:
    """Runs tasks. `spawn` starts a greenlet; the agent stops if it ends with an exception."""

    context: TaskContext
    spawn: Callable[..., object]

    def accept(self, claimed: Claimed) -> None:
        """Start a task, and return at once; outcomes go to the outbox.

        An earlier task of its number is stopped: at the Manager there is only the new one.
        """
        registry = self.context.registry
        for entry in registry.entries():
            if entry.task.id == claimed.task.id:
                entry.stop.order(*REPLACED)
        self.spawn(self._run, registry.enter(claimed))

    def _run(self, entry: Entry) -> None:
        """Put every outcome into the outbox; there is at least one."""
        structlog.contextvars.bind_contextvars(task_id=entry.task.id)
        log.info("task claimed", type=shortened(entry.task.type, TYPE_SHOWN))
        listens = is_final = False
        try:
            for outcome in self._perform(entry):
                is_final = outcome.final
                self._put(entry, outcome)
                listens = not outcome.final
        except TaskError as error:
            log.warning("task failed", error_class=error.error_class, error=str(error))
            self._put(entry, self._broken_off(error, listens))
        except OSError as error:
            # Not a bug: a disk fails, or the host has no free descriptor.
            log.error("task broken off", error=str(error))
            words = f"broken off, as this agent's host had an error: {error}"
            self._put(entry, self._broken_off(TaskError(class_of(error), words), listens))
        except Exception:
            if is_final:
                # It may be on the disk: the next start finds it, or reports the task.
                raise
            bug = TaskError(ErrorClass.OTHER, "a bug in the agent: its log has the traceback")
            self._put(entry, self._broken_off(bug, listens))
            raise
        finally:
            self.context.registry.leave(entry)

    def _broken_off(self, error: TaskError, listens: bool) -> Outcome:
        """The last outcome of a task that went wrong; a server that listened stays a success."""
        report = self.context.new_report()
        report.stopped = error.is_wanted
        if listens:
            report.ended = str(error)
            return Outcome("succeeded", report, answer={"started": True})
        report.error_class = error.error_class
        return Outcome("failed", report, exit_code=1, stderr=str(error))

    def _put(self, entry: Entry, outcome: Outcome) -> None:
        known = PAYLOADS.get(entry.task.type)
        if known and (unknown := unknown_keys(entry.task.payload, known)):
            names = shortened(", ".join(unknown), NAMES_SHOWN)
            words = f"payload keys that this agent does not know had no effect: {names}"
            outcome.report.warnings = [words, *outcome.report.warnings]
        self.context.outbox.put(entry.claimed, outcome)
        self.context.metrics.count_outcome(entry.task, outcome, time.monotonic() - entry.entered)

    def _perform(self, entry: Entry) -> Iterator[Outcome]:
        """The outcomes of a task, as they come; raises TaskError for one that cannot run."""
        self._check(entry)
        if unknown := unknown_keys(entry.task.payload, PAYLOADS[entry.task.type]):
            log.warning("payload keys that this agent does not know are ignored", keys=unknown)
        if entry.kind is None:
            return self._kill_all(entry)
        return (run_server if entry.kind == "server" else run_client)(self.context, entry)

    def _kill_all(self, entry: Entry) -> Iterator[Outcome]:
        """Stop earlier tasks, those that it names if it names any.

        Yield once they are gone and their outcomes are in the outbox; raises TaskError.
        """
        task_ids = read_payload(entry.task.payload, KillAllPayload).task_ids
        others = self.context.registry.claimed_before(entry)
        if task_ids is not msgspec.UNSET:
            # There may be a hundred thousand, so each of them is looked at once.
            named = {other.task.id for other in others}.intersection(task_ids)
            others = [other for other in others if other.task.id in named]
        for other in others:
            other.stop.order(*KILLED)
        for other in others:
            other.gone.wait()
        log.info("all killed", count=len(others))
        answer = {"killed": True, "count": len(others)}
        yield Outcome("succeeded", self.context.new_report(), answer=answer)

    def _check(self, entry: Entry) -> None:
        """Raise TaskError for a task that this agent cannot take now; a `kill_all` it can."""
        if entry.task.type not in PAYLOADS:
            known = ", ".join(PAYLOADS)
            given = shortened(entry.task.type, TYPE_SHOWN)
            words = f"unknown task type {given!r}: this agent runs {known}"
            raise TaskError(ErrorClass.UNSUPPORTED, words)
        if entry.task.unreadable:
            raise TaskError(ErrorClass.BAD_PAYLOAD, entry.task.unreadable)
        if entry.kind is None:
            return
        state = self.context.state
        if state.trouble:
            words = f"this agent's state directory {state.path} cannot be written: {state.trouble}"
            words += "; mend that, and it takes tests again by itself"
            raise TaskError(ErrorClass.STATE_FULL, words)
        most = self.context.config.max_tasks
        if len(self.context.registry.claimed_before(entry)) >= most:
            words = f"this agent runs {most} tasks already (MAX_TASKS)"
            raise TaskError(ErrorClass.TOO_MANY, words)
