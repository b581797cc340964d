"""Whether a run of iperf3 succeeded, why not, and what it measured."""

import signal

import msgspec
from msgspec import Struct

from agent.errors import ErrorClass
from agent.iperf3.documents import Buffer, Span, find_documents, find_unread
from agent.iperf3.failures import classify, error_line
from agent.iperf3.figures import LONG_ENOUGH, figures_of
from agent.iperf3.summary import Summary, read_intervals, read_summary
from agent.protocol import Figures

# Another attempt a little later may succeed.
RETRIABLE = frozenset({ErrorClass.REFUSED, ErrorClass.BUSY})
_SIGNALS = {known.value: known.name for known in signal.Signals}
# Nobody sends these: a program does it to itself.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}

# The largest document whose intervals are worth reading for a small curve.
_LARGE_DOCUMENT = 4 * 1024**2

# How many bytes behind a document are searched for an error message.
_TAIL = 4096

# Of each TCP stream: a receiver counts whole ones (3.22), and a slow test may have no more.
_BLOCKS_UNDER_WAY = 2


class Verdict(Struct, frozen=True):
    """How a run ended: with an error class and a message, or without both if it succeeded.

    `span` is the place of the newest document in stdout; a failed run may have one as well. A
    document without an end has no `figures`. `unread` is how an object begins that cannot be read.
    """

    error_class: ErrorClass | None = None
    message: str = ""
    span: Span | None = None
    summary: Summary | None = None
    figures: Figures | None = None
    unread: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.error_class is None


class Served(Struct, frozen=True):
    """The place of the newest document of a test in a server's output, and what it says.

    `error` are iperf3's words, empty for a test that ended as it should, and `client_port` is that
    of its control connection. Up to `done` the output need not be read again. `failed` has the
    place, class and words of each error without a test. `unread` is as in `find_unread`. Of each
    test, `moved` has the client's port, the bytes both ways, and how many TCP streams there were.
    """

    span: Span | None
    figures: Figures | None
    done: int
    failed: list[tuple[int, ErrorClass, str]]
    unread: list[str]
    error: str = ""
    client_port: int = 0
    moved: list[tuple[int, int, int]] = []


def judge_client(exit_code: int, stdout: Buffer, stderr: str) -> Verdict:
    """Judge a client that has ended; whether the agent stopped it is for the caller to know.

    It succeeded when the exit code is 0, the document has no error and an end that is not empty,
    and the test carried something. The exit code alone says too little: iperf3 3.11 to 3.13 exit
    with 0 on errors, 3.19 and later when interrupted. It is negative for a signal, as in
    subprocess.
    """
    found = _newest(stdout)
    said = found.summary
    if exit_code == 0 and said and said.is_own and found.figures and not said.error:
        failure = _failure_to_carry(said, found.figures)
    else:
        failure = _why(exit_code, stdout, stderr, found)
    error_class, message = failure or (None, "")
    return msgspec.structs.replace(found, error_class=error_class, message=message)


def judge_server_exit(exit_code: int, stdout: Buffer, stderr: str) -> Verdict:
    """Judge a server that ended before it listened: it has failed, whatever its exit code."""
    return Verdict(*_why(exit_code, stdout, stderr, _newest(stdout)))


def last_served(data: Buffer) -> Served:
    """Find the newest complete document of a test in a server's output.

    `data` starts at the beginning of the output or between two documents. A server that is
    probed or stopped while idle writes a document with an empty end: that is no test. `done`
    stops before the last of them, which may say why the server ended.
    """
    spans, span, measured, failed = find_documents(data), None, None, []
    moved: list[tuple[int, int, int]] = []
    with memoryview(data) as view:
        for at in spans:
            summary = read_summary(view[slice(*at)])
            if summary is None or not summary.is_own:
                continue
            if summary.has_end:
                span, measured = at, summary
                moved.append(_moved(summary))
            elif summary.error:
                failed.append((at[0], *classify(summary.error)))
        figures = _figures(measured, view[slice(*span)]) if span else None
        done = span[1] if span else spans[-1][0] if spans else 0
        error = measured.error if measured else ""
        port = measured.start.client_port if measured else 0
        return Served(span, figures, done, failed, find_unread(view, spans), error, port, moved)


