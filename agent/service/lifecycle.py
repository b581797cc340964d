"""The agent from its registration to its end: starts, watches and stops the greenlets, in order."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import gevent
import structlog
from gevent.event import Event

from agent import __version__
from agent.config.key import Key
from agent.config.settings import Config
from agent.errors import ErrorClass, ManagerRefused, StateUnusable, TaskError
from agent.host import allow_descriptors
from agent.manager.api import ManagerClient
from agent.manager.registration import Gate, Registration
from agent.metrics import Metrics
from agent.outbox.delivery import Delivery
from agent.outbox.queue import Outbox
from agent.registry import TaskRegistry
from agent.service import systemd
from agent.service.claims import ClaimLoop
from agent.service.disk import watch_disk
from agent.service.drain import KILL_TAKES, fate, finish_clients, stop_tasks
from agent.service.heartbeat import HeartbeatLoop
from agent.service.signals import StopSignals
from agent.service.supervisor import Supervisor
from agent.state.directory import StateDirectory
from agent.state.ledger import Ledger
from agent.tasks.context import TaskContext
from agent.tasks.recovery import clear_leftovers, recover
from agent.tasks.runner import TaskRunner

# Seconds between two looks at whether the agent is idle.
IDLE_LOOK = 0.1
# The children's share of the shutdown time-out; the rest is for their results.
CHILDREN_SHARE = 0.75

log = structlog.get_logger()


class Agent:
    """One agent, from its registration to its end.

    `context` and `registration` are for those who show what the agent does.
    """

    def __init__(self, config: Config, key: Key, signals: StopSignals) -> None:
        """Open the state directory; raises StateLocked and ConfigError."""
        self._config = config
        self._signals = signals
        self._supervisor = Supervisor()
        spawn = self._supervisor.spawn
        self._ledger = ledger = Ledger(StateDirectory(config.state, config.agent_name))
        self._registry = registry = TaskRegistry()
        metrics = Metrics()
        client = ManagerClient(config, key.fresh, metrics)
        stop_all = partial(registry.stop_all, ErrorClass.INTERRUPTED, "the Manager was replaced")
        self.registration = registration = Registration(config, client, stop_all)
        gate = Gate(registration)
        delivery = Delivery(client, gate, ledger, registry, config.max_result_bytes)
        self._outbox = Outbox(delivery, spawn)
        self._recover = partial(recover, ledger, self._outbox, metrics, config.stop_grace)
        self.context = TaskContext(config, registry, self._outbox, ledger, metrics)
        runner = TaskRunner(self.context, spawn)
        interval = config.heartbeat_interval
        self._heartbeats = HeartbeatLoop(client, registration, registry, metrics, interval)
        interval = config.claim_interval
        self._claims = ClaimLoop(client, gate, ledger.journal, runner, interval)
        self._stop_claims = Event()
        self._stop_rest = Event()

    def run(
        self,
        exit_after_idle: float | None = None,
        self_test: Callable[[], None] | None = None,
        status_page: Callable[[Event], None] | None = None,
    ) -> None:
        """Register, work until a signal, and stop.

        With `exit_after_idle` it also ends after that many seconds without a task. `self_test`
        runs in a greenlet once the agent is registered; until it is done the agent is not idle.
        `status_page` runs in a greenlet from the beginning until the event that it is given.
        Raises whatever else ended the agent: ManagerUnavailable when it could not register in
        time, KeyRefused, AgentUnknown, what `self_test` raised, or a bug.
        """
        allow_descriptors()
        if status_page:
            self._supervisor.spawn(status_page, self._stop_rest)
        start = self._supervisor.spawn(self._start)
        gevent.wait([start, self._signals.drain, self._signals.retire], count=1)
        if not start.ready():
            # Its only child can be `iperf3 --version`, which dies with the process.
            log.info("agent stopped before it was registered", why=self._signals.name)
            return
        if self._supervisor.failure:
            raise self._supervisor.failure
        self._work(exit_after_idle, self_test)

    def _start(self) -> None:
        """Do all that comes before the loops; a signal need not wait for it."""
        missing = ""
        try:
            self.context.iperf3.ask()
        except TaskError as error:
            missing = str(error)
        log.info(
            "agent starts",
            version=__version__,
            iperf3=self.context.iperf3.version or None,
            manager_url=self._config.manager_url,
            state_dir=str(self._config.state),
            settings=self._config.changed,
        )
        if missing:
            log.error("no usable iperf3: tests will fail until there is one", error=missing)
        try:
            self._recover()
        except StateUnusable as error:
            log.error("what the previous run left cannot be read now", error=str(error))
        clear_leftovers(self._ledger)
        self.registration.register()

    def _work(self, exit_after_idle: float | None, self_test: Callable[[], None] | None) -> None:
        """Run the loops until something ends the agent, and then stop everything in order."""
        spawn = self._supervisor.spawn
        heartbeats = spawn(self._heartbeats.run, self._stop_rest)
        may_claim = self._heartbeats.may_claim
        claims = spawn(self._claims.run, may_claim, self._stop_claims, self._signals.kill)
        spawn(self.registration.run, self._stop_rest)
        max_bytes = self._config.state_max_bytes
        spawn(watch_disk, self._ledger, max_bytes, self._recover, self._stop_rest)
        spawn(systemd.keep_informed, self._registry, self.context.metrics, self._stop_rest)
        self._outbox.start()
        self._wait_for_the_end(exit_after_idle, spawn(self_test) if self_test else None)
        if self._signals.retire.is_set():
            self._retire(claims)
        self._drain(claims)
        self._stop_rest.set()
        # It has no child, and nobody needs the answer that it may wait for.
        heartbeats.kill()
        if self._supervisor.failure:
            raise self._supervisor.failure

    def _wait_for_the_end(
        self, exit_after_idle: float | None, self_test: gevent.Greenlet | None
    ) -> None:
        ends = [self._signals.drain, self._signals.retire, self._supervisor.failed]
        if exit_after_idle is None:
            gevent.wait(ends, count=1)
            return
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < max(exit_after_idle, IDLE_LOOK):
            if gevent.wait(ends, timeout=IDLE_LOOK, count=1):
                return
            is_testing = self_test is not None and not self_test.ready()
            if len(self._registry) or len(self._outbox) or is_testing:
                idle_since = time.monotonic()
        log.info("idle for long enough", seconds=exit_after_idle)

    def _retire(self, claims: gevent.Greenlet) -> None:
        """Claim nothing more and let the client tests that run finish."""
        log.info("agent retires", why=self._signals.name, clients=len(self._registry.clients()))
        self._end_claims(claims)
        finish_clients(self._registry, [self._signals.drain, self._supervisor.failed])

    def _end_claims(self, claims: gevent.Greenlet) -> None:
        self._stop_claims.set()
        # It ends soon: what it has claimed it hands to the runner, whatever the disk does.
        claims.join(self._config.shutdown_timeout * CHILDREN_SHARE)

    def _drain(self, claims: gevent.Greenlet) -> None:
        """Claim nothing more, stop every child, and send every result."""
        systemd.notify("STOPPING=1\nSTATUS=stopping")
        began, kill, timeout = time.monotonic(), self._signals.kill, self._config.shutdown_timeout
        why = self._signals.name or str(self._supervisor.failure or "idle")
        log.info("agent stops", why=why, running=len(self._registry), waiting=len(self._outbox))
        self._end_claims(claims)
        words, children_until = f"the agent was stopped ({why})", began + timeout * CHILDREN_SHARE
        entries = stop_tasks(self._registry, words, kill, children_until)
        if not isinstance(self._supervisor.failure, ManagerRefused):
            self._outbox.flush(max(0.0, began + timeout - time.monotonic()), kill)
        self._outbox.stop()
        # If the disk is too slow, the next run brings the state directory up to date.
        with suppress(StateUnusable), gevent.Timeout(KILL_TAKES, False):
            self._ledger.mend()
        log.info(
            "agent stopped",
            undelivered=len(self._outbox),
            running=len(self._registry),
            children=[fate(entry) for entry in entries if entry.pid or entry.last_child],
        )
