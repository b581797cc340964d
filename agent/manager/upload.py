"""A request body that is read from a file while it is sent."""

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import BinaryIO

import gevent

from agent.errors import StateUnusable
from agent.protocol import Document

CHUNK_BYTES = 64 * 1024


class Body:
    """`prefix`, then a part of a file, then `suffix`.

    `progress` and `before_each` are called before each piece. The pieces are small and the hub
    turns between them, so that 100 MB block nothing else. If `before_each` raises, the Manager
    gets no whole request.
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

    def probe(self) -> None:
        """Read the file's part as it will be sent; raises OSError. It blocks."""
        for _ in self._pieces():
            pass

    def __iter__(self) -> Iterator[bytes]:
        """The pieces in order; raises StateUnusable when the document cannot be read.

        An OSError would look like one of the connection.
        """
        try:
            for piece in self._pieces():
                self.progress()
                self.before_each()
                yield piece
                gevent.sleep(0)
        except OSError as error:
            raise StateUnusable(f"the document of a result: {error}") from error

    def _pieces(self) -> Iterator[bytes]:
        yield from _chunks(BytesIO(self._prefix), len(self._prefix))
        if document := self._document:
            with open(document.path, "rb") as file:
                file.seek(document.start)
                yield from _chunks(file, document.end - document.start)
        yield from _chunks(BytesIO(self._suffix), len(self._suffix))


def _chunks(file: BinaryIO, left: int) -> Iterator[bytes]:
    while left:
        chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise OSError(f"{file.name} is shorter than its document")
        left -= len(chunk)
        yield chunk
