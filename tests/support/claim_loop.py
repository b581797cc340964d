"""A claim loop in the test's process, and Managers that answer its claims as a test says."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gevent
from gevent.event import Event

from agent.config.settings import read_settings
from agent.service.claims import ClaimLoop
from agent.tasks.context import TaskContext
from agent.tasks.runner import TaskRunner
from tests.support.faulty_manager import FaultyManager, Request, reply, well
from tests.support.outbox import post_to

NOTHING = reply({"task": None})


def claimed(task_id: int, task_type: str = "kill_all", **payload: Any) -> bytes:
    """The answer to a claim that brings a task; `kill_all` needs no iperf3."""
    return reply({"task": {"id": task_id, "type": task_type, "payload": payload}})


class Claiming:
    """A running claim loop with all that it needs to run tasks."""

    def __init__(self, manager: FaultyManager, interval: float, directory: Path) -> None:
        post = self.post = post_to(manager, directory)
        self.supervisor, self.outbox = post.supervisor, post.outbox
        self.may_claim, self.stop = Event(), Event()
        self.may_claim.set()
        settings = read_settings({"state_dir": str(directory)}, {"AGENT_KEY": "key-1"})
        context = TaskContext(settings, post.registry, post.outbox, post.ledger)
        runner = TaskRunner(context, post.supervisor.spawn)
        loop = ClaimLoop(post.client, post.registration, post.journal, runner, interval)
        self.greenlet = post.supervisor.spawn(loop.run, self.may_claim, self.stop)


@contextmanager
def claiming(manager: FaultyManager, interval: float = 0.01) -> Iterator[Claiming]:
    """Claims from that Manager, which end when they are told to; what they brought is reported."""
    with TemporaryDirectory() as directory:
        loop = Claiming(manager, interval, Path(directory))
        yield loop
        loop.stop.set()
        loop.greenlet.join(5)
        assert loop.greenlet.ready()
        assert loop.outbox.flush(5)


class ClaimAnswers:
    """Answers claims with the given answers in turn and then with nothing; notes the times."""

    def __init__(self, *answers: bytes, delay: float = 0) -> None:
        self._answers = list(answers)
        self._delay = delay
        self.times: list[float] = []

    def __call__(self, request: Request) -> bytes:
        if request.call != "claim":
            return well(request)
        self.times.append(time.monotonic())
        gevent.sleep(self._delay)
        return self._answers.pop(0) if self._answers else NOTHING


def claims(manager: FaultyManager) -> list[Request]:
    return [request for request in manager.requests if request.call == "claim"]
