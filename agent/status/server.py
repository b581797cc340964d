"""The HTTP server of the status page. It answers GET requests and changes nothing."""

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import structlog
from gevent.event import Event
from msgspec import to_builtins

from agent.host import is_bound_to_loopback, names_loopback
from agent.metrics import LATE_BOUNDS, Histogram
from agent.serving import Limits, Server
from agent.status.page import render_page
from agent.status.prometheus import CONTENT_TYPE, MetricsExporter
from agent.status.snapshot import AgentState, Snapshot
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
]
_JSON = "application/json"
_HTML = "text/html; charset=utf-8"

log = structlog.get_logger()

_Answer = tuple[int, str, bytes]


class _Reused:
    """Answers, each made again when it is old for what it costs."""

    def __init__(self, make: Callable[[], _Answer]) -> None:
        self._make = make
        self._until = 0.0
        self._answer: _Answer

    def __call__(self) -> _Answer:
        """The answer of now, or of a moment ago."""
        began = time.monotonic()
        if began >= self._until:
            self._answer = self._make()
            ended = time.monotonic()
            self._until = ended + REUSED_FOR * (ended - began)
        return self._answer


class StatusServer:
    """Serves the status page of one agent at a host and a port."""

    def __init__(self, agent: AgentState, address: tuple[str, int]) -> None:
        self._agent = agent
        host, self._port = address
        self._host = f"[{host}]" if ":" in host else host
        self._lag = Histogram(LATE_BOUNDS)
        exporter = MetricsExporter(agent, self._lag)
        self._server = Server(address, self._serve, LIMITS)
        self._routes: dict[str, Callable[[], _Answer]] = {
            "/": _Reused(lambda: (200, _HTML, encodable(render_page(Snapshot(agent))).encode())),
            # An agent that answers is alive.
            "/livez": lambda: (200, _JSON, b'{"ok":true}'),
            "/readyz": self._readyz,
            "/status": _Reused(
                lambda: (200, _JSON, to_json(to_builtins(Snapshot(agent), enc_hook=vars)))
            ),
            "/metrics": _Reused(lambda: (200, CONTENT_TYPE, exporter.export())),
        }

    def run(self, stop: Event) -> None:
        """Serve until `stop`. If the address cannot be used, only log a warning."""
        try:
            self._server.start()  # type: ignore[no-untyped-call]
        except OSError as error:
            advice = "choose another STATUS_ADDRESS; the agent works without it"
            given = f"{self._host}:{self._port}"
            log.warning("no status page", address=given, error=str(error), advice=advice)
            return
        log.info("status page", url=f"http://{self._host}:{self._server.server_port}/")
        try:
            for late in ticks(LAG_INTERVAL, stop):
                self._lag.observe(max(0.0, late))
        finally:
            self._server.stop(timeout=STOP_SECONDS)  # type: ignore[no-untyped-call]

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status, content_type, content = self._answer(environ)
        length = ("Content-Length", str(len(content)))
        headers = [("Content-Type", content_type), length, *HEADERS]
        if status == 405:
            headers.append(("Allow", "GET, HEAD"))
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else content]

    def _answer(self, environ: dict[str, Any]) -> _Answer:
        host = environ.get("HTTP_HOST", "")
        if host and is_bound_to_loopback(self._server.socket) and not names_loopback(host):
            return 403, "text/plain", b"open this page as localhost or by an IP address\n"
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return 405, "text/plain", b"this page is read-only\n"
        route = self._routes.get(environ["PATH_INFO"])
        if route is None:
            return 404, "text/plain", b"try /, /livez, /readyz, /status or /metrics\n"
        return route()

    def _readyz(self) -> _Answer:
        reasons = self._agent.not_ready()
        body = to_json({"ok": not reasons, "reasons": reasons})
        return 503 if reasons else 200, _JSON, body
