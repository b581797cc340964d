"""The claim loop: asks the Manager for tasks and hands them to the runner."""

import time
from contextlib import suppress

import gevent
import structlog
from gevent.event import Event

from agent.errors import KeyRefused, ManagerAway, ManagerUnavailable, StateUnusable
from agent.logs.outage import Outage
from agent.manager.api import ManagerClient
from agent.manager.registration import Registration
from agent.protocol import FINAL_STATUSES, Claimed
from agent.state.journal import Journal
from agent.tasks.runner import TaskRunner
from agent.timing import KEY_REFUSED_PAUSE, Backoff, jittered

# With no task for so many seconds, claims come at a third of the rate.
QUIET_AFTER = 60.0
# An answer that took so many seconds was held: its Manager may be asked again at once.
HELD_AT_LEAST = 1.0

log = structlog.get_logger()


def claim_loop(
    client: ManagerClient,
    registration: Registration,
    journal: Journal,
    runner: TaskRunner,
    interval: float,
    may_claim: Event,
    stop: Event,
) -> None:
    """Claim tasks, one after the other, until `stop`. Raises AgentUnknown.

    It never stops because the agent is busy: claims are untyped, and an agent that is full must
    still see its `kill_all`. The Idempotency-Key stays until it has obtained a task that the
    journal has, so a Manager that replays claims loses none with an answer. One that does not
    hold claims is taken for a Manager of today, which knows neither.
    """
    last_task = time.monotonic()
    backoff = Backoff()
    trouble = Outage("claims are answered again")
    unanswered = False
    while not stop.is_set():
        if not may_claim.is_set():
            gevent.wait([may_claim, stop], count=1)
            continue
        began = time.monotonic()
        try:
            life = registration.confirm()
            claim = client.claim(journal.claim_key)
            if claim.task and runner.has(claim.task.id):
                # A replay, or the task of a Manager that has taken the place of the other's.
                life = registration.confirm(within=0)
        except KeyRefused as error:
            pause = KEY_REFUSED_PAUSE
            trouble.failed("the Manager refuses the key", error)
        except ManagerUnavailable as error:
            pause = backoff.next(error)
            trouble.failed("no claim", error, retry_in=round(pause, 1))
            unanswered |= not isinstance(error, ManagerAway)
        else:
            # Not when it was answered: a Manager that is well may have held it for a while.
            trouble.over(since=began)
            if unanswered and not claim.held:
                log.warning("a claim had no answer: a task that it obtained is lost")
            unanswered = False
            backoff.reset()
            now = time.monotonic()
            if claim.task:
                _take(journal, runner, Claimed(claim.task, life, journal.claim_key))
                last_task = now
                continue
            if claim.held and now - began >= HELD_AT_LEAST:
                continue
            quiet = now - last_task >= QUIET_AFTER
            pause = jittered(interval * 3 if quiet else interval)
        stop.wait(pause)


def _take(journal: Journal, runner: TaskRunner, claimed: Claimed) -> None:
    """Journal the task and let it run; the next claim waits until the disk has that.

    With a disk that takes nothing the task is still the runner's, which says so in its outcome.
    """
    in_hand = runner.has(claimed.task.id)
    # A replayed claim may bring a task that has ended at the Manager since.
    if in_hand or claimed.task.status in FINAL_STATUSES:
        what = "is in hand already" if in_hand else "has ended"
        log.warning(f"the claim brought a task that {what}", task_id=claimed.task.id)
        with suppress(StateUnusable):
            journal.renew_claim_key()
        return
    try:
        journal.record_claim(claimed)
    except StateUnusable as error:
        log.error("the journal lacks a task", task_id=claimed.task.id, error=str(error))
    runner.accept(claimed)
    with suppress(StateUnusable):
        journal.sync()
