"""Read what `--json-stream` writes, and make of it the document that `-J` writes.

A client puts one object on a line, `{"event": ..., "data": ...}`: `start`, then an `interval` each
time, then `error` if there is one, and `end`. What is no such line is skipped. 3.18 and 3.22 flush
after each line, also into a file, so that `--forceflush` would change nothing.
"""

from collections.abc import Iterator
from typing import BinaryIO, TypeVar

import msgspec
from msgspec import Raw, Struct

# A line of 256 streams has less than 200 kB.
LONGEST_LINE = 1024**2
# Where no test began, `-J` has a start without a connection, and the stream has none at all.
_NO_START = b'{"connected":[]}'

_Kind = TypeVar("_Kind")


class Interval(Struct, frozen=True):
    """The sum over the streams of one interval, in the direction that the client was asked for.

    `retransmits` is there for a sender over TCP only. What is `omitted` counts for no total.
    """

    bits_per_second: float | None = None
    retransmits: int | None = None
    omitted: bool = False


class _StreamLine(Struct):
    event: str
    data: Raw


class _StreamSum(Struct):
    sum: Interval


def read_intervals(data: bytes) -> tuple[list[Interval], int]:
    """The intervals in the whole lines of `data`, and how many bytes those lines have.

    Of a line that is longer than LONGEST_LINE so much is passed over.
    """
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) >= LONGEST_LINE:
        whole = len(data)
    found = []
    for text in data[:whole].split(b"\n"):
        line = _decoded(text, _StreamLine)
        if line and line.event == "interval" and (interval := _decoded(line.data, _StreamSum)):
            found.append(interval.sum)
    return found, whole


def compose(stream: BinaryIO) -> Iterator[bytes]:
    """The document in the shape of `-J`, piece by piece, each value byte for byte iperf3's.

    A stream that was cut short has an empty `end`, like a test that failed. Yields nothing when
    there is no event in it.
    """
    start = b""
    rest: dict[str, bytes] = {}
    opened = False
    while text := stream.readline(LONGEST_LINE):
        line = _decoded(text, _StreamLine)
        if line is None:
            continue
        if line.event == "interval":
            yield b"," if opened else _opening(start)
            yield line.data
            opened = True
        elif line.event == "start":
            start = line.data
        else:
            rest.setdefault(line.event, line.data)
    if not (opened or start or rest):
        return
    if not opened:
        yield _opening(start)
    yield b"]"
    for key, value in {"end": b"{}", **rest}.items():
        yield b",%b:%b" % (msgspec.json.encode(key), value)
    yield b"}"


def _opening(start: bytes) -> bytes:
    return b'{"start":%b,"intervals":[' % (start or _NO_START)


def _decoded(text: bytes, kind: type[_Kind]) -> _Kind | None:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
