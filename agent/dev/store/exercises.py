"""The exercises and their tests."""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from agent.dev.errors import conflict
from agent.dev.store import records
from agent.dev.store.agents import Agents
from agent.dev.store.database import Database, find, matching
from agent.dev.store.records import Exercise, ManagedTask, NewTest, Seconds, Test, Text
from agent.dev.store.tasks import Tasks
from agent.protocol import FINAL_STATUSES

# The Manager's own: there server and client become pending at the same moment on two agents.
CLIENT_DELAY_SECONDS = 2
# From a server's claim to its client, if nobody says that it listens: ours says so within 10 s, or
# that it failed, while an agent of another make may be silent until its server has ended.
SERVER_PATIENCE = timedelta(seconds=20)


class Exercises:
    """The exercises by id, and the tests by theirs."""

    def __init__(self, database: Database, agents: Agents, tasks: Tasks) -> None:
        self._database = database
        self._agents = agents
        self._tasks = tasks
        self._exercises = database.state.exercises
        self._tests = database.state.tests

    def create(
        self, name: Text, duration_seconds: Seconds = 30, notes: str | None = None
    ) -> Exercise:
        """A new exercise without tests; `duration_seconds` is their default length."""
        exercise_id = len(self._exercises) + 1
        exercise = Exercise(exercise_id, name, duration_seconds, notes, records.utc_now())
        self._exercises[exercise_id] = exercise
        return self._database.commit(exercise)

    def get(self, exercise_id: int) -> Exercise:
        """The exercise with that id; raises Refused."""
        return find(self._exercises, exercise_id, "exercise")

    def all(self) -> list[Exercise]:
        """The exercises by id."""
        return list(self._exercises.values())

    def test(self, test_id: int) -> Test:
        """The test with that id; raises Refused."""
        return find(self._tests, test_id, "test")

    def tests(self, exercise_id: int | None = None) -> list[Test]:
        """The tests by id, of one exercise if one is given."""
        return matching(self._tests, exercise_id=exercise_id)

    def tasks(self, exercise_id: int) -> list[ManagedTask]:
        """The tasks of an exercise's tests, without its `kill_all` tasks."""
        return [
            self._tasks.get(task_id)
            for test in self.tests(exercise_id)
            for task_id in (test.server_task_id, test.client_task_id)
        ]

    def reserving(self) -> list[Test]:
        """The tests that have their server's port to themselves: their exercises have not ended."""
        return [test for test in self.tests() if not self.get(test.exercise_id).ended_at]

    def server_address(self, agent_id: int, port: int) -> str:
        """The address for a server at that port; raises Refused if there is none."""
        agent = self._agents.get(agent_id)
        if agent.ip_address is None:
            words = f"{agent.name!r} has never registered. Start it with this Manager's URL,"
            raise conflict(f"{words} AGENT_NAME={agent.name} and its key", "server_agent_id")
        for test in self.reserving():
            if (test.server_agent_id, test.server_port) == (agent_id, port):
                words = f"port {port} of {agent.name!r} is reserved by test {test.id}"
                raise conflict(words, "server_port")
        return agent.ip_address

    def add_test(
        self,
        exercise_id: int,
        server_agent_id: int,
        client_agent_id: int,
        server_port: records.Port,
        udp: bool = False,
        parallel: records.Parallel = 1,
        time_seconds: Seconds | None = None,
        options: dict[str, Any] | None = None,
    ) -> NewTest:
        """Add a test. Its tasks stay queued until the exercise is started, or started again.

        Without `time_seconds` it takes as long as the exercise says. `options`, which only the dev
        Manager knows, are added to the client's payload. The server's port is reserved until the
        exercise ends. Raises Refused, also when the exercise has ended, the server never
        registered, or its port is reserved.
        """
        exercise = self._open_exercise(exercise_id)
        self._agents.get(client_agent_id)
        seconds = time_seconds or exercise.duration_seconds
        listen = {"port": server_port, "udp": udp}
        run = {
            "server_ip": self.server_address(server_agent_id, server_port),
            **listen,
            "parallel": parallel,
            "time": seconds,
            "client_delay_seconds": 0 if self._database.extensions else CLIENT_DELAY_SECONDS,
            **(options or {}),
        }
        server_task = self._tasks.stage(server_agent_id, records.SERVER_START, listen)
        client_task = self._tasks.stage(client_agent_id, records.CLIENT_RUN, run)
        ids = len(self._tests) + 1, exercise_id, server_task.id, client_task.id
        test = Test(*ids, server_agent_id, client_agent_id, server_port, udp, parallel, seconds)
        self._tests[test.id] = test
        return self._database.commit(NewTest(test, server_task, client_task))

    def start(self, exercise_id: int) -> Exercise:
        """Make queued tasks pending: with extensions those of servers, which clients follow.

        Raises Refused, also when the exercise has ended.
        """
        exercise = self._open_exercise(exercise_id)
        exercise.started_at = exercise.started_at or records.utc_now()
        for task in self.tasks(exercise_id):
            at_once = task.type == records.SERVER_START or not self._database.extensions
            if task.status == "queued" and at_once:
                self._tasks.stage_release(task)
        return self._database.commit(exercise)

    def stop(self, exercise_id: int) -> list[ManagedTask]:
        """End an exercise, again if it had ended; returns its `kill_all`s. Raises Refused."""
        return self._database.commit(self._end(self.get(exercise_id)))

    def go_on(self, now: datetime) -> None:
        """Let clients follow their servers, and end the exercises that are done.

        With extensions they are when all clients have ended: a server may never report.
        """
        for exercise in [each for each in self.all() if each.is_under_way]:
            tasks = self.tasks(exercise.id)
            if self._database.extensions:
                for server, client in zip(tasks[::2], tasks[1::2]):
                    self._follow(server, client, now)
                tasks = tasks[1::2]
            if tasks and all(task.status in FINAL_STATUSES for task in tasks):
                self._end(exercise)
                self._database.touch()

    def _follow(self, server: ManagedTask, client: ManagedTask, now: datetime) -> None:
        """Release a client whose server listens, and cancel one whose server does not run."""
        has_reported = server.status in FINAL_STATUSES
        is_silent = server.accepted_at and now - server.accepted_at > SERVER_PATIENCE
        if client.status != "queued" or not (has_reported or is_silent):
            return
        if has_reported and server.status != "succeeded":
            self._tasks.stage_cancel(client)
            client.error = f"server task {server.status}: {server.error or 'no reason given'}"
        else:
            self._tasks.stage_release(client)
        self._database.touch()

    def _open_exercise(self, exercise_id: int) -> Exercise:
        exercise = self.get(exercise_id)
        if exercise.ended_at:
            raise conflict(f"exercise {exercise_id} has ended")
        return exercise

    def _end(self, exercise: Exercise) -> list[ManagedTask]:
        """Release the ports, and tell the agents that took part to stop what they run of it."""
        exercise.ended_at = exercise.ended_at or records.utc_now()
        task_ids: defaultdict[int, list[int]] = defaultdict(list)
        for task in self.tasks(exercise.id):
            if self._database.extensions and task.status in ("queued", "pending"):
                self._tasks.stage_cancel(task)
            task_ids[task.agent_id].append(task.id)
        kills = []
        for agent_id in sorted(task_ids):
            scope = {"task_ids": task_ids[agent_id]} if self._database.extensions else {}
            kills.append(self._tasks.stage(agent_id, records.KILL_ALL, scope))
            self._tasks.stage_release(kills[-1])
        return kills
