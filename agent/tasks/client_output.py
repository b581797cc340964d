"""What a client writes: read along while it runs, and made a document when it has ended."""

import os
from pathlib import Path

from agent.files import discard, sync
from agent.iperf3.stream import LONGEST_LINE, compose, read_lines
from agent.process.child import ChildProcess
from agent.process.monitor import Ending, watch
from agent.process.output import map_file
from agent.protocol import Claimed
from agent.registry import Entry
from agent.state.directory import StateDirectory

# The name of a file that holds a stream, and no document, ends so.
STREAM = ".stream"
_DOCUMENT = ".json"


def output_file(children: Path, claimed: Claimed, attempt: int, streams: bool) -> Path:
    """Where an attempt at a client task writes; `newest_output` finds it again.

    The claim's key is in the name: another Manager's task of that number has another one.
    """
    suffix = STREAM if streams else _DOCUMENT
    return children / f"{claimed.task.id}.{attempt}.{claimed.key}{suffix}"


def newest_output(children: Path, claimed: Claimed) -> tuple[int, Path] | None:
    """The number of the last attempt at a client task, and the file that it left."""
    found = [
        (int(file.name.split(".")[1]), file)
        for file in children.glob(f"{claimed.task.id}.*.{claimed.key}.*")
        if file.suffix in (STREAM, _DOCUMENT)
    ]
    # A stream that is still there is made a document anew: the one beside it may be half of one.
    return max(found, key=lambda each: (each[0], each[1].suffix == STREAM), default=None)


class Following:
    """The watch over a client, whose stream it reads along."""

    def __init__(self, entry: Entry, child: ChildProcess, max_output_bytes: int) -> None:
        self._entry, self._child = entry, child
        self._most = max_output_bytes
        self._read_up_to = 0

    def watch(self, seconds: float) -> Ending:
        """As agent.process.monitor.watch; what the stream says goes to the entry."""
        look = self._read_on if self._child.stdout.suffix == STREAM else None
        return watch(self._child, self._entry.stop.ordered, seconds, self._most, look)

    def _read_on(self) -> None:
        """A part of bounded size at a time, not to hold up the other greenlets.

        What cannot be read now, as when no descriptor is free, is read at the next look.
        """
        try:
            with map_file(self._child.stdout, self._read_up_to) as output:
                intervals, read = read_lines(bytes(output[:LONGEST_LINE]))
        except OSError:
            return
        self._read_up_to += read
        rates = [each.bits_per_second for each in intervals if each.bits_per_second is not None]
        # What is omitted is not in iperf3's own total either.
        resent = [each.retransmits for each in intervals if not each.omitted]
        counted = [count for count in resent if count is not None]
        if rates:
            self._entry.note_rates(rates, sum(counted) if counted else None)


def written_document(state: StateDirectory, stdout: Path) -> Path:
    """The file in which a client that has ended left its document, or what there is of it.

    A stream is made a document and removed; raises StateUnusable when the disk has no room for
    both.
    """
    if stdout.suffix != STREAM:
        return stdout
    document = stdout.with_suffix(_DOCUMENT)
    # A former life may have come so far.
    if stdout.exists():
        state.run(_compose, stdout, document)
    return document


def _compose(stream: Path, document: Path) -> None:
    """The stream goes in any case: without a document it has been told that the test failed."""
    try:
        with open(stream, "rb") as lines, open(document, "wb") as file:
            file.writelines(compose(lines))
            file.flush()
            os.fsync(file.fileno())
        sync(document.parent)
    except OSError:
        discard(document)
        raise
    finally:
        discard(stream)
