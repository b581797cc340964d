"""The status page's HTTP server: it answers GET, and changes nothing."""

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

import gevent
import msgspec
import structlog
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from agent.status.loop_lag import LoopLag
from agent.status.page import page
from agent.status.prometheus import CONTENT_TYPE, Exposition
from agent.status.snapshot import View

STOP_SECONDS = 0.2
# Connections at a time, and seconds for each: whoever opens more, and says nothing, must not take
# the descriptors that tests need, nor keep others out for long.
CONNECTIONS = 50
CONNECTION_SECONDS = 5.0
# The page needs nothing from anywhere, and nobody else's page needs it.
SECURITY = [
    (
        "Content-Security-Policy",
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]
_JSON = "application/json"
_PHRASES = {200: "OK", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}

log = structlog.get_logger()

_Answer = tuple[int, str, bytes]


class StatusServer:
    """Shows one agent at a host and a port until it is stopped."""

    def __init__(self, view: View, address: tuple[str, int]) -> None:
        self._view = view
        self._address = address
        self._lag = LoopLag()
        self._exposition = Exposition(view, self._lag)
        self._server = WSGIServer(
            address,
            self._serve,
            spawn=Pool(CONNECTIONS),
            handler_class=_Handler,
            log=None,
            error_log=_ErrorLog(),
            environ={"SERVER_NAME": ""},
        )
        self._routes: dict[str, Callable[[], _Answer]] = {
            "/": self._page,
            # That it answers at all is what is asked.
            "/livez": lambda: (200, _JSON, b'{"ok":true}'),
            "/readyz": self._readyz,
            "/status": self._status,
            "/metrics": lambda: (200, CONTENT_TYPE, self._exposition.text()),
        }

    def run(self, stop: Event) -> None:
        """Serve until `stop`. An address that cannot be had is a warning, and no more."""
        host, port = self._address
        try:
            self._server.start()
        except OSError as error:
            advice = "choose another STATUS_ADDRESS; the agent works without it"
            log.warning("no status page", address=f"{host}:{port}", error=str(error), advice=advice)
            return
        port = self._server.server_port
        log.info("status page", url=f"http://{f'[{host}]' if ':' in host else host}:{port}/")
        try:
            self._lag.measure(stop)
        finally:
            self._server.stop(timeout=STOP_SECONDS)

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status, content_type, content = self._answer(environ)
        phrase = _PHRASES.get(status, "Service Unavailable")
        length = ("Content-Length", str(len(content)))
        headers = [("Content-Type", content_type), length, *SECURITY]
        if status == 405:
            headers.append(("Allow", "GET, HEAD"))
        start_response(f"{status} {phrase}", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else content]

    def _answer(self, environ: dict[str, Any]) -> _Answer:
        if not self._is_host_of_ours(environ.get("HTTP_HOST", "")):
            return 403, "text/plain", b"ask for this page as localhost or by an address\n"
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return 405, "text/plain", b"nothing can be changed here\n"
        route = self._routes.get(environ["PATH_INFO"])
        if route is None:
            return 404, "text/plain", b"there are /, /livez, /readyz, /status and /metrics\n"
        return route()

    def _is_host_of_ours(self, host: str) -> bool:
        """On loopback, no name but localhost: another one is some web page's that points here."""
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if not _is_loopback(self._address[0]) or name in ("", "localhost"):
            return True
        return _is_loopback(name.strip("[]"))

    def _page(self) -> _Answer:
        return 200, "text/html; charset=utf-8", page(self._view.snapshot()).encode()

    def _readyz(self) -> _Answer:
        reasons = self._view.not_ready()
        body = msgspec.json.encode({"ok": not reasons, "reasons": reasons})
        return 503 if reasons else 200, _JSON, body

    def _status(self) -> _Answer:
        return 200, _JSON, msgspec.json.encode(self._view.snapshot())


class _Handler(WSGIHandler):
    """One connection, which gets no more than its time."""

    def handle(self) -> None:
        """Serve it."""
        with gevent.Timeout(CONNECTION_SECONDS, False):
            WSGIHandler.handle(self)


class _ErrorLog:
    """Where pywsgi writes about bad requests, and the traceback of a bug of ours."""

    def write(self, text: str) -> None:
        """Log what is no blank."""
        if text.strip():
            log.error("the status page", says=text.strip())

    def flush(self) -> None:
        """Nothing waits."""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
