"""All that the dev Manager knows and decides; HTTP is only a way to call it."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from agent.dev.store.agents import Agents
from agent.dev.store.database import Database
from agent.dev.store.exercises import Exercises
from agent.dev.store.tasks import Tasks

_Value = TypeVar("_Value")


class Store:
    """The agents, the tasks and the exercises. No method yields to the hub but those that wait.

    `extensions=False` behaves like today's Manager: no long poll, no claim replay, no list of
    tasks to cancel, and each `kill_all` is for all tasks. `state_file` keeps everything over a
    restart. It is written whole at each change: enough for a bench, too slow for a thousand large
    results.
    """

    def __init__(self, extensions: bool = True, state_file: Path | None = None) -> None:
        """Raises ConfigError when the state file exists but cannot be used."""
        self.extensions = extensions
        self._database = Database(state_file)
        self.agents = Agents(self._database)
        self.tasks = Tasks(self._database, self.agents, extensions)
        self.exercises = Exercises(self._database, self.agents, self.tasks, extensions)

    def wait_for(self, predicate: Callable[[], _Value], timeout: float) -> _Value:
        """Wait until `predicate()` is true, for at most `timeout` seconds; its last value.

        It is called after every change, heartbeats included, and must not yield.
        """
        with self._database.changed:
            return self._database.changed.wait_for(predicate, timeout)

    def save(self) -> None:
        """Write the state file if there is one and it is out of date; raises StateUnwritable."""
        self._database.save()

    def sweep(self, now: datetime) -> None:
        """What the Manager does by itself, to be called every second or so.

        It marks silent agents offline and overdue tasks timed out, ends the exercises that are
        done, and writes the state file if it is out of date; raises StateUnwritable.
        """
        self.agents.mark_offline(now)
        self.tasks.time_out(now)
        self.exercises.end_finished(now)
        self.save()