def _moved(summary: Summary) -> tuple[int, int, int]:
    flows = (figures := figures_of(summary)).flows
    streams = (summary.asked.num_streams or 1) * len(flows) if figures.protocol == "tcp" else 0
    return summary.start.client_port, round(sum(each.carried or 0.0 for each in flows)), streams


def _newest(stdout: Buffer) -> Verdict:
    """The newest document, not judged yet. A wrapper may have put JSON of its own behind it."""
    spans = find_documents(stdout)
    unread = next(filter(None, find_unread(stdout, spans)), "")
    if not spans:
        return Verdict(unread=unread)
    with memoryview(stdout) as view:
        found = [(read_summary(view[slice(*span)]), span) for span in spans]
        own = [each for each in found if each[0] and each[0].is_own]
        summary, span = (own or found)[-1]
        figures = _figures(summary, view[slice(*span)])
    return Verdict(span=span, summary=summary, figures=figures, unread=unread)


def _figures(summary: Summary | None, document: memoryview) -> Figures | None:
    """The figures of a document that has an end."""
    if summary is None or not summary.has_end:
        return None
    large = len(document) > _LARGE_DOCUMENT
    return figures_of(summary, None if large else read_intervals(document))


def _failure_to_carry(summary: Summary, figures: Figures) -> tuple[ErrorClass, str] | None:
    """Why a test that carried nothing did not; None for any other test."""
    if any(flow.carried != 0 for flow in figures.flows):
        return None
    sent = sum(flow.sent_bytes or 0 for flow in figures.flows)
    if figures.protocol == "udp" and not sent:
        words = "no byte was sent; with dont_fragment, length must fit into the network's MTU"
        return ErrorClass.ARGUMENTS, words
    if (summary.seconds or 0.0) < LONG_ENOUGH:
        return None
    if figures.protocol == "tcp":
        asked = summary.asked
        blocks = (asked.num_streams or 1) * (asked.blksize or 0) * len(figures.flows)
        lost = any(flow.retransmits for flow in figures.flows)
        # Of a slow test, whole blocks may be under way; what is sent again and again is not.
        if not lost and sent <= _BLOCKS_UNDER_WAY * blocks:
            return None
    words = f"nothing of the {sent:.0f} bytes that were sent has arrived"
    if not sent:
        words = "nothing has arrived, though sent again and again: full packets may not pass"
    return ErrorClass.UNREACHABLE, words


def _why(code: int, stdout: Buffer, stderr: str, found: Verdict) -> tuple[ErrorClass, str]:
    said, noise = found.summary.error if found.summary else "", error_line(stderr)
    if code < 0:
        words = f"; before that it wrote: {noise or said}" if noise or said else ""
        error_class = ErrorClass.CRASHED if -code in _CRASHES else ErrorClass.KILLED
        return error_class, f"iperf3 was ended by {_SIGNALS.get(-code, f'signal {-code}')}{words}"
    if code > 0 and not (said or noise or found.unread):
        noise = error_line(_behind(stdout, found.span[1] if found.span else 0))
    error_class, message = classify(said or noise)
    if found.unread and error_class is ErrorClass.OTHER:
        return ErrorClass.BAD_OUTPUT, f"iperf3 wrote JSON that cannot be read: {found.unread}"
    if message:
        return error_class, message
    if code > 0:
        return ErrorClass.OTHER, f"iperf3 ended with exit code {code} and did not say why"
    if found.span is None:
        return ErrorClass.BAD_OUTPUT, "iperf3 ended with exit code 0 but wrote no JSON document"
    if found.summary is None or found.summary.has_end:
        return ErrorClass.BAD_OUTPUT, "iperf3 wrote a JSON document of an unusual shape"
    return ErrorClass.BAD_OUTPUT, "iperf3 wrote a document without an end: it has no result"


def _behind(stdout: Buffer, end: int) -> str:
    """What is written behind a document, without the JSON there."""
    text = bytes(stdout[end : end + _TAIL])
    for start, stop in reversed(find_documents(text)):
        text = text[:start] + text[stop:]
    return text.decode(errors="replace")
