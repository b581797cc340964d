"""The two loops that talk to the Manager while the tasks run."""

import time
import uuid

import gevent
import structlog
from gevent.event import Event

from agent.client import ManagerClient
from agent.errors import KeyRefused, ManagerUnavailable
from agent.registry import TaskRegistry
from agent.runner import TaskRunner
from agent.timing import KEY_REFUSED_PAUSE, backoff, jittered, ticks

# With no task for so many seconds, claims come at a third of the rate.
QUIET_AFTER = 60.0
# An answer that took so many seconds was held: its Manager may be asked again at once.
HELD_AT_LEAST = 1.0

log = structlog.get_logger()


def heartbeat_loop(
    client: ManagerClient,
    registry: TaskRegistry,
    address: str,
    interval: float,
    may_claim: Event,
    stop: Event,
) -> None:
    """Report what runs every `interval` seconds until `stop`; the next tick is the retry.

    The answers say whether to claim, and which tasks were canceled. Raises AgentUnknown.
    """
    silent_until = 0.0
    away = False
    for _ in ticks(interval, stop):
        if time.monotonic() < silent_until:
            continue
        try:
            answer = client.heartbeat(address, registry.rows())
        except KeyRefused as error:
            silent_until = time.monotonic() + KEY_REFUSED_PAUSE
            log.error("the Manager refuses the key; tests go on", error=str(error))
            continue
        except ManagerUnavailable as error:
            log.warning("no heartbeat; tests go on", error=str(error))
            away = True
            continue
        if away:
            log.info("the Manager is back")
            away = False
        if answer.pull_tasks:
            may_claim.set()
        else:
            may_claim.clear()
        for task_id in answer.cancel:
            registry.cancel(task_id)


def claim_loop(
    client: ManagerClient, runner: TaskRunner, interval: float, may_claim: Event, stop: Event
) -> None:
    """Claim tasks, one after the other, until `stop`. Raises AgentUnknown.

    It never stops because the agent is busy: claims are untyped, and an agent that is full must
    still see its `kill_all`. The Idempotency-Key stays until it has obtained a task, so a Manager
    that replays claims loses none with an answer.
    """
    key = str(uuid.uuid4())
    last_task = time.monotonic()
    failures = backoff()
    while True:
        gevent.wait([may_claim, stop], count=1)
        if stop.is_set():
            return
        began = time.monotonic()
        try:
            claim = client.claim(key)
        except KeyRefused as error:
            pause = KEY_REFUSED_PAUSE
            log.error("the Manager refuses the key", error=str(error))
        except ManagerUnavailable as error:
            pause = max(next(failures), error.retry_after or 0)
            log.warning("no claim", error=str(error), retry_in=round(pause, 1))
        else:
            failures = backoff()
            now = time.monotonic()
            if claim.task:
                runner.accept(claim.task)
                key = str(uuid.uuid4())
                last_task = now
                continue
            if claim.held and now - began >= HELD_AT_LEAST:
                continue
            quiet = now - last_task >= QUIET_AFTER
            pause = jittered(interval * 3 if quiet else interval)
        stop.wait(pause)
