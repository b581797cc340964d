"""The heartbeat loop: tells the Manager what runs, and hears what it wants."""

import time

from gevent.event import Event

from agent.errors import KeyRefused, ManagerUnavailable
from agent.logs.outage import Outage
from agent.manager.api import ManagerClient
from agent.manager.registration import Registration
from agent.metrics import Metrics
from agent.registry import TaskRegistry
from agent.timing import KEY_REFUSED_PAUSE, ticks


def heartbeat_loop(
    client: ManagerClient,
    registration: Registration,
    registry: TaskRegistry,
    metrics: Metrics,
    interval: float,
    may_claim: Event,
    stop: Event,
) -> None:
    """Report what runs every `interval` seconds until `stop`; the next tick is the retry.

    The answers say whether to claim, and which tasks were canceled. Raises AgentUnknown.
    """
    silent_until = 0.0
    trouble = Outage("the Manager is back")
    for late in ticks(interval, stop):
        metrics.heartbeat_lateness.observe(late)
        if time.monotonic() < silent_until:
            continue
        try:
            answer = client.send_heartbeat(registration.address, registry.rows())
        except KeyRefused as error:
            silent_until = time.monotonic() + KEY_REFUSED_PAUSE
            trouble.failed("the Manager refuses the key; tests go on", error)
            continue
        except ManagerUnavailable as error:
            trouble.failed("no heartbeat; tests go on", error)
            continue
        metrics.heard_at = time.monotonic()
        trouble.over()
        if answer.pull_tasks:
            may_claim.set()
        else:
            may_claim.clear()
        for task_id in answer.cancel:
            registry.cancel(task_id)
