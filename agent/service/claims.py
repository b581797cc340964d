"""The claim loop: asks the Manager for tasks and hands them to the runner."""

import time
from dataclasses import dataclass

import gevent
import structlog
from gevent.event import Event
from gevent.util import wrap_errors

from agent.errors import KeyRefused, ManagerError, ManagerUnavailable, StateUnusable
from agent.logs.outage import Outage
from agent.manager.api import Claim, ManagerClient
from agent.manager.registration import Gate
from agent.protocol import FINAL_STATUSES, Claimed, Origin
from agent.state.journal import Journal
from agent.tasks.runner import TaskRunner
from agent.timing import Backoff, jittered

# After this many seconds without a task, claims come at a third of the rate.
QUIET_AFTER = 60.0
# A claim in flight has this many seconds to bring its task when the agent stops, if the Manager
# holds claims and if it does not.
LAST_HELD_CLAIM_TAKES, LAST_CLAIM_TAKES = 0.5, 1.5
# A claim that took this many seconds was held by the Manager, which may be asked again at once.
HELD_AT_LEAST = 1.0
# A task waits for its line in the journal for at most this many seconds.
WRITE_TAKES = 2.0
# Seconds between two attempts to write the journal while the disk takes nothing.
SYNC_AGAIN = 1.0
LOST = "a claim had no answer: if it obtained a task, that task is lost"

log = structlog.get_logger()


@dataclass
class ClaimLoop:
    """Claims tasks, one after the other, and hands them to the runner.

    It never stops because the agent is busy: claims are untyped, and an agent that is full must
    still see its `kill_all`. The Idempotency-Key stays the same until it has obtained a task that
    the journal has. A Manager that replays claims can then lose no task with a lost answer. One
    that does not hold claims is assumed to be an older Manager, which supports neither long
    polling nor replay. Without a task, the next claim comes after `interval` seconds.
    """

    client: ManagerClient
    gate: Gate
    journal: Journal
    runner: TaskRunner
    interval: float

    def __post_init__(self) -> None:
        self._backoff = Backoff()
        self._outage = Outage("claims are answered again")
        self._answer_lost = self._is_held = False
        self._last_task_at = 0.0
        self._hurry = Event()

    def run(self, may_claim: Event, stop: Event, hurry: Event) -> None:
        """Claim while `may_claim` is set and the journal is readable, until `stop`.

        After `stop` a claim under way may still bring its task, until `hurry` is set. Raises
        AgentUnknown. It is never killed: from the answer on, a task must not be lost.
        """
        self._hurry = hurry
        self._last_task_at = time.monotonic()
        while not stop.is_set():
            closed = [each for each in (may_claim, self.journal.readable) if not each.is_set()]
            if closed:
                gevent.wait([closed[0], stop], count=1)
            else:
                stop.wait(self.gate.closed_for or self._claim_once(stop))

    def _claim_once(self, stop: Event) -> float:
        """Make one claim; returns the seconds until the next one."""
        asked_at = time.monotonic()
        try:
            answer = self._ask(stop)
        except (KeyRefused, ManagerUnavailable) as error:
            pause = self.gate.closed_for or self._backoff.next(error)
            what = "the Manager refuses the key" if isinstance(error, KeyRefused) else "no claim"
            self._outage.record_failure(what, error, retry_in=round(pause, 1))
            self._answer_lost |= isinstance(error, ManagerUnavailable)
            return pause
        if answer is None:
            return 0.0
        claim, origin = answer
        # The outage was over when the claim was made: a Manager that is well may hold it.
        self._outage.record_success(since=asked_at)
        if self._answer_lost and not claim.held:
            log.warning(LOST)
        self._answer_lost = False
        self._is_held = claim.held
        now = time.monotonic()
        if claim.task is None:
            self._backoff.reset()
            if claim.held and now - asked_at >= HELD_AT_LEAST:
                return 0.0
            is_quiet = now - self._last_task_at >= QUIET_AFTER
            return jittered(self.interval * (3 if is_quiet else 1))
        self._last_task_at = now
        return self._take(Claimed(claim.task, origin, self.journal.claim_key), stop)

    def _claim(self) -> tuple[Claim, Origin]:
        """The answer to a claim, and the record at the Manager for which it was made.

        The gate may have made that just before, and a claim may be held until there is another one.
        """
        origin = self.gate.registration.origin
        assert origin
        return self.client.claim(self.journal.claim_key), origin

    def _ask(self, stop: Event) -> tuple[Claim, Origin] | None:
        """The answer to a claim; None if it did not come soon after `stop`.

        Only the wait for it can be cut short, so it has a greenlet of its own.
        """
        request = gevent.spawn(wrap_errors(ManagerError, self.gate.attempt), self._claim)
        gevent.wait([request, stop], count=1)
        last_takes = LAST_HELD_CLAIM_TAKES if self._is_held else LAST_CLAIM_TAKES
        gevent.wait([request, self._hurry], last_takes, count=1)
        if not request.ready():
            # The next run repeats a claim whose task the journal does not have.
            request.kill()
            if not self._is_held:
                log.warning(LOST)
            return None
        answer = request.get()
        if isinstance(answer, ManagerError):
            raise answer
        found: tuple[Claim, Origin] = answer
        return found

    def _take(self, claimed: Claimed, stop: Event) -> float:
        """Let a task run; returns the seconds until the next claim, once the disk has its line.

        When the disk takes nothing, the task still runs, and its outcome says so.
        """
        task, in_hand = claimed.task, self.journal.has(claimed)
        # A replayed claim may bring a task that has since ended at the Manager.
        if in_hand or task.status in FINAL_STATUSES:
            what = "is in hand already" if in_hand else "has ended"
            pause = self._backoff.next()
            words = f"the claim brought a task that {what}"
            log.warning(words, task_id=task.id, next_claim_in=round(pause, 1))
            self.journal.renew_claim_key()
            # A power cut must not take the key with which the next task is claimed.
            self._is_on_disk(stop)
            return pause
        self._backoff.reset()
        self.journal.record_claim(claimed)
        writing = self.journal.write_soon()
        # An agent that stops does not wait for the disk: it reports the task, and thus ends it.
        gevent.wait([writing, stop], WRITE_TAKES, count=1)
        self.runner.accept(claimed)
        # It raises a bug, which must not keep a task from the runner.
        if failure := writing.ready() and writing.get():
            words = "a task could not be written to the journal"
            log.error(words, task_id=task.id, error=str(failure))
        # A task that the disk does not have is lost with the agent: one at a time is enough.
        while not self._is_on_disk(stop) and self.journal.has(claimed):
            stop.wait(SYNC_AGAIN)
        return 0.0

    def _is_on_disk(self, stop: Event) -> bool:
        """Whether the journal is on the disk; True as well after `stop`."""
        syncing = gevent.spawn(wrap_errors(StateUnusable, self.journal.sync))
        gevent.wait([syncing, stop], count=1)
        return stop.is_set() or syncing.get() is None
