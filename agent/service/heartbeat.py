"""The heartbeat loop: tells the Manager what runs, and hears what it wants."""

import time
from dataclasses import dataclass

from gevent.event import Event

from agent.errors import AgentError, KeyRefused, ManagerUnavailable
from agent.logs.outage import Outage
from agent.manager.api import ManagerClient
from agent.manager.registration import Registration
from agent.metrics import Metrics
from agent.registry import CANCELED, TaskRegistry
from agent.timing import ticks


@dataclass
class HeartbeatLoop:
    """Reports what runs every `interval` seconds; the next tick is the retry.

    The answers name the canceled tasks, and set or clear `may_claim`, which is set at first.
    """

    client: ManagerClient
    registration: Registration
    registry: TaskRegistry
    metrics: Metrics
    interval: float

    def __post_init__(self) -> None:
        self._outage = Outage("the Manager is back")
        self._turns = Outage("no other agent has this agent's name and key any more")
        self.may_claim = Event()
        self.may_claim.set()

    def run(self, stop: Event) -> None:
        """Send heartbeats until `stop`. Raises AgentUnknown."""
        for late in ticks(self.interval, stop):
            self.metrics.heartbeat_lateness.observe(late)
            self.registration.record_heartbeat(self._beat())

    def _beat(self) -> bool:
        """Send one heartbeat; returns whether it was answered."""
        # What is claimed from now on is not meant by a number in the answer: it may be the number
        # of an earlier task. A task that was canceled is named again.
        known = self.registry.entries()
        try:
            answer = self.client.send_heartbeat(self.registration.address, self.registry.rows())
        except (KeyRefused, ManagerUnavailable) as error:
            refused = isinstance(error, KeyRefused)
            keyless = "the Manager refuses the key; tests go on"
            self._outage.record_failure(keyless if refused else "no heartbeat; tests go on", error)
            return False
        self.metrics.heard_at = time.monotonic()
        self._outage.record_success()
        self.metrics.other_instance = answer.other_instance or ""
        if other := answer.other_instance:
            twin = AgentError(f"it reports from {other}: give each host a name and key of its own")
            self._turns.record_failure("another agent has this agent's name and key", twin)
        else:
            self._turns.record_success()
        if answer.pull_tasks:
            self.may_claim.set()
        else:
            self.may_claim.clear()
        canceled = set(answer.cancel)
        for entry in known:
            if entry.task.id in canceled:
                entry.stop.order(*CANCELED)
        return True
