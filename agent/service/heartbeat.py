"""The heartbeat loop: tells the Manager what runs, and hears what it wants."""

import time

from gevent.event import Event

from agent.errors import AgentError, KeyRefused, ManagerUnavailable
from agent.logs.outage import Outage
from agent.manager.api import ManagerClient
from agent.manager.registration import Registration
from agent.metrics import Metrics
from agent.registry import CANCELED, TaskRegistry
from agent.timing import ticks


class HeartbeatLoop:
    """Reports what runs every `interval` seconds; the next tick is the retry.

    The answers name the canceled tasks, and set or clear `may_claim`, which is set at first.
    """

    def __init__(
        self,
        client: ManagerClient,
        registration: Registration,
        registry: TaskRegistry,
        metrics: Metrics,
        interval: float,
    ) -> None:
        self._client = client
        self._registration = registration
        self._registry = registry
        self._metrics = metrics
        self._interval = interval
        self._outage = Outage("the Manager is back")
        self._turns = Outage("no other agent has this agent's name and key any more")
        self.may_claim = Event()
        self.may_claim.set()

    def run(self, stop: Event) -> None:
        """Send heartbeats until `stop`. Raises AgentUnknown."""
        for late in ticks(self._interval, stop):
            self._metrics.heartbeat_lateness.observe(late)
            self._registration.record_heartbeat(self._beat())

    def _beat(self) -> bool:
        """Send one heartbeat; returns whether it was answered."""
        # What is claimed from now on is not meant by a number in the answer: it may be the number
        # of an earlier task. A task that was canceled is named again.
        known = self._registry.entries()
        try:
            answer = self._client.send_heartbeat(self._registration.address, self._registry.rows())
        except (KeyRefused, ManagerUnavailable) as error:
            what = "no heartbeat; tests go on"
            if isinstance(error, KeyRefused):
                what = "the Manager refuses the key; tests go on"
            self._outage.record_failure(what, error)
            return False
        self._metrics.heard_at = time.monotonic()
        self._outage.record_success()
        self._metrics.other_instance = answer.other_instance or ""
        if answer.other_instance:
            words = (
                f"it reports from {answer.other_instance}: give each host a name and key of its own"
            )
            self._turns.record_failure(
                "another agent has this agent's name and key", AgentError(words)
            )
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
