"""The agent from its registration to its end: starts, watches and stops the greenlets, in order."""

import time
from collections.abc import Callable

import gevent
import structlog
from gevent.event import Event

from agent import __version__, host
from agent.client import Access, ManagerClient
from agent.config import Config, Key
from agent.errors import ManagerRefused, ManagerUnavailable, TaskError
from agent.loops import claim_loop, heartbeat_loop
from agent.nursery import Nursery
from agent.outbox import Outbox
from agent.registry import TaskRegistry
from agent.runner import TaskRunner
from agent.signals import StopSignals
from agent.state import StateDirectory
from agent.timing import backoff
from agent.workbench import Workbench

# A claim in flight gets this many seconds to bring its task; one that the Manager holds is cut.
CLAIM_FAREWELL = 0.5
IDLE_LOOK = 0.1
# The children's part of the shutdown's time; what is left is for their results.
CHILDREN_SHARE = 0.75
# Seconds for killed children to be gone, with their outcomes in the outbox.
KILL_TAKES = 1.0

log = structlog.get_logger()


def manager_access(config: Config, key: Callable[[], str]) -> Access:
    """How the configuration says that the Manager is reached."""
    certificate = None
    if config.manager_cert_file and config.manager_cert_key_file:
        certificate = (str(config.manager_cert_file), str(config.manager_cert_key_file))
    return Access(
        url=config.manager_url,
        name=config.agent_name,
        key=key,
        api_version=config.api_version,
        ca_file=str(config.manager_ca_file) if config.manager_ca_file else None,
        certificate=certificate,
    )


class Agent:
    """One agent. `run()` is its whole life."""

    def __init__(self, config: Config, key: Key, signals: StopSignals) -> None:
        """Open the state directory; raises StateLocked and ConfigError."""
        self._config = config
        self._signals = signals
        self._state = StateDirectory(config.state)
        self._nursery = Nursery()
        self._client = ManagerClient(manager_access(config, key))
        self._registry = TaskRegistry()
        self._outbox = Outbox(
            self._client, config.max_result_bytes, self._nursery.spawn, self._registry.cancel
        )
        self._bench = Workbench(config, self._registry, self._outbox, self._state.children)
        self._runner = TaskRunner(self._bench, self._nursery.spawn)
        self._address = ""
        self._may_claim = Event()
        self._may_claim.set()
        self._stop_claims = Event()
        self._stop_heartbeats = Event()

    def run(
        self, exit_after_idle: float | None = None, errand: Callable[[], None] | None = None
    ) -> None:
        """Register, work until a signal, and stop.

        With `exit_after_idle` it also ends after so many seconds without a task. `errand` runs
        in a greenlet once the agent is registered; until it is done the agent is not idle.
        Raises what ended the agent otherwise: ManagerUnavailable when it could not register in
        time, KeyRefused, AgentUnknown, whatever `errand` raises, or a bug.
        """
        self._announce()
        registering = self._nursery.spawn(self._register)
        gevent.wait([registering, self._signals.drain], count=1)
        registering.kill()
        if self._nursery.failure:
            raise self._nursery.failure
        if self._signals.drain.is_set():
            log.info("agent stopped before it was registered", why=self._signals.name)
            return
        self._work(exit_after_idle, errand)

    def _work(self, exit_after_idle: float | None, errand: Callable[[], None] | None) -> None:
        spawn = self._nursery.spawn
        interval = self._config.heartbeat_interval
        heartbeats = spawn(
            heartbeat_loop,
            self._client,
            self._registry,
            self._address,
            interval,
            self._may_claim,
            self._stop_heartbeats,
        )
        claims = spawn(
            claim_loop,
            self._client,
            self._runner,
            self._config.claim_interval,
            self._may_claim,
            self._stop_claims,
        )
        errands = [spawn(errand)] if errand else []
        self._wait_for_the_end(exit_after_idle, errands)
        self._drain(claims)
        self._stop_heartbeats.set()
        heartbeats.kill()
        if self._nursery.failure:
            raise self._nursery.failure

    def _announce(self) -> None:
        log.info(
            "agent starts",
            version=__version__,
            manager_url=self._config.manager_url,
            state_dir=str(self._config.state),
        )
        try:
            self._bench.iperf3()
        except TaskError as error:
            log.error("no usable iperf3: tests will fail until there is one", error=str(error))

    def _register(self) -> None:
        """Register within REGISTER_TIMEOUT, with the address to be tested at."""
        until = time.monotonic() + self._config.register_timeout
        for delay in backoff():
            try:
                self._address = self._config.advertise_address or self._route_address()
                record = self._client.register(self._address, host.operating_system())
            except ManagerUnavailable as error:
                delay = max(delay, error.retry_after or 0)
                if time.monotonic() + delay >= until:
                    raise
                log.warning("not registered yet", error=str(error), retry_in=round(delay, 1))
                gevent.sleep(delay)
            else:
                log.info("registered", agent_id=record.id, address=self._address)
                return

    def _route_address(self) -> str:
        try:
            return host.local_address(self._config.manager_url)
        except OSError as error:
            raise ManagerUnavailable(f"no route to {self._config.manager_url}: {error}") from error

    def _wait_for_the_end(
        self, exit_after_idle: float | None, errands: list[gevent.Greenlet]
    ) -> None:
        ends = [self._signals.drain, self._nursery.failed]
        if exit_after_idle is None:
            gevent.wait(ends, count=1)
            return
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < max(exit_after_idle, IDLE_LOOK):
            if gevent.wait(ends, timeout=IDLE_LOOK, count=1):
                return
            if (
                len(self._registry)
                or len(self._outbox)
                or not all(errand.ready() for errand in errands)
            ):
                idle_since = time.monotonic()
        log.info("idle for long enough", seconds=exit_after_idle)

    def _drain(self, claims: gevent.Greenlet) -> None:
        """No new claims, every child stopped, every result sent; a second signal hurries."""
        began = time.monotonic()
        until = began + self._config.shutdown_timeout
        children_until = began + self._config.shutdown_timeout * CHILDREN_SHARE
        why = self._signals.name or str(self._nursery.failure or "idle")
        log.info("agent stops", why=why, running=len(self._registry), waiting=len(self._outbox))
        self._stop_claims.set()
        claims.join(CLAIM_FAREWELL)
        claims.kill()
        entries = self._registry.stop_all("interrupted", f"the agent was stopped ({why})")
        gone = gevent.spawn(lambda: [entry.gone.wait() for entry in entries])
        gevent.wait([gone, self._signals.kill], _left(children_until), count=1)
        self._registry.hurry_all()
        gone.join(KILL_TAKES)
        if not isinstance(self._nursery.failure, ManagerRefused):
            flushed = gevent.spawn(self._outbox.flush, _left(until))
            gevent.wait([flushed, self._signals.kill], count=1)
        self._outbox.stop()
        log.info("agent stopped", undelivered=len(self._outbox), running=len(self._registry))


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
