"""All that the dev Manager knows and decides; HTTP is only a way to call it."""

from datetime import datetime
from pathlib import Path

from agent.dev.store.agents import Agents
from agent.dev.store.database import Database
from agent.dev.store.exercises import Exercises
from agent.dev.store.tasks import Tasks


class Store(Database):
    """The agents, the tasks and the exercises. No method yields to the hub but those that wait.

    `extensions=False` behaves like today's Manager: docs/protocol.md says how. `state_file` keeps
    everything over a restart. It is written whole at each change: enough for a bench, too slow for
    a thousand large results.
    """

    def __init__(self, extensions: bool = True, state_file: Path | None = None) -> None:
        """Raises ConfigError when the state file exists but cannot be used."""
        super().__init__(state_file, extensions)
        self.agents = Agents(self)
        self.tasks = Tasks(self, self.agents)
        self.exercises = Exercises(self, self.agents, self.tasks)

    def sweep(self, now: datetime) -> None:
        """What the Manager does by itself, every second or so; raises StateUnwritable."""
        self.agents.mark_offline(now)
        self.tasks.time_out(now)
        self.exercises.go_on(now)
        self.save()
