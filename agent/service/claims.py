"""The claim loop: asks the Manager for tasks and hands them to the runner."""

import time
from contextlib import suppress

import gevent
import structlog
from gevent.event import Event

from agent.errors import KeyRefused, ManagerAway, ManagerUnavailable, StateUnusable
from agent.logs.outage import Outage
from agent.manager.api import Claim, ManagerClient
from agent.manager.registration import Registration
from agent.protocol import FINAL_STATUSES, Claimed, Life
from agent.state.journal import Journal
from agent.tasks.runner import TaskRunner
from agent.timing import Backoff, jittered

# After this many seconds without a task, claims come at a third of the rate.
QUIET_AFTER = 60.0
# A claim that took this many seconds was held by the Manager, which may be asked again at once.
HELD_AT_LEAST = 1.0

log = structlog.get_logger()


class ClaimLoop:
    """Claims tasks, one after the other, and hands them to the runner.

    It never stops because the agent is busy: claims are untyped, and an agent that is full must
    still see its `kill_all`. The Idempotency-Key stays the same until it has obtained a task that
    the journal has. A Manager that replays claims can then lose no task with a lost answer. One
    that does not hold claims is assumed to be an older Manager, which supports neither long
    polling nor replay. Without a task, the next claim comes after `interval` seconds.
    """

    def __init__(
        self,
        client: ManagerClient,
        registration: Registration,
        journal: Journal,
        runner: TaskRunner,
        interval: float,
    ) -> None:
        self._client = client
        self._registration = registration
        self._journal = journal
        self._runner = runner
        self._interval = interval
        self._backoff = Backoff()
        self._outage = Outage("claims are answered again")
        self._answer_lost = False
        self._last_task_at = 0.0

    def run(self, may_claim: Event, stop: Event) -> None:
        """Claim while `may_claim` is set, until `stop`. Raises AgentUnknown."""
        self._last_task_at = time.monotonic()
        while not stop.is_set():
            if may_claim.is_set():
                stop.wait(self._claim_once())
            else:
                gevent.wait([may_claim, stop], count=1)

    def _claim_once(self) -> float:
        """Make one claim; returns the seconds until the next one."""
        asked_at = time.monotonic()
        try:
            life, claim = self._ask()
        except (KeyRefused, ManagerUnavailable) as error:
            pause = self._backoff.next(error)
            what = "the Manager refuses the key" if isinstance(error, KeyRefused) else "no claim"
            self._outage.record_failure(what, error, retry_in=round(pause, 1))
            self._answer_lost |= not isinstance(error, (KeyRefused, ManagerAway))
            return pause
        # The outage was over when the claim was made: a Manager that is well may hold it.
        self._outage.record_success(since=asked_at)
        if self._answer_lost and not claim.held:
            log.warning("a claim had no answer: if it obtained a task, that task is lost")
        self._answer_lost = False
        self._backoff.reset()
        if claim.task is None:
            return self._pause_without_task(asked_at, claim.held)
        self._last_task_at = time.monotonic()
        self._take(Claimed(claim.task, life, self._journal.claim_key))
        return 0.0

    def _ask(self) -> tuple[Life, Claim]:
        life = self._registration.confirm()
        claim = self._client.claim(self._journal.claim_key)
        if claim.task and self._runner.has(claim.task.id):
            # Either a replay, or the task of another Manager at the same place.
            life = self._registration.confirm(within=0)
        return life, claim

    def _pause_without_task(self, asked_at: float, held: bool) -> float:
        now = time.monotonic()
        if held and now - asked_at >= HELD_AT_LEAST:
            return 0.0
        quiet = now - self._last_task_at >= QUIET_AFTER
        return jittered(self._interval * (3 if quiet else 1))

    def _take(self, claimed: Claimed) -> None:
        """Journal the task and let it run; the next claim waits until the disk has the line.

        When the disk takes nothing, the task still goes to the runner, whose outcome says so.
        """
        task_id = claimed.task.id
        in_hand = self._runner.has(task_id)
        # A replayed claim may bring a task that has since ended at the Manager.
        if in_hand or claimed.task.status in FINAL_STATUSES:
            what = "is in hand already" if in_hand else "has ended"
            log.warning(f"the claim brought a task that {what}", task_id=task_id)
            with suppress(StateUnusable):
                self._journal.renew_claim_key()
            return
        try:
            self._journal.record_claim(claimed)
        except StateUnusable as error:
            what = "a task could not be written to the journal"
            log.error(what, task_id=task_id, error=str(error))
        self._runner.accept(claimed)
        with suppress(StateUnusable):
            self._journal.sync()
