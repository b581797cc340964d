"""Lives of an agent that end with `kill -9`, at a call to the Manager or whenever it comes."""

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from agent.dev.errors import Refused
from agent.dev.store.agents import Agents
from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from agent.dev.store.tasks import Tasks
from agent.protocol import FINAL_STATUSES
from tests.support.harness import PATIENCE, Bench, until

# Seconds that a registered agent gets to come to the call at which it is to die.
LIFE = 1.5
# The same with no task to come to it with.
IDLE_LIFE = 0.3
# Three times what is promised.
CHILDREN_LIVE = 3.0


class WatchedStore(Store):
    """A Manager that counts what it accepts, and calls `committed` before it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: defaultdict[int, list[str]] = defaultdict(list)
        # The call, and of a result the error.
        self.committed: Callable[[str, str | None], None] = lambda call, error: None

        self._watch(self.agents, "register", "register")
        self._watch(self.tasks, "claim", "claim")
        self._watch(self.tasks, "start", "started")
        self._watch_results()

    def _watch_results(self) -> None:
        """A refusal, as of a result that it has already, is an answer as well."""
        take = self.tasks.report

        @wraps(take)
        def report(**sent: Any) -> ManagedTask:
            try:
                task = take(**sent)
            except Refused:
                self.committed("result again", None)
                raise
            self.accepted[task.id].append(sent["status"])
            self.committed("result", sent["stderr"])
            return task

        setattr(self.tasks, "report", report)

    def _watch(self, part: Agents | Tasks, method: str, call: str) -> None:
        """Have a method of the store tell `committed`, unless it returns None: an empty claim."""
        wrapped = getattr(part, method)

        @wraps(wrapped)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if answer := wrapped(*args, **kwargs):
                self.committed(call, None)
            return answer

        setattr(part, method, watched)


@dataclass(frozen=True)
class Moment:
    """When a life ends: `delay` seconds after the first `call` was committed, or if it comes to
    none LIFE seconds after its registration; without a call, `delay` seconds after its start."""

    call: str
    delay: float


def moments(dice: random.Random, kills: int) -> Iterator[Moment]:
    """A third of the kills come whenever they come, the others at a call or just behind it."""
    for _ in range(kills):
        call = dice.choice(["", "", "register", "claim", "claim", "started", "result"])
        if call:
            yield Moment(call, dice.choice([0, dice.uniform(0, 0.05)]))
        else:
            yield Moment(call, dice.uniform(0, LIFE))


class Life:
    """An agent process from its start to the kill."""

    def __init__(self, bench: Bench, moment: Moment) -> None:
        self.moment = moment
        self.agent = bench.agent(STOP_GRACE="1")
        self.began = time.monotonic()
        # What brought the end about, and the children that ran then.
        self.cause = ""
        self.children: set[int] = set()
        self._bench = bench
        self._registered = Event()
        self._over = Event()

    def run(self) -> None:
        """Return when the agent was killed."""
        if self.moment.call:
            assert self._registered.wait(PATIENCE), self.agent.lines
            self._over.wait(LIFE if self._busy() else IDLE_LIFE)
        else:
            self._over.wait(self.moment.delay)
        self._kill("time")
        assert self.agent.exit_code() == -signal.SIGKILL, self.agent.lines

    def committed(self, call: str) -> None:
        """The Manager has done what a call asked for, and has not answered yet."""
        if call == "register":
            self._registered.set()
        if not self.moment.call or self._over.is_set() or not call.startswith(self.moment.call):
            return
        if self.moment.delay:
            gevent.spawn_later(self.moment.delay, self._kill, f"behind {call}")
        else:
            self._kill(call)

    def seconds_until_alone(self) -> float:
        """How long the children outlived the agent; fails the test when they do not end."""
        began = time.monotonic()
        until(lambda: not processes_of(self._bench.directory), CHILDREN_LIVE)
        return time.monotonic() - began

    def _busy(self) -> bool:
        return any(task.status not in FINAL_STATUSES for task in self._bench.store.tasks.find())

    def _kill(self, cause: str) -> None:
        if not self._over.is_set():
            self._over.set()
            self.cause = cause
            self.children = processes_of(self._bench.directory) - {self.agent.pid}
            with suppress(ProcessLookupError):
                self.agent.signal(signal.SIGKILL)


def processes_of(directory: Path) -> set[int]:
    """An agent and its children, whatever became of their parent: who works in its directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(directory):
                found.add(int(entry.name))
    return found
