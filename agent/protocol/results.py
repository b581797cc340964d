"""What became of a task: its outcome with the report, the document and the figures."""

from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agent.errors import ErrorClass
from agent.protocol.diagnoses import Diagnosis
from agent.quantities import rate


class Flow(Struct, frozen=True, omit_defaults=True):
    """What went from one side to the other. None is what nobody knows.

    `sent`, `received` and `rates` (of the intervals) are in bits per second: at the sender, at
    the receiver, and as the writer of the document saw them. Retransmits are TCP's, all that
    follows UDP's. docs/protocol.md explains each.
    """

    sent: float | None = None
    received: float | None = None
    sent_bytes: float | None = None
    received_bytes: float | None = None
    retransmits: float | None = None
    jitter_ms: float | None = None
    lost_packets: float | None = None
    packets: float | None = None
    lost_percent: float | None = None
    rates: list[float] = []

    @property
    def is_known(self) -> bool:
        """Whether anybody knows anything of it."""
        return (self.sent, self.received) != (None, None)

    @property
    def carried(self) -> float | None:
        """How many bytes arrived, or else were sent; None when not even that is known."""
        return self.sent_bytes if self.received_bytes is None else self.received_bytes

    @property
    def rate(self) -> float:
        """The rate at the receiver, or else at the sender, in bits per second; 0 if not known."""
        return (self.sent if self.received is None else self.received) or 0.0

    @property
    def seconds(self) -> float:
        """How long it took by its bytes and its rate; 0 if not known."""
        if self.sent:
            return (self.sent_bytes or 0.0) * 8 / self.sent
        return (self.received_bytes or 0.0) * 8 / self.received if self.received else 0.0

    def headline(self) -> str:
        """Its rate in words, which is the receiver's if that is known; empty if none is."""
        if self.received is None and self.sent is not None:
            return f"{rate(self.sent)} sent"
        return rate(self.rate) if self.is_known else ""


def direction_of(reverse: object, bidir: object) -> str:
    """The direction of a test by what was asked for, as in Figures."""
    return "bidirectional" if bidir else "reverse" if reverse else "forward"


class Figures(Flow, frozen=True, omit_defaults=True):
    """What a test measured: the key `agent.figures`, and what every page shows.

    `direction` is forward (the client sends), reverse, or bidirectional: then the flow itself is
    what the client sent, and `backward` what the server sent. `asked` is the bitrate that was asked
    for, of all streams of a direction, in bits per second; None without a limit. `overtime` are the
    seconds that a test of some bytes may have been over before iperf3 saw it, and `omitted` those
    at its start that are left out of all figures; None for none. `streams` are those of each
    direction, and `peer` is the client's address, which only a server has to say.
    """

    direction: str = "forward"
    protocol: str = "tcp"
    asked: float | None = None
    overtime: float | None = None
    omitted: float | None = None
    streams: int = 1
    peer: str = ""
    backward: Flow | None = None

    @property
    def flows(self) -> list[Flow]:
        """One flow, or the two of a bidirectional test."""
        return [self, self.backward] if self.backward else [self]

    def of_each_way(self, words: Callable[[Flow], str]) -> str:
        """What there is to say of each flow; what is said of the way back begins with that."""
        said = zip(("", "back "), map(words, self.flows))
        return ", ".join(way + text for way, text in said if text)


class Report(Struct, omit_defaults=True):
    """The `agent` key of a result: how the test was run, and what a reader should know.

    docs/diagnosis.md has the figures of `path` and `host`. What nobody could read is not there.
    `diagnosis` is of what the figures' own flow is, `diagnosis_bidir_reverse` of the way back. The
    reason why a server has `ended`, or of a failure, is that a person `stopped` it.
    """

    version: str = ""
    iperf3_version: str = ""
    argv: list[str] = []
    attempts: int = 0
    started_at: str = ""
    finished_at: str = ""
    interface: str = ""
    mtu: int = 0
    speed_mbps: int = 0
    kernel: str = ""
    congestion: str = ""
    path: dict[str, float] = {}
    host: dict[str, Any] = {}
    diagnosis: Diagnosis | None = None
    diagnosis_bidir_reverse: Diagnosis | None = None
    warnings: list[str] = []
    error_class: ErrorClass | None = None
    ended: str = ""
    stopped: bool = False
    truncated: str = ""
    figures: Figures | None = None


class _Result(Struct):
    agent: Report | None = None


def read_report(result: bytes | msgspec.Raw) -> Report:
    """The report in the result of a task; an empty one when the result has none."""
    try:
        return msgspec.json.decode(result, type=_Result).agent or Report()
    except (ValueError, RecursionError):
        return Report()


class Form(Enum):
    """How much of its document a result carries; the value, `agent.truncated`, is what it lacks."""

    WHOLE = ""
    WITHOUT_STREAMS = "the streams of each interval"
    WITHOUT_INTERVALS = "the intervals"
    WITHOUT_DOCUMENT = "the whole document"

    @property
    def next_smaller(self) -> "Form | None":
        """The form that leaves out a little more; None after the smallest."""
        forms = list(Form)
        return next(iter(forms[forms.index(self) + 1 :]), None)


class Document(Struct, frozen=True):
    """One JSON object inside a file that iperf3 wrote: the bytes from `start` up to `end`."""

    path: str
    start: int
    end: int


class Outcome(Struct, frozen=True):
    """What is reported of a task: the report and at most one of `document` and `answer`.

    `stderr` is what an operator reads at the Manager; `answer` has the agent's own keys of the
    result (`started`, `killed`, ...). Only a server has several outcomes; the last is `final`.
    """

    status: Literal["succeeded", "failed"]
    report: Report
    exit_code: int = 0
    stderr: str = ""
    answer: dict[str, bool | int] = {}
    document: Document | None = None
    final: bool = True
    figures: Figures | None = None

    def lose_document(self) -> "Outcome":
        """The same without its document, which the report says."""
        warnings = [*self.report.warnings, "The document was lost on the agent's disk."]
        return replace(self, document=None, report=replace(self.report, warnings=warnings))
