"""Whether an iperf3 run succeeded, why not, and what to know before trusting its figures."""

import signal

from msgspec import Struct

from agent.error_classes import ErrorClass
from agent.iperf3.documents import (
    Buffer,
    Request,
    Span,
    Summary,
    Sums,
    find_documents,
    read_rates,
    read_summary,
)
from agent.iperf3.failures import classify, error_line
from agent.iperf3.features import Features
from agent.protocol import Figures

# What another attempt a little later may well cure.
RETRIABLE = frozenset({ErrorClass.REFUSED, ErrorClass.BUSY})

# Of one core, in per cent; iperf3 measures over the whole test, its start and end included.
_BUSY_CORE = 95.0
# In per cent: below it, loss says little about a test of some seconds.
_MUCH_LOSS = 1.0
# A test that ends by itself has at least this share of the time it was given.
_FULL_LENGTH = 0.9
# From this release each stream has a thread of its own.
_THREADED = (3, 16)


class Verdict(Struct, frozen=True):
    """How a run ended.

    `error_class` is None and `message` empty when it is ok. `span` is where in stdout the newest
    document is, a partial one of a failed run too; None when there is none. `figures` are None
    when it has no end.
    """

    ok: bool
    error_class: ErrorClass | None
    message: str
    span: Span | None = None
    summary: Summary | None = None
    figures: Figures | None = None


class Served(Struct, frozen=True):
    """What a server has served lately: where its newest complete document is, and its figures.

    `done` is how far the output need not be looked at again.
    """

    span: Span | None
    figures: Figures | None
    done: int


def judge_client(exit_code: int, stdout: Buffer, stderr: str) -> Verdict:
    """Judge a client that ended by itself; the caller knows whether it stopped it.

    It succeeded when the exit code is 0 and there is a document with no error and an end that
    is not empty: iperf3 3.11 to 3.13 exit 0 on errors, and 3.19 and later when interrupted.
    `exit_code` is negative for a signal, as subprocess has it.
    """
    span, summary = _newest(stdout)
    figures = None
    if span and summary and summary.has_end:
        with memoryview(stdout) as view:
            figures = _figures(view[slice(*span)], summary)
    if exit_code == 0 and summary is not None and not summary.error and summary.has_end:
        return Verdict(True, None, "", span, summary, figures)
    error_class, message = _why(exit_code, stderr, span, summary)
    return Verdict(False, error_class, message, span, summary, figures)


def judge_server_exit(exit_code: int, stdout: Buffer, stderr: str) -> Verdict:
    """Say why a server ended before it listened, which is never a success."""
    return Verdict(False, *_why(exit_code, stderr, *_newest(stdout)))


def last_served(data: Buffer) -> Served:
    """The newest complete document of a test in what a server wrote.

    A server that is probed or stopped while idle writes documents with an empty end: those
    replace nothing, and the last one stays in view for what it may say of the server's end.
    `data` may be a part of the output that starts between two documents.
    """
    spans = find_documents(data)
    with memoryview(data) as view:
        for start, end in reversed(spans):
            summary = read_summary(view[start:end])
            if summary is not None and summary.has_end:
                return Served((start, end), _figures(view[start:end], summary), end)
    return Served(None, None, spans[-1][0] if spans else 0)


def _figures(document: Buffer, summary: Summary) -> Figures:
    """What a document that has an end, and whose summary this is, says in a few numbers."""
    sums = summary.end.sum or Sums()
    sent, received = summary.end.sum_sent or sums, summary.end.sum_received or sums
    asked = summary.start.test_start or Request()
    return Figures(
        direction="bidirectional" if asked.bidir else "reverse" if asked.reverse else "forward",
        sent=sent.bits_per_second,
        received=received.bits_per_second,
        retransmits=sent.retransmits,
        jitter_ms=sums.jitter_ms,
        lost_percent=sums.lost_percent,
        rates=read_rates(document),
    )


def is_cut_short(summary: Summary) -> bool:
    """Whether a test ended long before its time, whatever its document says."""
    return bool(_length_warnings(summary))


