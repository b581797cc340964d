"""From an outcome to the body of a `result` call, whole or in one of its smaller forms."""

from typing import Any

import msgspec
import structlog

from agent.errors import TaskError
from agent.iperf3.documents import without_intervals, without_streams
from agent.manager.upload import Body
from agent.process.output import view_of
from agent.protocol import Document, Form, Outcome
from agent.text import to_json

log = structlog.get_logger()


def encode(outcome: Outcome, form: Form = Form.WHOLE) -> Body:
    """The body of a `result` call: iperf3's own document and the key `agent`.

    A whole document is never decoded: the upload copies it out of its file, behind that key.
    Raises OSError when the file cannot be read, TaskError(`bad_output`) when the document does
    not have the shape that a smaller form needs.
    """
    report = msgspec.structs.replace(outcome.report, truncated=form.value)
    head: dict[str, Any] = {
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "stderr": outcome.stderr,
        "result": {**outcome.answer, "agent": report},
    }
    opened = to_json(head)[:-2]
    if outcome.document is None or form is Form.WITHOUT_DOCUMENT:
        return Body(opened + b"}}")
    if form is Form.WHOLE:
        inside = Document(outcome.document.path, outcome.document.start + 1, outcome.document.end)
        return Body(opened + b",", inside, b"}")
    shrink = without_streams if form is Form.WITHOUT_STREAMS else without_intervals
    document = outcome.document
    smaller = shrink(view_of(document.path, document.start)[: document.end - document.start])
    return Body(opened + b"," + smaller[1:] + b"}")


def fitting(outcome: Outcome, form: Form, max_bytes: int) -> tuple[Body, Form]:
    """The first body of at most `max_bytes`, in `form` or the smaller ones, and its form.

    When none fits it is the smallest. Raises OSError when the document cannot be read.
    """
    while smaller := form.next_smaller:
        try:
            body = encode(outcome, form)
            if len(body) <= max_bytes:
                return body, form
        except TaskError:
            log.warning("a document of a strange shape", left_out=form.value)
        form = smaller
    return encode(outcome, form), form
