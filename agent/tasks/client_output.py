"""What a client writes: a document, or a stream that becomes one when the client has ended."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from agent.errors import StateUnusable
from agent.files import Whose, discard, whose, write_whole
from agent.iperf3.documents import Buffer, find_documents, mended
from agent.iperf3.stream import LONGEST_LINE, compose, read_lines
from agent.iperf3.verdict import Verdict, judge_client, last_served
from agent.iperf3.warnings import is_cut_short
from agent.logs.outage import lost
from agent.process.output import in_thread, overwrite, read_part, view_of
from agent.protocol import Claimed, Document, Figures, Report
from agent.registry import Entry
from agent.state.directory import StateDirectory

# The suffixes of a file with a stream and of one with a document.
STREAM = ".stream"
_DOCUMENT = ".json"

log = structlog.get_logger()


def output_file(children: Path, claimed: Claimed, attempt: int, streams: bool) -> Path:
    """Where an attempt at a client task writes; `newest_output` finds it again.

    The claim's key in the name keeps it apart from another Manager's task of the same number.
    """
    suffix = STREAM if streams else _DOCUMENT
    return children / f"{claimed.task.id}.{attempt}.{claimed.key}{suffix}"


def newest_output(children: Path, claimed: Claimed) -> tuple[int, Path] | None:
    """The number of the last attempt at a client task and the file that it left, if any."""
    pattern = re.compile(rf"{claimed.task.id}\.(\d+)\.{re.escape(claimed.key)}\.(stream|json)")
    found: list[tuple[int, Path]] = []
    with lost("nobody can tell what a test has left"):
        # `glob` may take a directory that cannot be listed now for an empty one.
        for file in children.iterdir():
            if name := pattern.fullmatch(file.name):
                found.append((int(name[1]), file))
    # Where a stream is still there, the document beside it may be incomplete.
    return max(found, key=lambda each: (each[0], each[1].suffix == STREAM), default=None)


class StreamReader:
    """Reads the stream of a running client, for the rates in its entry.

    `is_stream` says whether the client writes one, `has_begun` that its test has.
    """

    def __init__(self, stdout: Path, entry: Entry) -> None:
        self.is_stream, self.has_begun = stdout.suffix == STREAM, False
        self._stdout = stdout
        self._entry = entry
        self._read_up_to = 0

    def read_new(self, size: int) -> bool:
        """Note the intervals since the last call; nothing for a client that writes no stream.

        `size` is how many bytes the output has now.
        It decodes at most LONGEST_LINE bytes, so that other greenlets do not wait. False after an
        error, for instance when no descriptor is free: the next call tries again.
        """
        if not self.is_stream or size == self._read_up_to:
            return True
        try:
            new = in_thread(read_part, self._stdout, self._read_up_to, LONGEST_LINE)
        except OSError:
            return False
        intervals, begun, read = read_lines(new)
        self._read_up_to += read
        self.has_begun |= begun
        rates = [each.bits_per_second for each in intervals if each.bits_per_second is not None]
        # iperf3's own total has no omitted intervals either.
        whole = [each for each in intervals if not each.omitted]
        counted = [each.retransmits for each in whole if each.retransmits is not None]
        if rates:
            self._entry.record_rates(rates, int(sum(counted)) if counted else None)
        return True


def judge_output(
    state: StateDirectory, stdout: Path, exit_code: int, stderr: str
) -> tuple[Verdict, Path]:
    """Judge a client that has ended; returns the verdict, and the file that holds its document.

    A stream is turned into a document and removed. Raises StateUnusable when the disk has no
    space for both, or cannot be read; the stream is then left for another try.
    """
    document = stdout.with_suffix(_DOCUMENT)
    # A large document takes a while, longer if the page cache has lost it.
    return state.run(_judge, stdout, document, exit_code, stderr), document


def figures_of(state: StateDirectory, stdout: Path) -> Figures | None:
    """What was measured by a client whose stream can be read, but not be made a document."""
    with suppress(StateUnusable):
        if stdout.suffix == STREAM:
            return state.run(lambda: last_served(b"".join(_composed(stdout))).figures)
    return None


def figures_in(document: Document | None) -> Figures | None:
    """What was measured, as a document says it, if there is one that can be read. It blocks."""
    with suppress(OSError):
        if document:
            view = view_of(document.path, document.start)
            return last_served(view[: document.end - document.start]).figures
    return None


def newest_measured(
    state: StateDirectory, claimed: Claimed, report: Report
) -> tuple[Document | None, bool]:
    """What a client of a previous run left, and whether it is all of a good test.

    Raises StateUnusable for what can be read or written later. `report` gets the number of its
    attempt: a short test can end before the journal has that.
    """
    newest = state.run(newest_output, state.children, claimed)
    if newest is None:
        return None, False
    report.attempts, stdout = newest
    try:
        judged, path = judge_output(state, stdout, exit_code=0, stderr="")
    except StateUnusable as error:
        # A document that the disk does not take now can be written later.
        if whose(error) is Whose.HOST or figures_of(state, stdout):
            raise
        log.error("the output of a test is lost", error=str(error))
        return None, False
    document = Document(str(path), *judged.span) if judged.span else None
    is_whole = judged.summary is not None and not is_cut_short(judged.summary)
    return document, judged.ok and is_whole


def _judge(stdout: Path, document: Path, exit_code: int, stderr: str) -> Verdict:
    # The agent's previous run may have removed the stream already.
    if stdout.suffix == STREAM and os.path.lexists(stdout):
        write_whole(document, _composed(stdout))
        # Until now it was all there is.
        discard(stdout)
    output = view_of(document)
    judged = judge_client(exit_code, output, stderr)
    if judged.unread and overwrite(document, 0, mended(output)):
        log.warning("a client's JSON was mended")
        judged = judge_client(exit_code, view_of(document), stderr)
    if judged.unread:
        log.warning("iperf3 wrote JSON that cannot be read", beginning=judged.unread)
    return judged


def _composed(stream: Path) -> Iterator[Buffer]:
    """The parts of a stream's document, or all that the file has if it is no stream."""
    with open(stream, "rb") as lines:
        parts = compose(iter(partial(lines.readline, LONGEST_LINE), b""))
        if first := next(parts, b""):
            yield first
            yield from parts
            return
    # Perhaps a wrapper has laid it out anew.
    whole = view_of(stream)
    parts = compose(bytes(whole[slice(*at)]) for at in find_documents(whole))
    yield next(parts, None) or whole
    yield from parts
