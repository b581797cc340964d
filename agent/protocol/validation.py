"""Decode the payload of a task, or say in plain words what is wrong with it."""

import ipaddress
import re
from typing import TypeVar, get_type_hints

import msgspec
from msgspec import inspect
from msgspec.json import encode

from agent.errors import ErrorClass, TaskError
from agent.protocol.payloads import (
    LOGINS,
    SECRET,
    ClientPayload,
    KillAllPayload,
    ServerPayload,
)

# A thousand levels of nesting are a RecursionError, all other faults ValueErrors.
_UNFIT = (ValueError, RecursionError)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
# Parts of msgspec's own messages.
_NO_OBJECT = "Expected `object`, got "
_MISSING = re.compile(r"missing required field `(\w+)`")
_KEY = re.compile(r" - at `\$\.(\w+)(?:\[\d+\])?`\Z")
_MOST_SHOWN = 60
# Keys that would choose another protocol or another target, in lower case and without `_` and `-`.
_DECISIVE = frozenset(
    "sctp dccp quic tcp udp protocol proto transport serverip serverport serverhost servername"
    " serveraddress server host hostname ip address target destination dest dst peer".split()
)
_Payload = TypeVar("_Payload", ServerPayload, ClientPayload, KillAllPayload)


def read_payload(raw: msgspec.Raw, kind: type[_Payload]) -> _Payload:
    """Decode the payload of a task.

    Raises TaskError(`bad_payload`), and TaskError(`unsupported`) for a key of a client that nobody
    knows and that asks for another protocol or target.
    """
    try:
        payload = msgspec.json.decode(raw, type=kind)
    except _UNFIT as error:
        raise _misfit(_fault(str(error), raw, kind)) from error
    bind = getattr(payload, "bind", None)
    # iperf3 would look a name up, and `-B` also takes `host%device`.
    if bind is not None and not _is_address(bind):
        raise _misfit(_must_be("bind", "an IP address", encode(bind)))
    for keys in LOGINS:
        given = [getattr(payload, key, None) for key in keys]
        if any(given) and None in given:
            raise _misfit(f"a login needs {' and '.join(keys)}")
    if isinstance(payload, ClientPayload):
        _check_client(payload, raw)
    return payload


def unknown_keys(raw: msgspec.Raw, known: type[msgspec.Struct]) -> list[str]:
    """The keys of a payload that the agent does not know, sorted."""
    return sorted(_values(raw).keys() - known.__struct_fields__)


def _check_client(payload: ClientPayload, raw: msgspec.Raw) -> None:
    as_it_is = (b"false", b"null", b'"udp"' if payload.udp else b'"tcp"')
    # Not for each of them: there may be a hundred thousand.
    values = _values(raw)
    for key in unknown_keys(raw, ClientPayload):
        plain, value = re.sub("[_-]", "", key.lower()), bytes(values[key])
        if plain in _DECISIVE and value.lower() not in as_it_is:
            words = f"payload: this agent does not know {key}, and would run another test"
            raise TaskError(ErrorClass.UNSUPPORTED, words)
    host = payload.server_ip
    # iperf3 would read `name%device` as --bind-dev.
    if not _is_address(host) and not _NAME.fullmatch(host):
        raise _misfit(_must_be("server_ip", "a host name or an IP address", encode(host)))
    if payload.reverse and payload.bidir:
        raise _misfit("give reverse or bidir, not both")
    if payload.tos is not None and payload.dscp is not None:
        raise _misfit("give tos or dscp, not both")


def _misfit(words: str) -> TaskError:
    return TaskError(ErrorClass.BAD_PAYLOAD, f"payload: {words}")


def _fault(error: str, raw: msgspec.Raw, kind: type[_Payload]) -> str:
    """What is wrong with a payload, given what msgspec says of it."""
    if error.startswith(_NO_OBJECT):
        # Of the kind alone: it may be an object written as a text, with a password in it.
        return f"it must be a JSON object, not {error.removeprefix(_NO_OBJECT).strip('`')}"
    if missing := _MISSING.search(error):
        return f"{missing[1]} is missing"
    place = _KEY.search(error)
    if place is None:
        return f"not valid JSON: {error}"
    key = place[1]
    accepted = _accepted(inspect.type_info(get_type_hints(kind, include_extras=True)[key]))
    return _must_be(key, accepted, _values(raw).get(key))


def _values(raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The values of a payload by key; none when it is not an object."""
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except _UNFIT:
        return {}


def _must_be(key: str, accepted: str, value: msgspec.Raw | bytes | None) -> str:
    """The message about a value, in JSON; only the beginning of a long one, none of a secret."""
    words = f"{key} must be {accepted}"
    if value is None or key in SECRET:
        return words
    shown = bytes(value).decode(errors="replace")
    return f"{words}, not {shown[:_MOST_SHOWN]}{'...' if len(shown) > _MOST_SHOWN else ''}"


def _accepted(kind: inspect.Type) -> str:
    """The values that a type accepts, in words."""
    match kind:
        case inspect.UnionType(types):
            known = (_accepted(each) for each in types if not isinstance(each, inspect.NoneType))
            return " or ".join(known)
        case inspect.LiteralType(values):
            return " or ".join(map(str, values))
        case inspect.Metadata(extra_json_schema={"description": words}):
            return str(words)
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType(ge=least, le=most):
            return f"a number from {least} to {most}"
        case inspect.BoolType():
            return "true or false"
    raise AssertionError(f"no words for {kind}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
