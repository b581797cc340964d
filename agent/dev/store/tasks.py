"""The tasks, from queued to reported."""

from datetime import datetime
from typing import Any, Literal

from gevent import Timeout
from msgspec import Raw

from agent.dev.errors import Refused, conflict, misfit
from agent.dev.store.agents import Agents
from agent.dev.store.database import Database, find, matching
from agent.dev.store.records import CLIENT_RUN, NULL, SERVER_START, ManagedTask, Text, utc_now
from agent.protocol import FINAL_STATUSES

# The Manager's own rule: a client task is overdue this long after its test should have ended, or
# a tenth of the test if that is longer. It does not count `omit`. With extensions we do: the end of
# a task may end its exercise, and so a test that runs.
OVERDUE_SECONDS = 30
# iperf3's default, for a payload without `time`.
DEFAULT_TEST_SECONDS = 10


class Tasks:
    """The tasks by id, and what agents and operators do with them.

    `stage`, `stage_release` and `stage_cancel` are steps of a change that their caller commits.
    """

    def __init__(self, database: Database, agents: Agents) -> None:
        self._database = database
        self._agents = agents
        self._tasks = database.state.tasks
        self._claims = database.state.claims
        self._cancels = database.state.cancels

    def add(self, agent_id: int, type: Text, payload: dict[str, Any] | None = None) -> ManagedTask:
        """Add a pending task outside any exercise; raises Refused for an unknown agent."""
        self._agents.get(agent_id)
        task = self.stage(agent_id, type, payload or {})
        self.stage_release(task)
        return self._database.commit(task)

    def get(self, task_id: int) -> ManagedTask:
        """The task with that id; raises Refused."""
        return find(self._tasks, task_id, "task")

    def find(
        self, agent_id: int | None = None, status: str | None = None, type: str | None = None
    ) -> list[ManagedTask]:
        """The tasks, the newest first, narrowed by what is given."""
        return matching(self._tasks, agent_id=agent_id, status=status, type=type)[::-1]

    def cancel(self, task_id: int) -> ManagedTask:
        """Cancel a task that has not ended; raises Refused, also when it has."""
        task = self.get(task_id)
        if task.status in FINAL_STATUSES:
            raise conflict(f"task {task_id} is {task.status}")
        self.stage_cancel(task)
        return self._database.commit(task)

    def canceled(self, agent_id: int) -> list[int]:
        """The canceled tasks that the agent has yet to report."""
        return self._cancels.get(agent_id, []) if self._database.extensions else []

    def wait_for_task(self, agent_id: int, key: str, timeout: float) -> None:
        """Wait until a claim would get a task or a refusal, for at most `timeout` seconds."""
        agent = self._agents.get(agent_id)
        wakeup = self._agents.wakeups[agent_id]
        with Timeout(timeout, False):
            while not (agent.disabled or self._next(agent_id, key)):
                wakeup.clear()
                wakeup.wait()

    def claim(self, agent_id: int, key: str = "") -> ManagedTask | None:
        """Hand out the agent's oldest pending task, or None; saved when this returns.

        `key` is the Idempotency-Key: one that obtained a task before gets it again. Raises
        Refused when the agent is disabled.
        """
        self._agents.enabled(agent_id)
        task = self._next(agent_id, key)
        if task is None or task.status != "pending":
            # Nothing is pending, or the claim is a replay.
            return task
        task.status = "accepted"
        task.accepted_at = utc_now()
        if key:
            self._claims.setdefault(agent_id, {})[key] = task.id
        return self._database.commit(task)

    def start(self, agent_id: int, task_id: int, pid: int | None = None) -> ManagedTask:
        """An accepted task now runs, with a `pid` that nobody asks for; else raises Refused."""
        task = self._task_of(agent_id, task_id)
        if task.status != "accepted":
            raise _invalid_state(task)
        task.status = "running"
        task.started_at = utc_now()
        return self._database.commit(task)

    def report(
        self,
        agent_id: int,
        task_id: int,
        status: Literal["succeeded", "failed"],
        result: Raw = NULL,
        stderr: str = "",
        exit_code: int = 0,
    ) -> ManagedTask:
        """Take a task's result, saved when this returns; raises Refused when none is expected.

        It is an object or null. A server task that succeeded takes further results, which leave its
        status alone. One that comes after `timed_out` is better than none, and replaces that
        status. Nobody asks for the `exit_code`.
        """
        if bytes(memoryview(result)[:1]) not in (b"{", b"n"):
            raise misfit("Expected `object | null` - at `$.result`")
        task = self._task_of(agent_id, task_id)
        further = task.type == SERVER_START and task.status == "succeeded"
        if not further and task.status not in ("accepted", "running", "timed_out"):
            # It is refused, but says that the agent has stopped the canceled task.
            if task.id in self._cancels.get(agent_id, []):
                self._cancels[agent_id].remove(task_id)
                self._database.commit(task)
            raise _invalid_state(task)
        task.result = result
        if not further:
            task.finish(status)
            task.error = stderr if status == "failed" else None
        return self._database.commit(task)

    def time_out(self, now: datetime) -> None:
        """Mark the client tasks that are overdue."""
        for task in self.find(status="running", type=CLIENT_RUN):
            seconds = seconds_of(task.payload.get("time"), DEFAULT_TEST_SECONDS)
            if self._database.extensions:
                seconds += seconds_of(task.payload.get("omit"), 0)
            running = now - (task.started_at or now)
            if running.total_seconds() > seconds + max(OVERDUE_SECONDS, seconds / 10):
                task.finish("timed_out")
                self._database.touch()

    def stage(self, agent_id: int, task_type: str, payload: dict[str, Any]) -> ManagedTask:
        """A queued task."""
        task_id = len(self._tasks) + 1
        task = ManagedTask(task_id, task_type, agent_id, "queued", payload, utc_now())
        self._tasks[task_id] = task
        return task

    def stage_release(self, task: ManagedTask) -> None:
        """Make a queued task pending."""
        task.status = "pending"
        self._agents.wakeups[task.agent_id].set()

    def stage_cancel(self, task: ManagedTask) -> None:
        """Cancel a task; heartbeats tell an agent that has it until the agent reports it."""
        if task.status not in ("queued", "pending"):
            self._cancels.setdefault(task.agent_id, []).append(task.id)
        task.finish("canceled")

    def _next(self, agent_id: int, key: str) -> ManagedTask | None:
        obtained = self._claims.get(agent_id, {}).get(key)
        if obtained is not None:
            return self.get(obtained)
        tasks = self._tasks.values()
        pending = (each for each in tasks if each.status == "pending" and each.agent_id == agent_id)
        return next(pending, None)

    def _task_of(self, agent_id: int, task_id: int) -> ManagedTask:
        self._agents.enabled(agent_id)
        task = self._tasks.get(task_id)
        if task is None or task.agent_id != agent_id:
            raise Refused(400, "task_not_found", f"this agent has no task {task_id}")
        return task


def seconds_of(value: object, default: float) -> float:
    """What a payload says, which may be anything; no test takes longer than a day."""
    return max(0, min(value, 86400)) if isinstance(value, int | float) else default


def _invalid_state(task: ManagedTask) -> Refused:
    message = f"task {task.id} is {task.status}"
    return Refused(400, "invalid_task_state", message, current_status=task.status)
