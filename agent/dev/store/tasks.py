"""The store's second chapter: tasks, from pending to reported."""

from collections import defaultdict, deque
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.dev.errors import NotFound, Refused
from agent.dev.store.agents import AgentBook
from agent.dev.store.records import (
    CLIENT_RUN,
    SERVER_START,
    ReportedResult,
    StoredTask,
    TaskStatus,
    utc_now,
)
from agent.dev.store.saved import find
from agent.protocol import FINAL_STATUSES

# As the Manager's: a client task is overdue this long after its test should have ended.
OVERDUE_SECONDS = 10
# iperf3's own default, for a payload that names none.
DEFAULT_TEST_SECONDS = 10


class TaskBook(AgentBook):
    """Tasks by id, and what agents and operators do to them."""

    def __init__(self, extensions: bool = True, state_file: Path | None = None) -> None:
        super().__init__(extensions, state_file)
        self._pending: defaultdict[int, deque[int]] = defaultdict(deque)
        for task in self._state.tasks.values():
            if task.status == "pending":
                self._pending[task.agent_id].append(task.id)

    def add_task(self, agent_id: int, task_type: str, payload: dict[str, Any]) -> StoredTask:
        """A pending task outside any exercise; raises NotFound for an unknown agent."""
        self.agent(agent_id)
        task = self._new_task(agent_id, task_type, payload)
        self._make_pending(task)
        self._commit()
        return task

    def task(self, task_id: int) -> StoredTask:
        """The task of that id; raises NotFound."""
        return find(self._state.tasks, task_id, "task")

    def tasks(
        self,
        agent_id: int | None = None,
        status: str | None = None,
        task_type: str | None = None,
    ) -> list[StoredTask]:
        """The tasks in the order of their ids, narrowed by whatever is given."""
        return [
            task
            for task in self._state.tasks.values()
            if agent_id in (None, task.agent_id)
            and status in (None, task.status)
            and task_type in (None, task.type)
        ]

    def cancel_task(self, task_id: int) -> StoredTask:
        """Cancel a task that has not ended; raises NotFound, or Refused when it has.

        The agent that holds it is told with its heartbeats until it reports the task.
        """
        task = self.task(task_id)
        if task.status in FINAL_STATUSES:
            raise _invalid_state(task)
        self._cancel(task)
        self._commit()
        return task

    def wait_for_task(self, agent_id: int, key: str | None, timeout: float) -> None:
        """Wait until a claim would be answered with a task or a refusal, or `timeout` seconds."""
        agent = self.agent(agent_id)
        self._arrivals[agent_id].wait_for(
            lambda: agent.disabled or self._next_task(agent_id, key), timeout
        )

    def claim(self, agent_id: int, key: str | None = None) -> StoredTask | None:
        """Hand out the agent's oldest pending task, or None; on disk when this returns.

        `key` is the Idempotency-Key: it gets the task again that it obtained before. Raises
        NotFound when the agent is disabled.
        """
        if self.agent(agent_id).disabled:
            raise NotFound("the agent is disabled")
        task = self._next_task(agent_id, key)
        if task is None or task.status != "pending":
            return task
        self._pending[agent_id].popleft()
        task.status = "accepted"
        task.accepted_at = utc_now()
        if self.extensions and key:
            self._state.claims.setdefault(agent_id, {})[key] = task.id
        self._commit()
        return task

    def started(self, agent_id: int, task_id: int) -> StoredTask:
        """An accepted task runs; raises Refused in any other status, `running` included."""
        task = self._task_of(agent_id, task_id)
        if task.status != "accepted":
            raise _invalid_state(task)
        task.status = "running"
        task.started_at = utc_now()
        self._commit()
        return task

    def report(self, agent_id: int, task_id: int, report: ReportedResult) -> StoredTask:
        """Take a task's result, on disk when this returns; raises Refused when it is not due.

        A server task that succeeded takes further results, which leave its status alone.
        """
        task = self._task_of(agent_id, task_id)
        further = task.type == SERVER_START and task.status == "succeeded"
        if not further and task.status not in ("accepted", "running", "timed_out"):
            self._forget_cancel(task)
            raise _invalid_state(task)
        task.result = report.result
        if not further:
            self._finish(task, report.status)
            task.error = report.stderr if report.status == "failed" else None
        self._commit()
        return task

    def _new_task(self, agent_id: int, task_type: str, payload: dict[str, Any]) -> StoredTask:
        task_id = len(self._state.tasks) + 1
        task = StoredTask(task_id, task_type, agent_id, "queued", payload, utc_now())
        self._state.tasks[task_id] = task
        return task

    def _make_pending(self, task: StoredTask) -> None:
        task.status = "pending"
        self._pending[task.agent_id].append(task.id)
        self._arrivals[task.agent_id].notify()

    def _next_task(self, agent_id: int, key: str | None) -> StoredTask | None:
        obtained = self._state.claims.get(agent_id, {}).get(key or "")
        if self.extensions and obtained is not None:
            return self.task(obtained)
        pending = self._pending[agent_id]
        return self.task(pending[0]) if pending else None

    def _task_of(self, agent_id: int, task_id: int) -> StoredTask:
        if self.agent(agent_id).disabled:
            raise NotFound("the agent is disabled")
        task = self._state.tasks.get(task_id)
        if task is None or task.agent_id != agent_id:
            raise Refused("task_not_found", f"task {task_id} is not a task of this agent")
        return task

    def _finish(self, task: StoredTask, status: TaskStatus) -> None:
        task.status = status
        task.finished_at = utc_now()

    def _cancel(self, task: StoredTask) -> None:
        if task.status == "pending":
            self._pending[task.agent_id].remove(task.id)
        elif task.status != "queued":
            self._state.cancels.setdefault(task.agent_id, []).append(task.id)
        self._finish(task, "canceled")

    def _forget_cancel(self, task: StoredTask) -> None:
        cancels = self._state.cancels.get(task.agent_id, [])
        if task.id in cancels:
            cancels.remove(task.id)
            self._commit()

    def _time_out(self, now: datetime) -> bool:
        """Whether a client task that is overdue was marked."""
        overdue = [task for task in self.tasks(None, "running", CLIENT_RUN) if _overdue(task, now)]
        for task in overdue:
            self._finish(task, "timed_out")
        return bool(overdue)


def _overdue(task: StoredTask, now: datetime) -> bool:
    seconds = task.payload.get("time")
    if not isinstance(seconds, int | float):
        seconds = DEFAULT_TEST_SECONDS
    running = now - (task.started_at or now)
    return running.total_seconds() > seconds + OVERDUE_SECONDS


def _invalid_state(task: StoredTask) -> Refused:
    message = f"task {task.id} is {task.status}"
    return Refused("invalid_task_state", message, current_status=task.status)
