"""From an outcome to the body of a `result` call, whole or smaller, read while it is sent."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import structlog
from msgspec.structs import replace

from agent.errors import StateUnusable, TaskError
from agent.iperf3.documents import without_intervals, without_streams
from agent.process.output import in_thread, read_part, view_of
from agent.protocol import Document, Form, Outcome
from agent.text import to_json

CHUNK_BYTES = 64 * 1024

log = structlog.get_logger()


class Body:
    """Bytes, and documents out of their files, one after the other.

    The pieces are small, the hub turns between them, and a native thread reads the file: 100 MB on
    a slow disk block nothing else. All of `before_each` are called before each piece. If one of
    them raises, the Manager gets no whole request.
    """

    def __init__(self, *parts: bytes | Document) -> None:
        self._parts = parts
        self.before_each: list[Callable[[], None]] = []

    def __len__(self) -> int:
        """The Content-Length in bytes."""
        return sum(map(_size, self._parts))

    def __iter__(self) -> Iterator[bytes]:
        """The pieces in order; raises StateUnusable, as an OSError would be the connection's."""
        for part in self._parts:
            for start in range(0, _size(part), CHUNK_BYTES):
                piece = _piece(part, start)
                for call in self.before_each:
                    call()
                yield piece
                gevent.sleep(0)


def _size(part: bytes | Document) -> int:
    return len(part) if isinstance(part, bytes) else part.end - part.start


def _piece(part: bytes | Document, start: int) -> bytes:
    size = min(CHUNK_BYTES, _size(part) - start)
    if isinstance(part, bytes):
        return part[start : start + size]
    try:
        piece = in_thread(read_part, Path(part.path), part.start + start, size)
    except OSError as error:
        raise StateUnusable(f"the document of a result: {error}") from error
    if len(piece) < size:
        raise StateUnusable(f"{part.path} is shorter than its document")
    return piece


def fitting(outcome: Outcome, form: Form, max_bytes: int) -> tuple[Body, Form]:
    """The first body of at most `max_bytes`, in `form` or the smaller ones, and its form.

    When none fits it is the smallest. Raises OSError when the document cannot be read. It blocks.
    """
    while smaller := form.next_smaller:
        try:
            body = _encode(outcome, form)
            if len(body) <= max_bytes:
                return body, form
        except TaskError:
            log.warning("a document of a strange shape", left_out=form.value)
        form = smaller
    return _encode(outcome, form), form


def _encode(outcome: Outcome, form: Form) -> Body:
    """iperf3's own document and the key `agent`.

    A whole document is never decoded: the upload copies it out of its file, behind that key.
    Raises TaskError when the document does not have the shape that a smaller form needs.
    """
    report = replace(outcome.report, truncated=form.value, figures=outcome.figures)
    head: dict[str, Any] = {
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "stderr": outcome.stderr,
        "result": {**outcome.answer, "agent": report},
    }
    opened, document = to_json(head)[:-2], outcome.document
    if document is None or form is Form.WITHOUT_DOCUMENT:
        return Body(opened + b"}}")
    if form is Form.WHOLE:
        return Body(opened + b",", replace(document, start=document.start + 1), b"}")
    shrink = without_streams if form is Form.WITHOUT_STREAMS else without_intervals
    smaller = shrink(view_of(document.path, document.start)[: document.end - document.start])
    return Body(opened + b"," + smaller[1:] + b"}")
