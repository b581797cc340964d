"""The dev Manager's HTTP server, and its sweeper: what the Manager does by itself."""

import secrets
from socket import IPPROTO_TCP, TCP_NODELAY

import gevent
import structlog
from flask import Flask, abort, request
from gevent.event import Event

from agent.dev.api import http
from agent.dev.api.agent_calls import agent_calls, check_agent
from agent.dev.api.operator_calls import check_token, operator_calls
from agent.dev.errors import Refused, StateUnwritable
from agent.dev.store.records import utc_now
from agent.dev.store.store import Store
from agent.dev.web.page import page
from agent.host import allow_descriptors, is_bound_to_loopback, names_loopback, place
from agent.serving import Limits, Server

DEFAULT_PASSWORD = "admin123"
SWEEP_SECONDS = 0.5
# For an answer that is being written when the server stops; a claim that waits gets none.
STOP_GRACE_SECONDS = 0.2

# Two for each of 2,000 agents: a held claim keeps a connection, and so does the last heartbeat.
CONNECTIONS = 4096
# For a request: a large result takes long over a slow network.
REQUEST_SECONDS = 300.0

log = structlog.get_logger()


class DevManager:
    """Serves a store over HTTP. A port of 0 takes a free one: `port` is it, once it is started.

    On loopback, an `open_page` asks nobody for the password, and nor does one with the default
    password, which everybody knows.
    """

    def __init__(
        self,
        store: Store,
        host: str,
        port: int,
        admin_password: str = DEFAULT_PASSWORD,
        open_page: bool = False,
    ) -> None:
        self.host, self.port = host, port
        self._store = store
        self._stopping = Event()
        self._sweeper = gevent.Greenlet(self._sweep)
        # A body that is too large is read on, or the agent that sends it would not hear so.
        connections = min(CONNECTIONS, allow_descriptors() // 2)
        limits = Limits(connections, REQUEST_SECONDS, 2 * http.MAX_BODY_BYTES)
        self._application = _application(store, admin_password)
        self._open_page = open_page or admin_password == DEFAULT_PASSWORD
        self._server = Server((host, port), self._application, limits)

    @property
    def url(self) -> str:
        """Where it listens, once it is started."""
        return f"http://{place(self.host, self.port)}"

    def start(self) -> None:
        """Listen and serve; raises OSError when the address cannot be used."""
        self._server.start()  # type: ignore[no-untyped-call]
        # For each connection: pywsgi sends headers and body apart, and Nagle would add 40 ms.
        self._server.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        on_loopback = is_bound_to_loopback(self._server.socket)
        self._application.config["OPEN_PAGE"] = self._open_page and on_loopback
        if on_loopback:
            self._application.before_request(_check_host)
        self.port = int(self._server.server_port)
        self._sweeper.start()

    def wait(self, stop: Event) -> None:
        """Wait until `stop` is set; if the sweeper fails meanwhile, raise its exception."""
        gevent.wait([stop, self._sweeper], count=1)
        if self._sweeper.ready():
            self._sweeper.get()

    def stop(self) -> None:
        """Close every connection and write the state file; raises StateUnwritable."""
        self._stopping.set()
        self._server.stop(timeout=STOP_GRACE_SECONDS)  # type: ignore[no-untyped-call]
        self._sweeper.join()
        self._store.save()

    def _sweep(self) -> None:
        while not self._stopping.wait(SWEEP_SECONDS):
            try:
                self._store.sweep(utc_now())
            except StateUnwritable as error:
                log.error(f"{error}; trying again")


def _check_host() -> None:
    """Answer 403 to a request for another host than loopback (DNS rebinding)."""
    # A browser always sends one.
    host = request.headers.get("Host", "")
    if host and not names_loopback(host):
        abort(403, "This dev Manager is on loopback: ask for 127.0.0.1 or localhost.")


def _application(store: Store, admin_password: str) -> Flask:
    app = Flask("agent.dev", static_folder="web/static", template_folder="web/templates")
    app.extensions["agent.dev.store"] = store
    app.config["ADMIN_PASSWORD"] = admin_password
    app.config["ADMIN_TOKEN"] = secrets.token_urlsafe()
    app.config["MAX_CONTENT_LENGTH"] = http.MAX_BODY_BYTES
    app.register_error_handler(Refused, http.refuse)
    app.register_error_handler(404, http.no_such_call)
    app.register_error_handler(405, http.no_such_call)
    http.add_calls(app, agent_calls(store), check_agent, "agent_id")
    http.add_calls(app, operator_calls(store), check_token)
    http.add_calls(app, [http.Call("GET /healthz", lambda: {"ok": True})], dict)
    app.register_blueprint(page)
    return app
