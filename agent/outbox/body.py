"""From an outcome to the body of a `result` call, whole or in one of its smaller forms."""

import mmap
from typing import Any

import msgspec
import structlog

from agent.errors import TaskError
from agent.iperf3 import documents
from agent.manager.upload import Body
from agent.protocol import Document, Outcome

# What the smaller forms of a document leave out, by level.
LEFT_OUT = ("", "the streams of each interval", "the intervals", "the whole document")
SMALLEST = len(LEFT_OUT) - 1

log = structlog.get_logger()


def encode(outcome: Outcome, level: int = 0) -> Body:
    """The body of a `result` call: iperf3's own document, untouched, and the key `agent`.

    The document's part of its file is spliced in behind that key and never decoded, unless
    `level` asks for one of the smaller forms in LEFT_OUT. Raises OSError when the file cannot be
    read, TaskError when the document has not the shape to leave a part of it out.
    """
    report = msgspec.structs.replace(outcome.report, truncated=LEFT_OUT[level])
    head: dict[str, Any] = {
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "stderr": outcome.stderr,
        "result": {**outcome.answer, "agent": report},
    }
    opened = msgspec.json.encode(head)[:-2]
    if outcome.document is None or level == SMALLEST:
        return Body(opened + b"}}")
    if level:
        return Body(opened + b"," + documents.shrink(_content(outcome.document), level)[1:] + b"}")
    inside = Document(outcome.document.path, outcome.document.start + 1, outcome.document.end)
    return Body(opened + b",", inside, b"}")


def fitting(outcome: Outcome, level: int, max_bytes: int) -> tuple[Body, int]:
    """The largest form of at most `max_bytes`, from `level` on, and its level.

    The smallest there is may still be larger. Raises OSError when the document cannot be read.
    """
    while level < SMALLEST:
        try:
            body = encode(outcome, level)
            if len(body) <= max_bytes:
                return body, level
        except TaskError:
            log.warning("a document of a strange shape", left_out=LEFT_OUT[level])
        level += 1
    return encode(outcome, level), level


def _content(document: Document) -> memoryview:
    """The document, mapped and not read, for as long as somebody has a part of it."""
    with open(document.path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(content)[document.start : document.end]
