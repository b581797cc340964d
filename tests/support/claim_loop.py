"""A claim loop in the test's process, and Managers that answer its claims as a test says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gevent.event import Event

from agent.config.settings import read_settings
from agent.service.claims import ClaimLoop
from agent.tasks.context import TaskContext
from agent.tasks.runner import TaskRunner
from tests.support.clock import Clock
from tests.support.faulty_manager import FaultyManager, Request, reply, well
from tests.support.outbox import post_to

NOTHING = reply({"task": None})


def claimed(task_id: int, task_type: str = "kill_all", **payload: Any) -> bytes:
    """The answer to a claim that brings a task; `kill_all` needs no iperf3."""
    return reply({"task": {"id": task_id, "type": task_type, "payload": payload}})


class Claiming:
    """A running claim loop, whose pauses take no real time, with all that it needs to run tasks."""

    def __init__(
        self, manager: FaultyManager, clock: Clock, interval: float, directory: Path
    ) -> None:
        post = self.post = post_to(manager, directory)
        self.supervisor, self.outbox = post.supervisor, post.outbox
        self.may_claim = Event()
        self.may_claim.set()
        self.stop: Event = clock.event()
        settings = read_settings({"state_dir": str(directory)}, {"AGENT_KEY": "key-1"})
        context = TaskContext(settings, post.registry, post.outbox, post.ledger)
        runner = TaskRunner(context, post.supervisor.spawn)
        loop = ClaimLoop(post.client, post.gate, post.journal, runner, interval)
        self.greenlet = post.supervisor.spawn(loop.run, self.may_claim, self.stop, Event())


@contextmanager
def claiming(manager: FaultyManager, clock: Clock, interval: float = 1) -> Iterator[Claiming]:
    """Claims from that Manager, which end when they are told to; what they brought is reported."""
    with TemporaryDirectory() as directory:
        loop = Claiming(manager, clock, interval, Path(directory))
        yield loop
        loop.stop.set()
        loop.greenlet.join(5)
        assert loop.greenlet.ready()
        assert loop.outbox.flush(5)


class ClaimAnswers:
    """Answers claims with the given answers in turn and then with nothing.

    Each answer takes `delay` seconds of the clock; `times` has the moments of the claims.
    """

    def __init__(self, clock: Clock, *answers: bytes, delay: float = 0) -> None:
        self._clock = clock
        self._answers = list(answers)
        self._delay = delay
        self.times: list[float] = []

    def gaps(self) -> list[float]:
        """The seconds from each claim to the next, without what adding them up has blurred."""
        pairs = zip(self.times, self.times[1:], strict=False)
        return [round(later - earlier, 6) for earlier, later in pairs]

    def __call__(self, request: Request) -> bytes:
        if request.call != "claim":
            return well(request)
        self.times.append(self._clock.now)
        self._clock.now += self._delay
        return self._answers.pop(0) if self._answers else NOTHING


def claims(manager: FaultyManager) -> list[Request]:
    return [request for request in manager.requests if request.call == "claim"]
