"""Read the output of `--json-stream`, and turn it into the document that `-J` writes.

A client writes an object per line, `{"event": ..., "data": ...}`: `start`, an `interval` after
each interval, an `error` if there is one, and `end`. Other lines are skipped. 3.18 and 3.22 flush
each line, into a file as well, so `--forceflush` is not needed.
"""

from collections.abc import Iterable, Iterator

import msgspec
import structlog
from msgspec import Raw, Struct

from agent.iperf3.documents import decode, without_nan
from agent.iperf3.summary import Interval, Sums

# A line for 256 streams has less than 200 kB.
LONGEST_LINE = 1024**2
_OPENING = b'{"start":%b,"intervals":['
# When no test began, `-J` has a start without a connection, and the stream has no start.
_NO_START = b'{"connected":[]}'

log = structlog.get_logger()


class _StreamLine(Struct):
    event: str
    data: Raw


def read_lines(data: bytes) -> tuple[list[Sums], bool, int]:
    """What the complete lines of `data` say, and their length in bytes.

    That is the sums of their intervals, and whether one says that the test has begun. Of a line
    that is longer than LONGEST_LINE all that is there is skipped.
    """
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) >= LONGEST_LINE:
        whole = len(data)
    lines = list(filter(None, (decode(text, _StreamLine) for text in data[:whole].split(b"\n"))))
    intervals = [decode(line.data, Interval) for line in lines if line.event == "interval"]
    sums = [each.sum for each in intervals if each and each.sum]
    return sums, any(line.event == "start" for line in lines), whole


def compose(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the parts of the document that `-J` would have written, all values byte for byte.

    But a `nan` becomes `null`. A stream that was cut short gets an empty `end`, like that of a
    failed test. A stream without an event yields nothing.
    """
    start = _NO_START
    rest: dict[str, bytes] = {}
    opened = False
    for text in lines:
        line = decode(text, _StreamLine) or decode(without_nan(text), _StreamLine)
        if line is None:
            if text.startswith(b"{"):
                log.warning("iperf3 wrote JSON that cannot be read", beginning=str(text[:80]))
            continue
        if line.event == "interval":
            yield b"," if opened else _OPENING % start
            yield line.data
            opened = True
        elif line.event == "start":
            start = line.data
        else:
            rest.setdefault(line.event, line.data)
    if not opened:
        if start is _NO_START and not rest:
            return
        yield _OPENING % start
    yield b"]"
    for key, value in {"end": b"{}", **rest}.items():
        yield b",%b:%b" % (msgspec.json.encode(key), value)
    yield b"}"
