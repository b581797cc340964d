"""The page of the dev Manager: its agents, a form that starts a test, and a test's result.

One document, for people at a browser; `visitors` says who may use it. Without scripts it does
the same: a form is a plain post, and the document asks for itself again while a test goes on.
"""

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any, Literal

import msgspec
from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from msgspec import Struct
from werkzeug.wrappers import Response as AnyResponse

from agent.dev.bodies import Parallel, Port, Seconds
from agent.dev.curve import quantity
from agent.dev.detail import shown
from agent.dev.http import store
from agent.dev.records import Agent, Test, utc_now
from agent.dev.refusals import Conflict, NotFound, Refused
from agent.dev.rows import agent_rows, listed_tests, under_way
from agent.dev.visitors import check_reader, check_writer

CALLS = """The dev Manager of the Iperf Orchestrator Agent. Not for production.

Agents:    POST /v1/agent/{register,heartbeat,tasks/claim,tasks/ID/started,tasks/ID/result}
Login:     POST /v1/auth/login {"username","password"}, then Authorization: Bearer TOKEN
Operators: /v1/agents  /v1/exercises  /v1/exercises/ID/{tests,start,stop,results}
           /v1/tasks  /v1/tasks/ID/cancel
Health:    GET /healthz
Browsers:  GET / shows a page that starts tests and draws their results
"""
# What the API calls a direction.
OPTIONS = {"send": {}, "reverse": {"reverse": True}, "both": {"bidir": True}}
FAULTS = {
    "client_agent_id": "Choose a client from the list.",
    "server_agent_id": "Choose a server from the list.",
    "direction": "Choose a direction from the list.",
    "protocol": "Choose TCP or UDP.",
    "parallel": "Streams must be a whole number from 1 to 128.",
    "time_seconds": "Seconds must be a whole number from 1 to 86400.",
    "server_port": "Port must be a whole number from 1 to 65535.",
}


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_TEMPLATES = Path(__file__).parent / "templates"
STYLE, SCRIPT = ((_TEMPLATES / name).read_text() for name in ("page.css", "page.js"))

# Nothing is loaded from elsewhere, framed by others or kept: the browser sees to that.
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src {_digest(STYLE)};"
    f" script-src {_digest(SCRIPT)}; img-src data:; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}

page = Blueprint("page", __name__)


class Plan(Struct):
    """The form that starts a test."""

    client_agent_id: int
    server_agent_id: int
    direction: Literal["send", "reverse", "both"]
    protocol: Literal["tcp", "udp"]
    parallel: Parallel
    time_seconds: Seconds
    server_port: Port


class Fault(Struct):
    """Why a form was not taken. `field` is the one to mend, empty when it is none of them."""

    words: str
    field: str = ""


@page.get("/")
def show() -> Response:
    """The page for a browser; for anything else, such as curl, a text that lists the calls."""
    if "text/html" not in request.headers.get("Accept", ""):
        return Response(CALLS, mimetype="text/plain", headers={"Vary": "Accept"})
    check_reader()
    if "test" not in request.args:
        return _document(None, _first_values())
    try:
        test = store().test(request.args.get("test", 0, int))
    except NotFound as error:
        return _document(None, _first_values(), Fault(f"{error}."), error.status)
    return _document(test, _values(test))


@page.post("/")
def start() -> AnyResponse:
    """Start a test and show it, or show the form again with what is wrong about it."""
    check_writer()
    values = request.form.to_dict()
    try:
        plan = msgspec.convert(values, Plan, strict=False)
        test = _start(plan)
    except msgspec.ValidationError as error:
        # It ends with the field's name, as in: Expected `int` <= 128 - at `$.parallel`
        field = next(name for name in FAULTS if f"{name}`" in str(error))
        return _document(None, values, Fault(FAULTS[field], field), 422)
    except Refused as error:
        return _document(None, values, Fault(f"{error}."), error.status)
    return _to(test)


@page.post("/tests/<int:test_id>/stop")
def stop(test_id: int) -> AnyResponse:
    """End a test, with the exercise that it belongs to."""
    check_writer()
    test = store().test(test_id)
    store().stop_exercise(test.exercise_id)
    return _to(test)


def _start(plan: Plan) -> Test:
    """Start an exercise of this one test; raises Refused, and then leaves none behind."""
    client, server = store().agent(plan.client_agent_id), store().agent(plan.server_agent_id)
    for agent in (client, server):
        _check_free(agent)
    exercise = store().create_exercise(f"page: {client.name} to {server.name}", plan.time_seconds)
    try:
        new = store().add_test(
            exercise.id,
            server_agent_id=server.id,
            client_agent_id=client.id,
            server_port=plan.server_port,
            udp=plan.protocol == "udp",
            parallel=plan.parallel,
            options=OPTIONS[plan.direction],
        )
    except Refused:
        store().stop_exercise(exercise.id)
        raise
    store().start_exercise(exercise.id)
    return new.test


def _check_free(agent: Agent) -> None:
    """Raise Conflict when the agent is disabled, or takes part in a test that goes on: the end of
    an exercise stops all that its agents run, and that would be the new test too.
    """
    if agent.disabled:
        raise Conflict("agent_disabled", f"{agent.name!r} is disabled")
    for test in store().tests():
        if agent.id in (test.client_agent_id, test.server_agent_id) and under_way(store(), test):
            message = f"{agent.name!r} takes part in test {test.id}: wait for its end, or stop it"
            raise Conflict("agent_busy", message)


def _first_values() -> dict[str, Any]:
    """The form for a first test, from the last agent that is online to the first one."""
    online = [agent.id for agent in store().agents("online")] or [0]
    return {
        "client_agent_id": online[-1],
        "server_agent_id": online[0],
        "direction": "send",
        "protocol": "tcp",
        "parallel": 1,
        "time_seconds": 10,
        "server_port": 5201,
    }


def _values(test: Test) -> dict[str, Any]:
    """The form as it would start this test again."""
    payload = store().task(test.client_task_id).payload
    ways = (
        way for way, options in OPTIONS.items() if options and options.items() <= payload.items()
    )
    return {
        "client_agent_id": test.client_agent_id,
        "server_agent_id": test.server_agent_id,
        "direction": next(ways, "send"),
        "protocol": "udp" if test.udp else "tcp",
        "parallel": test.parallel,
        "time_seconds": test.time_seconds,
        "server_port": test.server_port,
    }


def _to(test: Test) -> AnyResponse:
    return redirect(url_for("page.show", test=test.id, _anchor="result"), 303)


def _document(
    test: Test | None, values: dict[str, Any], fault: Fault | None = None, status: int = 200
) -> Response:
    """The page with this test in full, or the newest one, and the form filled in."""
    now = utc_now()
    tests = store().tests()
    test = test or (tests[-1] if tests else None)
    goes_on = any(under_way(store(), each) for each in tests)
    text = render_template(
        "page.html",
        agents=agent_rows(store(), now),
        tests=listed_tests(store(), now),
        shown=shown(store(), test, now) if test else None,
        values=values,
        fault=fault,
        calls=CALLS,
        now=now,
        under_way=goes_on,
        reloads=not fault and (goes_on or not store().agents("online")),
        style=STYLE,
        script=SCRIPT,
        rate=lambda bps: quantity(bps, "bit/s"),
    )
    return make_response(text, status, _HEADERS)
