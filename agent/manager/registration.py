"""Registering with the Manager, the address that it is told, and the gate before other calls."""

import time
from collections.abc import Callable
from socket import EAI_AGAIN, gaierror
from typing import TypeVar

import gevent
import structlog
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from agent import host
from agent.config.settings import Config
from agent.errors import KeyRefused, ManagerAway, ManagerError, ManagerUnavailable
from agent.logs.outage import Outage
from agent.manager.api import ManagerClient
from agent.manager.proxy import proxy_of
from agent.manager.reasons import why
from agent.protocol import Origin
from agent.timing import Backoff

# After so many seconds without an answered heartbeat, the Manager may have been set up anew.
SILENCE = 15.0
# So many heartbeats may be missed where they come more seldom.
SILENT_BEATS = 3
# Seconds between two lookups of the address: a host may get another one.
ADDRESS_SURE_FOR = 60.0
# A name server that does not answer would take 10 s and more.
LOOKUP_DEADLINE = 4.0

_Answer = TypeVar("_Answer")

log = structlog.get_logger()


class Registration:
    """The registration of one agent. `address` and `origin` are known once it has registered.

    `replaced` is called when the agent's record at the Manager turns out to be another one than
    before: what was claimed under the old one is nobody's any more.
    """

    def __init__(
        self, config: Config, client: ManagerClient, replaced: Callable[[], object]
    ) -> None:
        self._config = config
        self._client = client
        self._replaced = replaced
        self._lock = BoundedSemaphore()
        self._silence = max(SILENCE, SILENT_BEATS * config.heartbeat_interval)
        self._is_due = True
        self._was_silent = False
        self._heard_at = self._looked_up_at = 0.0
        self._wake = Event()
        self.address = ""
        self.origin: Origin | None = None

    def register(self) -> None:
        """Register within REGISTER_TIMEOUT.

        Raises ManagerUnavailable when there was no time for more, KeyRefused and AgentUnknown.
        """
        until = time.monotonic() + self._config.register_timeout
        backoff, outage = Backoff(), Outage("the Manager is there")
        while self.origin is None:
            try:
                self.renew()
            except ManagerUnavailable as error:
                left = until - time.monotonic()
                if left <= 0 or (error.retry_after or 0) >= left:
                    raise
                # Whatever the back-off says, the last attempt is made when the time is over.
                pause = min(backoff.next(error), left)
                outage.record_failure("not registered yet", error, retry_in=round(pause, 1))
                gevent.sleep(pause)
        outage.record_success()

    def renew(self) -> None:
        """Register if that is due: at the agent's start, and once after a long silence.

        Raises ManagerUnavailable, KeyRefused and AgentUnknown; it is then still due.
        """
        with self._lock:
            if self._is_due:
                self._look_up_address()
                record = self._client.register(self.address, host.operating_system())
                self._is_due, self._heard_at = False, time.monotonic()
                self._set(Origin.of(self._config.manager_url, record))

    def record_heartbeat(self, answered: bool) -> None:
        """Take note of a heartbeat; `run` does what follows from it."""
        now = time.monotonic()
        if now - self._heard_at >= self._silence and not self._was_silent:
            self._is_due = self._was_silent = True
        if answered:
            self._heard_at, self._was_silent = now, False
        is_old = now - self._looked_up_at >= ADDRESS_SURE_FOR
        if is_old or not answered or self._is_due:
            self._wake.set()

    def run(self, stop: Event) -> None:
        """Until `stop`, keep the address up to date, and register again when that is due.

        Heartbeats do not wait for it. While they have no answer, it registers nothing: the next
        claim or result does. Raises AgentUnknown.
        """
        backoff, outage = Backoff(), Outage("the address and the registration are renewed")
        while gevent.wait([self._wake, stop], count=1) and not stop.is_set():
            self._wake.clear()
            try:
                self._look_up_address()
                if not self._was_silent:
                    self.renew()
            except (KeyRefused, ManagerUnavailable) as error:
                outage.record_failure("the address or the registration is not renewed yet", error)
                stop.wait(backoff.next(error))
            else:
                outage.record_success()
                backoff.reset()

    def _set(self, origin: Origin) -> None:
        if self.origin is None:
            log.info("registered", agent_id=origin.agent_id, address=self.address)
        elif not self.origin.is_same(origin):
            log.error(
                "the Manager was replaced: the tasks in hand belong to the previous one",
                manager_url=origin.manager_url,
                agent_id=origin.agent_id,
                registered=origin.first_registered,
            )
            self._replaced()
        elif origin.first_registered is None:
            # What is known stays known.
            return
        self.origin = origin

    def _look_up_address(self) -> None:
        """Set the address; raises ManagerAway when there is no route to the Manager."""
        self._looked_up_at = time.monotonic()
        url, given = self._config.manager_url, self._config.advertise_address
        try:
            with gevent.Timeout(LOOKUP_DEADLINE, gaierror(EAI_AGAIN, "too slow")):
                address = given or host.local_address(proxy_of(url) or url)
        except OSError as error:
            raise ManagerAway(why(error, url)) from error
        is_fine = given or host.is_reachable(address) or host.is_loopback(url)
        if not is_fine and address != self.address:
            advice = "set ADVERTISE_ADDRESS to the one that other agents reach this host by"
            log.warning("other hosts cannot reach this address", address=address, advice=advice)
        self.address = address


class Gate:
    """Through it go all calls but heartbeats. It is closed for a while when one finds no Manager.

    That is so when a call has no answer, 429 or 503, and when the key is refused. Any other
    failure holds back nothing but its own call. If each call had a back-off of its own, an agent
    with many results would be back before all others.
    """

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        self._backoff = Backoff()
        self._closed_at = self._opens_at = 0.0

    @property
    def closed_for(self) -> float:
        """Seconds until calls may be made; 0 while the gate is open."""
        return max(0.0, self._opens_at - time.monotonic())

    def open(self) -> None:
        """Let the next call be made at once."""
        self._opens_at = 0.0

    def attempt(self, call: Callable[[], _Answer]) -> _Answer:
        """Make a call, after a registration if one is due; raises the ManagerError of either."""
        began = time.monotonic()
        try:
            self.registration.renew()
            answer = call()
        except (KeyRefused, ManagerAway) as error:
            now = time.monotonic()
            if began >= self._closed_at:
                self._closed_at, self._opens_at = now, now + self._backoff.next(error)
            elif isinstance(error, ManagerAway):
                # It was under way when the gate closed, and failed for the same reason.
                self._opens_at = max(self._opens_at, now + (error.retry_after or 0))
            raise
        except ManagerError:
            self._backoff.reset()
            raise
        self._backoff.reset()
        return answer
