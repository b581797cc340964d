"""Find the JSON documents in what iperf3 wrote, and leave parts of a document out.

iperf3 writes one pretty-printed object per test, at times with other text in between; a wrapper
may lay it out anew. Objects inside an object begin behind a space, a quote or a bracket, so the
outermost ones can be told without parsing what cannot be read. A document may have 100 MB and is
never built in memory.
"""

import codecs
import mmap
import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from agent.errors import ErrorClass, TaskError

Buffer = bytes | memoryview | mmap.mmap
Span = tuple[int, int]

# The first brace of a line that begins with it or with other text, or one as iperf3 writes it.
_OPENING = re.compile(rb"""^(?:[^\s"{}\[\],][^{\n]*)?\{(?=\s*")|\{(?=\r?\n\t")""", re.MULTILINE)
# How msgspec says that an object is complete, and where the next byte is, counted from 1.
_COMPLETE = re.compile(r"trailing characters \(byte (\d+)\)")
# What printf makes of a number that is none, as a value and with a byte to spare for `null`.
_NO_NUMBER = re.compile(rb'(?<=":)(?:[ \t]+-?|-)(?:nan|inf(?:inity)?)(?=\s*[,}\]])', re.IGNORECASE)
_EMPTY_LIST = Raw(b"[]")
_MOST_STRAY_BRACES = 50
# Small enough not to show in the memory figures.
_TEXT_CHUNK = 1024**2
_Kind = TypeVar("_Kind")


class _Object(Struct):
    """Any JSON object: decoding to it checks the syntax and builds nothing."""


def find_documents(data: Buffer) -> list[Span]:
    """The spans of the complete JSON objects at the outermost level, in order.

    An object that is incomplete, invalid or not in UTF-8 is skipped, and so is other text. After
    50 braces that open no object the search ends: thousands of them would take minutes.
    """
    spans: list[Span] = []
    position = stray = 0
    with memoryview(data) as view:
        while stray < _MOST_STRAY_BRACES and (opening := _OPENING.search(view[position:])):
            start = position + opening.end() - 1
            if length := _length_of_object(view[start:]):
                position = start + length
                spans.append((start, position))
            else:
                position = start + 1
                stray += 1
    return spans


def find_unread(data: Buffer, spans: list[Span]) -> list[str]:
    """How each object begins that cannot be read: before, between and behind the documents found.

    An empty text where nothing is lost. What is behind the last document may still be written.
    """
    edges = [0, *(edge for span in spans for edge in span), len(data)]
    texts = []
    with memoryview(data) as view:
        for part in map(lambda end, start: view[end:start], edges[::2], edges[1::2]):
            opening = _OPENING.search(part)
            beginning = bytes(part[opening.end() - 1 :][:80]) if opening else b""
            texts.append(" ".join(beginning.decode(errors="replace").split()))
    return texts


def mended(data: Buffer) -> Iterator[tuple[int, bytes]]:
    """What to put where to make JSON of what iperf3 wrote; its length and all other bytes stay.

    A byte that is no UTF-8 becomes `?`, as a peer may put any into `--title` or `--extra-data`, and
    a number that is none becomes `null`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    place = 0
    with memoryview(data) as view:
        for start in range(0, len(view), _TEXT_CHUNK):
            text = decoder.decode(view[start : start + _TEXT_CHUNK]).encode(errors="replace")
            if text != view[place : place + len(text)]:
                yield place, text
            place += len(text)
        for found in _NO_NUMBER.finditer(view):
            yield found.start(), b"null".rjust(len(found[0]))


def without_nan(text: bytes) -> bytes:
    """The text with `null` for each number that is none."""
    return _NO_NUMBER.sub(b"null", text)


def without_streams(document: Buffer) -> bytes:
    """The document with an empty `streams` list in each interval; all other bytes stay.

    Raises TaskError(`bad_output`) when it does not have the shape of a document of iperf3.
    """
    parts = _parts(document, dict[str, Raw])
    if "intervals" in parts:
        intervals = _parts(parts["intervals"], list[dict[str, Raw]])
        lean = [{**interval, "streams": _EMPTY_LIST} for interval in intervals]
        parts["intervals"] = Raw(msgspec.json.encode(lean))
    return msgspec.json.encode(parts)


def without_intervals(document: Buffer) -> bytes:
    """The document with an empty `intervals` list; all other bytes stay.

    Raises TaskError(`bad_output`) when it is not a JSON object.
    """
    parts = _parts(document, dict[str, Raw])
    return msgspec.json.encode({**parts, "intervals": _EMPTY_LIST})


def decode(text: Buffer | Raw, kind: type[_Kind]) -> _Kind | None:
    """Decode a document or a part of one; None when it has another shape."""
    try:
        return msgspec.json.decode(text, type=kind, strict=False)
    except (ValueError, RecursionError):
        return None


def _parts(text: Buffer | Raw, kind: type[_Kind]) -> _Kind:
    if (parts := decode(text, kind)) is None:
        raise TaskError(ErrorClass.BAD_OUTPUT, "not a document of iperf3")
    return parts


def _length_of_object(view: memoryview) -> int:
    """The length of the object that begins there; 0 when it is invalid or not in UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        msgspec.json.decode(view, type=_Object)
    except (ValueError, RecursionError) as error:
        if not (complete := _COMPLETE.search(str(error))):
            return 0
        view = view[: int(complete[1]) - 1]
    while view[-1] in b" \t\r\n":
        view = view[:-1]
    try:
        # msgspec does not check the strings that it skips.
        for start in range(0, len(view), _TEXT_CHUNK):
            decoder.decode(view[start : start + _TEXT_CHUNK])
        decoder.decode(b"", final=True)
    except ValueError:
        return 0
    return len(view)
