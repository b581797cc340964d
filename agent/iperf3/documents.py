"""Find the JSON in what iperf3 wrote, read its figures, and make it smaller.

iperf3 writes one pretty-printed object for each test, with nothing between them but stray text
now and then. cJSON indents with tabs and a JSON string holds no raw newline, so the outermost
level is seen without parsing: `{`, newline, one tab, `"` opens an object there, and a `}` at the
start of a line closes it. A document may have 100 MB: none of it is ever built.
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
_EMPTY_OBJECT = re.compile(rb"\{\s*\}")
_FIRST_ERROR = re.compile(rb'\n\t"error":\t("(?:[^"\\]|\\.)*")')
# Small enough to leave no mark on memory.
STRAY_BRACES = 50
_TEXT_CHUNK = 1024**2
RATES = 120
RATES_UP_TO = 4 * 1024**2
_Kind = TypeVar("_Kind")


class Sums(Struct, frozen=True):
    """The sums over all streams; of these, a document has what fits its protocol and role."""

    seconds: float | None = None
    bytes: float | None = None
    bits_per_second: float | None = None
    retransmits: float | None = None
    jitter_ms: float | None = None
    lost_packets: float | None = None
    packets: float | None = None
    lost_percent: float | None = None


class Cpu(Struct, frozen=True):
    """Per cent of one core: `host` is the side that wrote the document, `remote` the other."""

    host_total: float | None = None
    remote_total: float | None = None


class End(Struct, frozen=True):
    """The end of a test. `sum` is there for UDP only; iperf3 3.9 has only that for UDP."""

    sum: Sums | None = None
    sum_sent: Sums | None = None
    sum_received: Sums | None = None
    cpu_utilization_percent: Cpu | None = None
    sender_tcp_congestion: str | None = None


class Request(Struct, frozen=True):
    """What was asked for: `duration` in seconds, 0 for a test that ends after some bytes."""

    protocol: str | None = None
    num_streams: int | None = None
    duration: float | None = None
    reverse: int | None = None
    bidir: int | None = None


class Peer(Struct, frozen=True):
    """The client whose connection a server accepted."""

    host: str | None = None


class Start(Struct, frozen=True):
    """The start of a test; `accepted_connection` is in a server's document only."""

    version: str | None = None
    test_start: Request | None = None
    accepted_connection: Peer | None = None


class Summary(Struct, frozen=True):
    """What is read of a document. `error` is empty when it has none.

    `has_end` says whether `end` holds anything: after a failure iperf3 writes an empty one.
    """

    error: str
    start: Start
    end: End
    has_end: bool

    @property
    def congestion(self) -> str:
        """The congestion control that the sender used; empty when the document has none."""
        return self.end.sender_tcp_congestion or ""


class _Object(Struct):
    """Any JSON object: decoding to it checks the syntax and builds nothing."""


class _Document(Struct):
    error: str | None = None
    start: Start | None = None
    end: Raw = Raw(b"{}")


class _Interval(Struct):
    sum: Sums | None = None


class _Intervals(Struct):
    intervals: list[_Interval] = []


def find_documents(data: Buffer) -> list[Span]:
    """The spans of the complete JSON objects of the outermost level, in order.

    An object that is still being written, or is not valid JSON in UTF-8, is left out, and so is
    the text around the objects. An object on a line of its own is found too. The search is given
    up after STRAY_BRACES openings of no object, or a flood of them would take for ever.
    """
    spans: list[Span] = []
    position = stray = 0
    with memoryview(data) as view:
        while stray < STRAY_BRACES and (opening := _OPENING.search(view, position)):
            pretty = view[opening.end()] == ord("\n")
            closing = (_PRETTY_CLOSING if pretty else _LINE_CLOSING).search(view, opening.end())
            if closing is not None and _is_object(view[opening.start() : closing.end()]):
                spans.append((opening.start(), closing.end()))
                position = closing.end()
            else:
                position = opening.end()
                stray += 1
    return spans


def read_summary(document: Buffer) -> Summary | None:
    """Read the figures of one document; None when it does not look like iperf3's."""
    try:
        found = msgspec.json.decode(document, type=_Document, strict=False)
        end = msgspec.json.decode(found.end, type=End | None, strict=False)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return Summary(
        error=_cause(found.error or "", document),
        start=found.start or Start(),
        end=end or End(),
        has_end=end is not None and _EMPTY_OBJECT.fullmatch(found.end) is None,
    )


def read_rates(document: Buffer) -> list[float]:
    """The sums of the intervals in bits per second, for a curve of RATES points at most.

    Empty for a document without them, and for a large one: a curve is not worth the time.
    """
    if len(document) > RATES_UP_TO:
        return []
    try:
        intervals = msgspec.json.decode(document, type=_Intervals, strict=False).intervals
    except (msgspec.MsgspecError, RecursionError):
        return []
    rates = [interval.sum.bits_per_second or 0.0 for interval in intervals if interval.sum]
    step = -(-len(rates) // RATES) or 1
    return rates[::step]


def without_streams(document: Buffer) -> bytes:
    """The document with an empty `streams` in each interval, all else byte for byte as it was.

    A reader that walks over the streams still can. Raises TaskError(`bad_output`) for what is
    not shaped like a document of iperf3.
    """
    parts = _decode_or_raise(document, dict[str, Raw])
    if "intervals" in parts:
        rows = _decode_or_raise(parts["intervals"], list[dict[str, Raw]])
        lean = [{**row, "streams": _EMPTY_LIST} for row in rows]
        parts["intervals"] = Raw(msgspec.json.encode(lean))
    return msgspec.json.encode(parts)


def without_intervals(document: Buffer) -> bytes:
    """The document with an empty `intervals`, all else byte for byte as it was.

    Raises TaskError(`bad_output`) for what is no JSON object.
    """
    parts = _decode_or_raise(document, dict[str, Raw])
    return msgspec.json.encode({**parts, "intervals": _EMPTY_LIST})


def _decode_or_raise(text: Buffer | Raw, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise TaskError(ErrorClass.BAD_OUTPUT, f"not a document of iperf3: {error}") from error


def _cause(error: str, document: Buffer) -> str:
    """iperf3 3.9 writes the key twice when it cannot listen: the cause, then `exiting`."""
    first = _FIRST_ERROR.search(document) if error == "exiting" else None
    return msgspec.json.decode(first[1], type=str) if first else error


def _is_object(view: memoryview) -> bool:
    try:
        msgspec.json.decode(view, type=_Object)
        _check_text(view)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _check_text(view: memoryview) -> None:
    """Raise UnicodeDecodeError when it is not UTF-8: msgspec does not look into what it skips,
    and a peer's `--title` or `--extra-data` may hold any bytes.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(view), _TEXT_CHUNK):
        decoder.decode(view[start : start + _TEXT_CHUNK])
    decoder.decode(b"", final=True)
