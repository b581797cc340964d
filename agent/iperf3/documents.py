"""Find the JSON documents in what iperf3 wrote, and leave parts of a document out.

iperf3 writes one pretty-printed object per test, at times with other text in between. It indents
with tabs and puts no raw newline inside a string, so the outermost objects can be found without
parsing: `{`, newline, tab, `"` opens one, and a `}` at the start of a line closes it. A document
may have 100 MB and is never built in memory.
"""

import codecs
import mmap
import re
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from agent.error_classes import ErrorClass
from agent.errors import TaskError

Buffer = bytes | memoryview | mmap.mmap
Span = tuple[int, int]

_OPENING = re.compile(rb'\{(?=\n\t"|")')
_PRETTY_CLOSING = re.compile(rb"\n\}")
_LINE_CLOSING = re.compile(rb"\}(?=[ \t\r\0]*(?:\n|\Z))")
_EMPTY_LIST = Raw(b"[]")
_MOST_STRAY_BRACES = 50
# Small enough not to show in the memory figures.
_TEXT_CHUNK = 1024**2
_Kind = TypeVar("_Kind")


class _Object(Struct):
    """Any JSON object: decoding to it checks the syntax and builds nothing."""


def find_documents(data: Buffer) -> list[Span]:
    """The spans of the complete JSON objects at the outermost level, in order.

    An object on a single line is found as well. An object that is incomplete, invalid or not in
    UTF-8 is skipped, and so is other text. After 50 braces that open no object the search ends:
    thousands of them would take minutes.
    """
    spans: list[Span] = []
    position = stray = 0
    with memoryview(data) as view:
        while stray < _MOST_STRAY_BRACES and (opening := _OPENING.search(view, position)):
            pretty = view[opening.end()] == ord("\n")
            closing = (_PRETTY_CLOSING if pretty else _LINE_CLOSING).search(view, opening.end())
            if closing is not None and _is_object(view[opening.start() : closing.end()]):
                spans.append((opening.start(), closing.end()))
                position = closing.end()
            else:
                position = opening.end()
                stray += 1
    return spans


def without_streams(document: Buffer) -> bytes:
    """The document with an empty `streams` list in each interval; all other bytes stay.

    Raises TaskError(`bad_output`) when it does not have the shape of a document of iperf3.
    """
    parts = _decode(document, dict[str, Raw])
    if "intervals" in parts:
        intervals = _decode(parts["intervals"], list[dict[str, Raw]])
        lean = [{**interval, "streams": _EMPTY_LIST} for interval in intervals]
        parts["intervals"] = Raw(msgspec.json.encode(lean))
    return msgspec.json.encode(parts)


def without_intervals(document: Buffer) -> bytes:
    """The document with an empty `intervals` list; all other bytes stay.

    Raises TaskError(`bad_output`) when it is not a JSON object.
    """
    parts = _decode(document, dict[str, Raw])
    return msgspec.json.encode({**parts, "intervals": _EMPTY_LIST})


def _decode(text: Buffer | Raw, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(text, type=kind)
    except (ValueError, RecursionError) as error:
        raise TaskError(ErrorClass.BAD_OUTPUT, f"not a document of iperf3: {error}") from error


def _is_object(view: memoryview) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        msgspec.json.decode(view, type=_Object)
        # msgspec does not check the strings that it skips, and a peer may put any bytes into
        # `--title` or `--extra-data`.
        for start in range(0, len(view), _TEXT_CHUNK):
            decoder.decode(view[start : start + _TEXT_CHUNK])
        decoder.decode(b"", final=True)
    except (ValueError, RecursionError):
        return False
    return True
