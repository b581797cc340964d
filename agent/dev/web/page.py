"""The page of the dev Manager: its agents, a form that starts a test, and a test's result.

Without scripts it does the same: a form is a plain post, and the document reloads itself while a
test goes on.

A browser cannot carry the API's token from page to page, and other people's pages can make it
send what it does carry. So the page asks for a password of the owner's choice by HTTP Basic, and
`Origin`, which all of today's browsers send, tells its own forms. docs/SECURITY.md has the rules.
"""

from base64 import b64encode
from typing import Any

import flask
from flask import Response, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.wrappers import Response as AnyResponse

from agent import quantities
from agent.dev.api.http import is_secret, store
from agent.dev.api.operator_calls import ADMIN
from agent.dev.errors import Refused
from agent.dev.store.records import ManagedAgent, Test, utc_now
from agent.dev.web.form import OPTIONS, fields_of, start_test, values_of
from agent.dev.web.overview import TestDetail, TestRow, intervals_csv, tests_csv

# The browser loads nothing from elsewhere, keeps nothing, and lets no other page frame this one.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';"
    " img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}

# How many tests the page lists; the older ones are on pages of their own.
LISTED = 12

# Of a form, which takes a millisecond a KiB to decode if it means to.
MAX_FORM_BYTES = 16 * 1024

page = flask.Blueprint("page", __name__)


@page.before_request
def _check() -> Response | None:
    """Answer 401 unless the page may be shown, and 403 to a form that was not sent from it.

    It is for browsers: anything else, such as curl, gets a list of the calls.
    """
    if request.endpoint == "page.show" and "text/html" not in request.headers.get("Accept", ""):
        calls = flask.render_template("calls.txt")
        return Response(calls, mimetype="text/plain", headers={"Vary": "Accept"})
    config, given = flask.current_app.config, request.headers.get("Authorization", "")
    proof = b64encode(f"{ADMIN}:{config['ADMIN_PASSWORD']}".encode()).decode()
    if not config["OPEN_PAGE"] and not is_secret(given, f"Basic {proof}"):
        login = WWWAuthenticate("basic", {"realm": "dev Manager", "charset": "UTF-8"})
        # A browser would ask for the password at each call of the page's script.
        challenge = None if "X-Requested-With" in request.headers else login
        words = f"The user is {ADMIN}, the password that of --admin-password."
        flask.abort(401, words, www_authenticate=challenge)
    own = [f"{scheme}://{request.headers.get('Host', '')}" for scheme in ("http", "https")]
    if request.method == "POST" and request.headers.get("Origin") not in own:
        words = "This form was not sent from the dev Manager's own page. Programs use the API."
        flask.abort(403, words)
    return None


@page.get("/")
def show() -> Response:
    """The page, with the test that the query names."""
    if "test" in request.args:
        return _document(asked=store().exercises.test(request.args.get("test", 0, int)))
    return _document()


@page.post("/")
def start() -> AnyResponse:
    """Start a test and show it."""
    request.max_content_length = MAX_FORM_BYTES
    return _to(start_test(store(), request.form.to_dict()))


@page.post("/tests/<int:test_id>/stop")
def stop(test_id: int) -> AnyResponse:
    """Stop a test by ending its exercise."""
    test = store().exercises.test(test_id)
    store().exercises.stop(test.exercise_id)
    return _to(test)


@page.get("/tests.csv", defaults={"test_id": 0})
@page.get("/test-<int:test_id>.csv")
def download(test_id: int) -> Response:
    """All tests, or the intervals of one, as CSV."""
    known = store()
    lines = intervals_csv(known, known.exercises.test(test_id)) if test_id else tests_csv(known)
    return Response(lines, headers=_HEADERS, mimetype="text/csv")


def _here(**changes: Any) -> str:
    """The page as it was asked for, but for some changes."""
    kept = {name: request.args.get(name) for name in ("test", "before", "find")}
    return flask.url_for("page.show", **(kept | changes))


def _told(agent: ManagedAgent) -> str:
    """What the page says of an agent."""
    words = agent.name, agent.ip_address, agent.operating_system, agent.state
    return " ".join(filter(None, words))


def _to(test: Test) -> AnyResponse:
    return flask.redirect(flask.url_for("page.show", test=test.id, _anchor="result"), 303)


@page.errorhandler(Refused)
def _document(refusal: Refused | None = None, asked: Test | None = None) -> Response:
    """The page with the test that was asked for or else the newest, and the form filled in.

    A form that was refused is filled in as it was sent.
    """
    is_sent = request.endpoint == "page.start"
    values = request.form.to_dict() if is_sent else values_of(store(), asked)
    now = utc_now()
    tests, agents = store().exercises.tests(), store().agents.find()
    before = request.args.get("before", type=int)
    listed = [each for each in tests if before is None or each.id < before] or tests
    find = request.args.get("find", "").strip()
    found = [each for each in agents if find.lower() in _told(each).lower()]
    test = asked or (tests[-1] if tests else None)
    goes_on = any(store().exercises.get(each.exercise_id).is_under_way for each in tests)
    text = flask.render_template(
        "page.html",
        agents=agents,
        find=find,
        found=found,
        found_ids={str(each.id) for each in found},
        tests=[TestRow(store(), each, now) for each in reversed(listed[-LISTED:])],
        count=len(tests),
        here=_here,
        shown=TestDetail(store(), test, now) if test else None,
        fields=fields_of(store()),
        values=values,
        refusal=refusal,
        now=now,
        reloads=not refusal and (goes_on or not store().agents.find("online")),
        quantities=quantities,
        options=OPTIONS,
    )
    return flask.make_response(text, refusal.status if refusal else 200, _HEADERS)
