"""The dev Manager's HTTP server, and its sweeper: what the Manager does by itself."""

import logging
import secrets

import gevent
from flask import Flask
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from agent.dev.api import http
from agent.dev.api.admin_calls import admin_api
from agent.dev.api.agent_calls import SocketHandler, agent_api
from agent.dev.api.exercise_calls import exercise_api
from agent.dev.errors import Refused, StateUnwritable
from agent.dev.store.records import utc_now
from agent.dev.store.store import Store
from agent.dev.web.access import DEFAULT_PASSWORD
from agent.dev.web.page import page

SWEEP_SECONDS = 0.5
# For an answer that is being written when the server stops; a claim that waits gets none.
STOP_GRACE_SECONDS = 0.2

_log = logging.getLogger(__name__)


class DevManager:
    """Serves a store over HTTP. A port of 0 takes a free one."""

    def __init__(
        self, store: Store, host: str, port: int, admin_password: str = DEFAULT_PASSWORD
    ) -> None:
        self.host = host
        self._store = store
        self._stopping = Event()
        self._sweeper = gevent.Greenlet(self._sweep)
        self._server = WSGIServer(
            (host, port),
            _application(store, admin_password),
            log=None,
            # Without a pool the server would not know its connections, and would close none.
            spawn=Pool(),
            handler_class=SocketHandler,
            # Spares a reverse look-up of the address.
            environ={"SERVER_NAME": host},
        )

    @property
    def port(self) -> int:
        """The port it listens on, once it is started."""
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        """Where it listens, once it is started."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Listen and serve; raises OSError when the address cannot be used."""
        self._server.start()
        self._sweeper.start()

    def wait(self, stop: Event) -> None:
        """Wait until `stop` is set; if the sweeper fails meanwhile, raise its exception."""
        gevent.wait([stop, self._sweeper], count=1)
        if self._sweeper.ready():
            self._sweeper.get()

    def stop(self) -> None:
        """Close every connection and write the state file; raises StateUnwritable."""
        self._stopping.set()
        self._server.stop(timeout=STOP_GRACE_SECONDS)
        self._sweeper.join()
        self._store.save()

    def _sweep(self) -> None:
        while not self._stopping.wait(SWEEP_SECONDS):
            try:
                self._store.sweep(utc_now())
            except StateUnwritable as error:
                _log.error("%s; trying again", error)


def _application(store: Store, admin_password: str) -> Flask:
    app = Flask("agent.dev", static_folder=None, template_folder="web/templates")
    app.extensions["agent.dev.store"] = store
    app.config["ADMIN_PASSWORD"] = admin_password
    app.config["ADMIN_TOKEN"] = secrets.token_urlsafe()
    app.config["MAX_CONTENT_LENGTH"] = http.MAX_BODY_BYTES
    app.register_error_handler(Refused, lambda error: http.reply(error.body(), error.status))
    app.register_error_handler(404, http.no_such_call)
    app.register_error_handler(405, http.no_such_call)
    for calls in (agent_api, admin_api, exercise_api, page):
        app.register_blueprint(calls)
    app.add_url_rule("/healthz", "healthz", lambda: http.reply({"ok": True}))
    return app
