"""The store's last chapter: exercises, and what the Manager does by itself."""

from datetime import datetime
from typing import Any

from agent.dev.errors import Conflict
from agent.dev.store.records import (
    CLIENT_RUN,
    KILL_ALL,
    SERVER_START,
    Exercise,
    NewTest,
    StoredTask,
    Test,
    utc_now,
)
from agent.dev.store.saved import find
from agent.dev.store.tasks import TaskBook
from agent.protocol import FINAL_STATUSES

# As the Manager's: server and client become pending at the same moment on two agents.
CLIENT_DELAY_SECONDS = 2


class Store(TaskBook):
    """All that the dev Manager knows and decides; HTTP is only a way to call it.

    `extensions=False` plays the Manager of today: no long poll, no claim replay, no list of
    tasks to cancel. `state_file` keeps everything over a restart; the whole state is written
    at each change, so it is meant for a bench and not for a thousand large results. Raises
    ConfigError when the file is there and cannot be used.
    """

    def create_exercise(
        self, name: str, duration_seconds: int = 30, notes: str | None = None
    ) -> Exercise:
        """A new exercise without tests; `duration_seconds` is their default length."""
        exercise_id = len(self._state.exercises) + 1
        exercise = Exercise(exercise_id, name, duration_seconds, notes, utc_now())
        self._state.exercises[exercise_id] = exercise
        self._commit()
        return exercise

    def exercise(self, exercise_id: int) -> Exercise:
        """The exercise of that id; raises NotFound."""
        return find(self._state.exercises, exercise_id, "exercise")

    def exercises(self) -> list[Exercise]:
        """All exercises in the order of their ids."""
        return list(self._state.exercises.values())

    def test(self, test_id: int) -> Test:
        """The test of that id; raises NotFound."""
        return find(self._state.tests, test_id, "test")

    def tests(self, exercise_id: int | None = None) -> list[Test]:
        """The tests in the order of their ids, of one exercise if one is given."""
        return [
            test for test in self._state.tests.values() if exercise_id in (None, test.exercise_id)
        ]

    def exercise_tasks(self, exercise_id: int) -> list[StoredTask]:
        """The tasks of an exercise's tests; its `kill_all` tasks are not among them."""
        return [
            self.task(task_id)
            for test in self.tests(exercise_id)
            for task_id in (test.server_task_id, test.client_task_id)
        ]

    def add_test(
        self,
        exercise_id: int,
        server_agent_id: int,
        client_agent_id: int,
        server_port: int,
        udp: bool = False,
        parallel: int = 1,
        time_seconds: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> NewTest:
        """Add a test; its tasks are queued until the exercise is started, or started again.

        The server's port is reserved until the exercise ends. `options` (of the dev Manager
        alone) are merged into the client's payload. Raises NotFound, or Conflict when the
        exercise has ended, the server never registered, or its port is reserved.
        """
        exercise = self._open_exercise(exercise_id)
        self.agent(client_agent_id)
        server_ip = self._server_address(server_agent_id, server_port)
        seconds = time_seconds or exercise.duration_seconds
        listen = {"port": server_port, "udp": udp}
        run = {"server_ip": server_ip, **listen, "parallel": parallel, "time": seconds}
        run = {**run, "client_delay_seconds": CLIENT_DELAY_SECONDS, **(options or {})}
        server_task = self._new_task(server_agent_id, SERVER_START, listen)
        client_task = self._new_task(client_agent_id, CLIENT_RUN, run)
        test = Test(
            id=len(self._state.tests) + 1,
            exercise_id=exercise_id,
            server_agent_id=server_agent_id,
            client_agent_id=client_agent_id,
            server_port=server_port,
            udp=udp,
            parallel=parallel,
            time_seconds=seconds,
            server_task_id=server_task.id,
            client_task_id=client_task.id,
        )
        self._state.tests[test.id] = test
        self._commit()
        return NewTest(test, server_task, client_task)

    def start_exercise(self, exercise_id: int) -> Exercise:
        """Make queued tasks pending; raises NotFound, or Conflict when the exercise has ended."""
        exercise = self._open_exercise(exercise_id)
        exercise.started_at = exercise.started_at or utc_now()
        for task in self.exercise_tasks(exercise_id):
            if task.status == "queued":
                self._make_pending(task)
        self._commit()
        return exercise

    def stop_exercise(self, exercise_id: int) -> Exercise:
        """End an exercise, with a `kill_all` for each agent even if it had ended already.

        Tasks that no agent has claimed are canceled. Raises NotFound.
        """
        exercise = self.exercise(exercise_id)
        for task in self.exercise_tasks(exercise_id):
            if task.status in ("queued", "pending"):
                self._cancel(task)
        self._end(exercise, utc_now())
        self._commit()
        return exercise

    def sweep(self, now: datetime) -> None:
        """What the Manager does by itself, to be called every second or so.

        Marks silent agents offline and overdue tasks timed out, ends exercises that are done,
        and writes the state file if it is behind; raises StateUnwritable.
        """
        changes = [self._mark_offline(now), self._time_out(now), self._end_finished(now)]
        if any(changes):
            self._commit()
        self.save()

    def _open_exercise(self, exercise_id: int) -> Exercise:
        exercise = self.exercise(exercise_id)
        if exercise.ended_at:
            raise Conflict("exercise_ended", f"exercise {exercise_id} has ended")
        return exercise

    def _server_address(self, agent_id: int, port: int) -> str:
        agent = self.agent(agent_id)
        if agent.ip_address is None:
            raise Conflict("agent_not_registered", f"{agent.name!r} never gave its address")
        for test in self._state.tests.values():
            if (test.server_agent_id, test.server_port) == (agent_id, port):
                if not self.exercise(test.exercise_id).ended_at:
                    message = f"port {port} of {agent.name!r} is reserved by test {test.id}"
                    raise Conflict("port_reserved", message)
        return agent.ip_address

    def _end_finished(self, now: datetime) -> bool:
        """Whether an exercise was ended because all its tasks are."""
        finished = [exercise for exercise in self.exercises() if self._is_finished(exercise)]
        for exercise in finished:
            self._end(exercise, now)
        return bool(finished)

    def _is_finished(self, exercise: Exercise) -> bool:
        if not exercise.started_at or exercise.ended_at:
            return False
        tasks = self.exercise_tasks(exercise.id)
        return bool(tasks) and all(task.status in FINAL_STATUSES for task in tasks)

    def _end(self, exercise: Exercise, now: datetime) -> None:
        """Release the ports, and tell every agent that took part to stop what it runs."""
        exercise.ended_at = exercise.ended_at or now
        for agent_id in sorted({task.agent_id for task in self.exercise_tasks(exercise.id)}):
            self._make_pending(self._new_task(agent_id, KILL_ALL, {}))
