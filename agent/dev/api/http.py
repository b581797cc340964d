"""What all calls share: how one is described, bodies in, answers and refusals out."""

import re
from collections.abc import Callable, Iterable
from hmac import compare_digest
from inspect import Parameter, signature
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
from flask import Flask, Response, current_app, request
from msgspec import NODEFAULT
from werkzeug.exceptions import HTTPException

from agent.dev.errors import Refused, misfit
from agent.dev.store.store import Store

# The front end's limit (nginx counts a megabyte as 1024 * 1024 bytes), here for results alone.
MAX_BODY_BYTES = 100 * 1024**2
# Of every other call. A heartbeat with 1,024 tests has 0.2 MiB.
MAX_CALL_BYTES = 1024**2

_Sent = TypeVar("_Sent")


class Call(NamedTuple):
    """A method and a path, such as `GET /v1/tasks/<int:task_id>`, and the function that answers.

    As in FastAPI, the function's parameters are what a caller sends: in the path, and all others
    in the JSON of the body, or in the query of a GET.
    """

    rule: str
    function: Callable[..., Any]
    status: int = 200
    max_bytes: int = MAX_CALL_BYTES


def add_calls(
    app: Flask, calls: Iterable[Call], proof: Callable[[], dict[str, Any]], *proven: str
) -> None:
    """Have the application answer calls.

    `proof` raises Refused unless the caller proves who it is, and returns the parameters that are
    `proven` by that. Nothing of a body is read before.
    """
    for call in calls:
        method, path = call.rule.split(maxsplit=1)
        app.add_url_rule(path, call.rule, _view(call, proof, proven), methods=[method])


def _view(
    call: Call, proof: Callable[[], dict[str, Any]], proven: tuple[str, ...]
) -> Callable[..., Response]:
    known = {*proven, *re.findall(r":(\w+)>", call.rule)}
    wanted = [
        (name, each.annotation, NODEFAULT if each.default is Parameter.empty else each.default)
        for name, each in signature(call.function).parameters.items()
        if name not in known
    ]
    kind = msgspec.defstruct("Wanted", wanted)

    def view(**given: Any) -> Response:
        given |= proof()
        if wanted:
            given |= msgspec.structs.asdict(sent(kind, call.max_bytes))
        answer = call.function(**given)
        return answer if isinstance(answer, Response) else reply(answer, call.status)

    return view


def store() -> Store:
    """The store of the application that serves this request."""
    return cast(Store, current_app.extensions["agent.dev.store"])


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of JSON."""
    return Response(msgspec.json.encode(value), status, headers, mimetype="application/json")


def sent(kind: type[_Sent], max_bytes: int = MAX_CALL_BYTES) -> _Sent:
    """The JSON of the request's body, or the query of a GET, as that type.

    Raises Refused, and HTTPException (413) for a body of more than `max_bytes`, of which no more
    is kept. Call it when it is known who asks: each of thousands of connections may bring as much.
    """
    request.max_content_length = max_bytes
    try:
        if request.method in ("GET", "HEAD"):
            return msgspec.convert(request.args.to_dict(), kind, strict=False)
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(400, "bad_encoding", "this Manager accepts no Content-Encoding")
        content = request.get_data(cache=False)
        # msgspec checks the structure of a Raw part but not its text.
        if not content.isascii():
            content.decode()
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise misfit(str(error)) from error


def is_secret(given: str, secret: str) -> bool:
    """Whether what a caller gave is the secret. The time this takes says nothing about it."""
    return compare_digest(given.encode(), secret.encode())


def refuse(refused: Refused) -> Response:
    """The answer to a call that is refused, in the form that today's Manager has for its status."""
    words = str(refused)
    said = {"error": refused.error, "message": words}
    if refused.status in (404, 409):
        return reply({**said, "details": {"path": request.path}}, refused.status)
    detail: Any = {**said, "details": refused.details} if refused.details else said
    if refused.status == 422:
        detail = [{"loc": ["body"], "msg": words, "type": refused.error}]
    elif not refused.error:
        detail = words
    return reply({"detail": detail}, refused.status)


def no_such_call(error: HTTPException) -> Response:
    """The answer to an unknown path or method."""
    return reply({"detail": error.name}, error.code or 404, dict(error.get_headers()))
