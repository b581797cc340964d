"""The HTTP server of the status page. It answers GET requests and changes nothing."""

import time
from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import structlog
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from msgspec import to_builtins

from agent.host import is_bound_to_loopback, names_loopback, place
from agent.manager.registration import Registration
from agent.serving import Limits, Server
from agent.status.page import render_page
from agent.status.prometheus import CONTENT_TYPE, Scrape
from agent.status.snapshot import Snapshot
from agent.tasks.context import TaskContext
from agent.text import encodable, to_json
from agent.timing import ticks

STOP_SECONDS = 0.2
# Seconds between two measurements of how late the event loop is.
LAG_INTERVAL = 1.0
# An answer is given again for so many times as long as it took to make: 200 running tests make a
# page of 0.13 s, and 32 peers that ask for it at once would hold a heartbeat up by 4 s.
REUSED_FOR = 10
# Connections must not take the descriptors that tests need. Each is for one request.
LIMITS = Limits(connections=32, seconds=5.0, bytes=64 * 1024)
# The page loads nothing from elsewhere, and no other page may embed it.
HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
    ("Allow", "GET, HEAD"),
]
_JSON = "application/json"
_HTML = "text/html; charset=utf-8"

log = structlog.get_logger()

_Answer = tuple[int, str, bytes]


class StatusServer:
    """Serves the status page of one agent at a host and a port."""

    def __init__(
        self, context: TaskContext, registration: Registration, address: tuple[str, int]
    ) -> None:
        self._context = context
        self._registration = registration
        self._address = place(*address)
        self._server = Server(address, self._serve, LIMITS)
        # By path: until when an answer is given again, and the answer.
        self._answers: dict[str, tuple[float, _Answer]] = {}
        # The metrics let others run while they are made.
        self._making = defaultdict[str, BoundedSemaphore](BoundedSemaphore)

    def run(self, stop: Event) -> None:
        """Serve until `stop`. If the address cannot be used, only log a warning."""
        try:
            self._server.start()  # type: ignore[no-untyped-call]
        except OSError as error:
            advice = "choose another STATUS_ADDRESS; the agent works without it"
            why = error.strerror
            log.warning("no status page", address=self._address, error=why, advice=advice)
            return
        log.info("status page", url=f"http://{self._address}/")
        if not is_bound_to_loopback(self._server.socket):
            shown = "tests with their hosts and figures, errors and metrics, but no secrets"
            log.warning("other hosts can read the status page", address=self._address, shown=shown)
        try:
            for late in ticks(LAG_INTERVAL, stop):
                self._context.metrics.hub_lag.observe(max(0.0, late))
        finally:
            self._server.stop(timeout=STOP_SECONDS)  # type: ignore[no-untyped-call]

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status, content_type, content = self._answer(environ)
        length = ("Content-Length", str(len(content)))
        headers = [("Content-Type", content_type), length, *HEADERS]
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else content]

    def _answer(self, environ: dict[str, Any]) -> _Answer:
        host = environ.get("HTTP_HOST", "")
        is_known = host in ("", self._address) or names_loopback(host)
        if not is_known and is_bound_to_loopback(self._server.socket):
            return 403, "text/plain", b"open this page as localhost or by an IP address\n"
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return 405, "text/plain", b"this page is read-only\n"
        path = environ["PATH_INFO"]
        if path == "/livez":
            # An agent that answers is alive.
            return 200, _JSON, b'{"ok":true}'
        if path not in ("/", "/readyz", "/status", "/metrics"):
            return 404, "text/plain", b"try /, /livez, /readyz, /status or /metrics\n"
        began = time.monotonic()
        with self._making[path]:
            until, answer = self._answers.get(path, (0.0, None))
            if answer is None or began >= until:
                answer = self._fresh_answer(path)
                ended = time.monotonic()
                self._answers[path] = ended + REUSED_FOR * (ended - began), answer
            return answer

    def _fresh_answer(self, path: str) -> _Answer:
        now = Snapshot(self._context, self._registration)
        if path == "/":
            return 200, _HTML, encodable(render_page(now)).encode()
        if path == "/status":
            return 200, _JSON, to_json(to_builtins(now, enc_hook=vars))
        if path == "/metrics":
            return 200, CONTENT_TYPE, Scrape(self._context, now).export()
        reasons = now.not_ready
        return 503 if reasons else 200, _JSON, to_json({"ok": not reasons, "reasons": reasons})
