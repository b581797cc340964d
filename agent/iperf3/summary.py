"""Read the figures of a document. All that nobody asks for is skipped and never built."""

import re

import msgspec
from msgspec import Raw, Struct

from agent.iperf3.documents import Buffer, decode

_NOTHING = re.compile(rb"\{\s*\}|null")
# iperf3 3.9 gives the sums of both directions one name; what the client sent comes first.
_TWIN = re.compile(
    rb'("(sum|sum_sent|sum_received)":\s*\{[^{}]*\},\s*(?:"sum\w*":\s*\{[^{}]*\},\s*)?)"\2":'
)
_FIRST_ERROR = re.compile(rb'\n\t"error":\t("(?:[^"\\]|\\.)*")')


class Sums(Struct, frozen=True):
    """The sums over all streams, of one direction of a test or of an interval of it.

    The protocol and the role decide which are there: only a TCP sender knows its `retransmits`, and
    a UDP receiver counts `packets` up to the last one that arrived. `start` and `end` are in
    seconds. iperf3 leaves an interval that is `omitted` out of its totals.
    """

    start: float | None = None
    end: float | None = None
    seconds: float | None = None
    bytes: float | None = None
    bits_per_second: float | None = None
    retransmits: float | None = None
    jitter_ms: float | None = None
    lost_packets: float | None = None
    packets: float | None = None
    lost_percent: float | None = None
    omitted: bool = False


class Cpu(Struct, frozen=True):
    """Per cent of one core: `host` is the side that wrote the document, `remote` the other."""

    host_total: float | None = None
    remote_total: float | None = None


class End(Struct, frozen=True):
    """The end of a test. `sum` is there for UDP only; iperf3 3.9 has only that for UDP."""

    sum: Sums | None = None
    sum_sent: Sums | None = None
    sum_received: Sums | None = None
    sum_bidir_reverse: Sums | None = None
    sum_sent_bidir_reverse: Sums | None = None
    sum_received_bidir_reverse: Sums | None = None
    cpu_utilization_percent: Cpu | None = None
    sender_tcp_congestion: str | None = None


class Request(Struct, frozen=True):
    """What was asked for: `duration` and `omit` in seconds, `blksize` in bytes.

    The duration is 0 for a test that ends after some `bytes`. Before 3.14 there is no `bidir`.
    `interval` is the writer's own, in seconds: 3.18 has it. `target_bitrate` is in bits per second
    and stream, 0 for no limit.
    """

    protocol: str | None = None
    num_streams: int | None = None
    duration: float | None = None
    omit: float | None = None
    blksize: float | None = None
    bytes: float | None = None
    interval: float | None = None
    reverse: int | None = None
    bidir: int | None = None
    target_bitrate: float | None = None


class Start(Struct, frozen=True):
    """The start of a test; `accepted_connection` is in a server's document only.

    iperf3 3.9 has the `target_bitrate` here.
    """

    version: str | None = None
    connected: list[object] | None = None
    target_bitrate: float | None = None
    test_start: Request | None = None
    accepted_connection: dict[str, Raw] | None = None

    @property
    def client(self) -> str:
        """The client's address in a server's document; empty if it has none."""
        return (decode((self.accepted_connection or {}).get("host", b'""'), str) or "")[:64]

    @property
    def client_port(self) -> int:
        """The client's port of a server's control connection; 0 if the document has none."""
        return decode((self.accepted_connection or {}).get("port", b"0"), int) or 0


class Summary(Struct, frozen=True):
    """What a document says apart from its intervals. `error` is empty when it has none.

    `has_end` is False for an empty `end`, which iperf3 writes after a failure.
    """

    error: str = ""
    start: Start = Start()
    end: End = End()
    has_end: bool = False

    @property
    def is_own(self) -> bool:
        """Whether iperf3 wrote it: of all documents from 3.9 to 3.22, and of no wrapper's."""
        return self.start.connected is not None or (self.start.version or "").startswith("iperf 3")

    @property
    def asked(self) -> Request:
        """What was asked for."""
        return self.start.test_start or Request()

    @property
    def is_servers(self) -> bool:
        """Whether a server wrote it."""
        return self.start.accepted_connection is not None

    @property
    def seconds(self) -> float | None:
        """How long the test took."""
        return (self.end.sum_sent or self.end.sum or Sums()).seconds


class Interval(Struct, frozen=True):
    """One interval; `sum_bidir_reverse` is the other direction of a bidirectional test."""

    sum: Sums | None = None
    sum_bidir_reverse: Sums | None = None


class _Document(Struct):
    error: str | None = None
    start: Start | None = None
    end: Raw = Raw(b"{}")
    intervals: Raw = Raw(b"[]")


def read_summary(document: Buffer | Raw) -> Summary | None:
    """Read all but the intervals; None when it does not have the shape of iperf3's documents."""
    found = decode(document, _Document)
    if found is None:
        return None
    start, has_end = found.start or Start(), not _NOTHING.fullmatch(found.end)
    end = decode(_without_twins(found.end, start), End) if has_end else End()
    if end is None:
        return None
    return Summary(_cause(found.error or "", document), start, end, has_end)


def read_intervals(document: Buffer | Raw) -> list[Interval]:
    """Read the intervals; an empty list when they do not have iperf3's shape."""
    found = decode(document, _Document) or _Document()
    return decode(_without_twins(found.intervals, found.start or Start()), list[Interval]) or []


def _without_twins(text: bytes | Raw, start: Start) -> bytes | Raw:
    """A part of a document in which each sum has a name of its own, as from 3.10 on."""
    if not (start.version or "").startswith("iperf 3.9"):
        return text
    for _ in range(2):
        text = _TWIN.sub(rb'\1"\2_bidir_reverse":', bytes(text))
    return text


def _cause(error: str, document: Buffer | Raw) -> str:
    """iperf3 3.9 writes the key twice when it cannot listen: the cause, then `exiting`."""
    first = _FIRST_ERROR.search(document) if error == "exiting" else None
    return msgspec.json.decode(first[1], type=str) if first else error