def warnings(summary: Summary, features: Features) -> list[str]:
    """What a reader should know before trusting the figures, one sentence each.

    `features` is of the iperf3 that wrote the document; the other side's version is not known.
    """
    sides = ("server", "client") if summary.start.accepted_connection else ("client", "server")
    return [
        *_cpu_warnings(summary, features, sides),
        *_loss_warnings(summary),
        # A test that was cut short has no report of the receiver: that says nothing of its own.
        *(_length_warnings(summary) or _silence_warnings(summary)),
    ]


def _newest(stdout: Buffer) -> tuple[Span | None, Summary | None]:
    spans = find_documents(stdout)
    if not spans:
        return None, None
    start, end = spans[-1]
    with memoryview(stdout) as view:
        return spans[-1], read_summary(view[start:end])


def _why(
    code: int, stderr: str, span: Span | None, summary: Summary | None
) -> tuple[ErrorClass, str]:
    """The error class of a run that failed, and the words for it."""
    words = (summary.error if summary else "") or error_line(stderr)
    return classify(words) if words else _unexplained(code, span, summary)


def _unexplained(code: int, span: Span | None, summary: Summary | None) -> tuple[ErrorClass, str]:
    if code < 0:
        return ErrorClass.KILLED, f"iperf3 was ended by {_signal_name(-code)}"
    if code > 0:
        return ErrorClass.OTHER, f"iperf3 ended with exit code {code} and did not say why"
    if span is None:
        return ErrorClass.BAD_OUTPUT, "iperf3 ended with exit code 0 but wrote no JSON document"
    if summary is None:
        return ErrorClass.BAD_OUTPUT, "iperf3 wrote a JSON document that is not of its own shape"
    return ErrorClass.BAD_OUTPUT, "iperf3 wrote a document without an end: it holds no result"


def _signal_name(number: int) -> str:
    return next((known.name for known in signal.Signals if known == number), f"signal {number}")


def _cpu_warnings(summary: Summary, features: Features, sides: tuple[str, str]) -> list[str]:
    cpu = summary.end.cpu_utilization_percent
    if cpu is None:
        return []
    here, there = cpu.host_total or 0.0, cpu.remote_total or 0.0
    single = features.release < _THREADED
    why = f", and iperf3 {features.version} does all its work in one thread" if single else ""
    bound = "the test may have been bound by it and not by the network."
    found = []
    if here >= _BUSY_CORE * (1 if single else _streams(summary)):
        found.append(f"The {sides[0]} used {here:.0f} % of a core{why}: {bound}")
    if there >= _BUSY_CORE:
        found.append(f"The {sides[1]} used {there:.0f} % of a core: {bound}")
    return found


def _streams(summary: Summary) -> int:
    asked = summary.start.test_start
    if asked is None:
        return 1
    return max(1, asked.num_streams or 1) * (2 if asked.bidir else 1)


def _loss_warnings(summary: Summary) -> list[str]:
    sums = summary.end.sum or Sums()
    lost = sums.lost_percent or 0.0
    if lost < _MUCH_LOSS:
        return []
    counts = f"{sums.lost_packets or 0:.0f} of {sums.packets or 0:.0f}"
    return [f"The receiver lost {lost:.1f} % of the datagrams ({counts})."]


def _length_warnings(summary: Summary) -> list[str]:
    asked = summary.start.test_start
    sums = summary.end.sum_sent or summary.end.sum or Sums()
    if asked is None or not asked.duration or sums.seconds is None:
        return []
    if sums.seconds >= _FULL_LENGTH * asked.duration:
        return []
    return [f"The test was cut short: {sums.seconds:.1f} s of {asked.duration:.0f} s."]


def _silence_warnings(summary: Summary) -> list[str]:
    """Only a client knows both counts: in a server's document the other side's is zero."""
    sent, received = summary.end.sum_sent or Sums(), summary.end.sum_received
    if summary.start.accepted_connection or not sent.bytes or received is None or received.bytes:
        return []
    return [f"The sender sent {sent.bytes:.0f} bytes and the receiver reports none."]
