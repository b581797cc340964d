"""A request body that is read from a file while it is sent."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gevent

from agent.errors import StateUnusable
from agent.process.output import in_thread, read_part
from agent.protocol import Document

CHUNK_BYTES = 64 * 1024


class Body:
    """`prefix`, then a part of a file, then `suffix`.

    `progress` and `before_each` are called before each piece. The pieces are small, the hub turns
    between them, and a native thread reads the file, so that 100 MB on a slow disk block nothing
    else. If `before_each` raises, the Manager gets no whole request.
    """

    def __init__(
        self, prefix: bytes, document: Document | None = None, suffix: bytes = b""
    ) -> None:
        self._prefix, self._document, self._suffix = prefix, document, suffix
        self.progress: Callable[[], None] = lambda: None
        self.before_each: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        """The Content-Length in bytes."""
        size = self._document.end - self._document.start if self._document else 0
        return len(self._prefix) + size + len(self._suffix)

    def __iter__(self) -> Iterator[bytes]:
        """The pieces in order; raises StateUnusable when the document cannot be read.

        An OSError would look like one of the connection.
        """
        for piece in self._pieces():
            self.progress()
            self.before_each()
            yield piece
            gevent.sleep(0)

    def _pieces(self) -> Iterator[bytes]:
        yield from _slices(self._prefix)
        if document := self._document:
            for start in range(document.start, document.end, CHUNK_BYTES):
                yield _read(document.path, start, min(CHUNK_BYTES, document.end - start))
        yield from _slices(self._suffix)


def _slices(data: bytes) -> Iterator[bytes]:
    return (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))


def _read(path: str, start: int, size: int) -> bytes:
    try:
        piece = in_thread(read_part, Path(path), start, size)
    except OSError as error:
        raise StateUnusable(f"the document of a result: {error}") from error
    if len(piece) < size:
        raise StateUnusable(f"{path} is shorter than its document")
    return piece
