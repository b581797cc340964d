"""Texts from the operating system, made fit for encoders and terminals: in this module only.

Python keeps each byte of a name that is no UTF-8 as half a surrogate pair. The agent uses such
a name as it is, to open a file or to run iperf3, and no encoder takes it.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec


def encodable(text: str) -> str:
    """The text with an escape for each half of a surrogate pair, such as `\\udcff`."""
    return text.encode(errors="backslashreplace").decode()


def printable(text: str) -> str:
    """The text on one line: an escape for all that a terminal would not just show."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def without_user(url: str) -> str:
    """A URL without whatever precedes the @, which may be a password."""
    return re.sub(r"(?is)^([a-z0-9]+://)?.*@", r"\1[hidden]@", url)


def hidden(secret: str, text: str) -> str:
    """The text without a secret, as it is or as JSON or Python write it."""
    forms = json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret)
    for form in {secret, *(each[1:-1] for each in forms)} - {""}:
        text = text.replace(form, "[hidden]")
    return text


def shortened(text: str, most: int) -> str:
    """The text, or its first `most` characters and how many it had."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def map_texts(change: Callable[[str], str], value: Any) -> Any:
    """A value for JSON with each of its texts changed, except for the names in objects.

    What JSON has no form for becomes a text.
    """
    if value is None or isinstance(value, bool | int | float | msgspec.Raw):
        return value
    if isinstance(value, dict):
        return {str(name): map_texts(change, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_texts(change, item) for item in value]
    return change(str(value))


def to_json(value: object) -> bytes:
    """The value as JSON, whatever bytes the names in it have."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value, builtin_types=(msgspec.Raw,))
        return msgspec.json.encode(map_texts(encodable, plain))
