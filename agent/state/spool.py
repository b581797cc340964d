"""Outcomes on the disk, from before they are first sent until the Manager has them.

An outcome is a record in `NUMBER.result` and, if iperf3 wrote a document, that file as
`NUMBER.document`. A record that the Manager has is renamed to `NUMBER.settled`, which takes no
space on the disk, and stays until the journal has noted that. Everything here blocks.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import structlog

from agent import files
from agent.errors import ConfigError
from agent.logs.outage import lost
from agent.state.directory import StateDirectory
from agent.state.message import Message

# Bytes that are kept of an answer that refuses a result for good.
ANSWER_KEPT = 64 * 1024
_RECORD, _DOCUMENT, _ANSWER, SETTLED = ".result", ".document", ".answer", ".settled"

log = structlog.get_logger()


class Spool:
    """The outcomes in one state directory. Methods that write raise OSError.

    `unread` says which records cannot be read now. `rejected` counts those in rejected/.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._outbox, self._rejected, self._kept = state.outbox, state.rejected, state.kept
        rejected = _names(self._rejected)
        taken = map(_number, rejected + _names(self._outbox) + _names(self._kept))
        self._numbers = count(max(taken, default=0) + 1)
        # The numbers of this run, and those of the previous one that were loaded.
        self._known: set[int] = set()
        self.unread = [f"{state.outbox} was not read yet"]
        self.rejected = sum(1 for file in rejected if file.suffix == _RECORD)

    def next_number(self) -> int:
        """A number that no record has."""
        self._known.add(number := next(self._numbers))
        return number

    def load(self) -> list[Message]:
        """What the previous run left, the oldest first, but nothing twice; raises OSError."""
        found, unread = [], []
        there = {_number(path): path for path in self.files(_RECORD, SETTLED)}
        for number in sorted(there.keys() - self._known):
            try:
                found += self._load(number, there[number])
                self._known.add(number)
            except OSError as error:
                unread.append(str(error))
                if str(error) not in self.unread:
                    log.error("a result cannot be read now", error=str(error))
        self.unread = unread
        return found

    def load_rejected(self) -> Iterator[Message]:
        """What was set aside, as far as it can ever be read; raises OSError."""
        for path in self._rejected.iterdir():
            if path.suffix == _RECORD:
                with lost("a refused result cannot be read"), suppress(ValueError):
                    yield Message.decode(_number(path), files.read_whole(path))

    def files(self, *suffixes: str, loaded: bool = False) -> list[Path]:
        """The files with one of these suffixes and a number, or those `loaded`; raises OSError."""
        # `glob` would take a directory that it may not read for an empty one.
        there = [path for path in self._outbox.iterdir() if path.suffix in suffixes]
        own = [path for path in there if path == self._path(_number(path), path.suffix)]
        return [path for path in own if not loaded or _number(path) in self._known]

    def clear(self) -> None:
        """Remove what a crash left half done; its source is still in place."""
        known = {_number(path) for path in self.files(_RECORD)}
        for path in filter(Path.is_file, self._outbox.iterdir()):
            if path.suffix == ".new" or (path.suffix == _DOCUMENT and _number(path) not in known):
                path.unlink()

    def save(self, message: Message) -> None:
        """Return when the message is on the disk."""
        if message.saved:
            return
        # The document goes first: after a crash in between, it also has its old name.
        before, path = message.document, self._path(message.number, _DOCUMENT)
        try:
            if before:
                path.unlink(missing_ok=True)
                files.link_or_copy(before.path, path)
                files.sync(path)
                message.checksum = files.checksum(path)
        except OSError as error:
            # It may also be the directory that is not there.
            if files.whose(error) is not files.Whose.FILE or not self._outbox.exists():
                raise
            self._lose_document(message, str(error))
        files.write_whole(self._path(message.number, _RECORD), [message.encode()])
        message.move_document(str(path))
        message.saved = True
        if before:
            files.discard(Path(before.path))

    def settle(self, message: Message, keep_document: bool) -> None:
        """Mark a message that the Manager has, and remove its document or move it to kept/."""
        if not message.document:
            # It may have lost one that could not be set aside then.
            self._reject(message.number, _DOCUMENT)
        # Not `exists`, which takes a file that cannot be looked at for none.
        with suppress(FileNotFoundError):
            record = self._path(message.number, _RECORD)
            record.rename(record.with_suffix(SETTLED))
            files.sync(self._outbox)
        if message.document:
            path, in_outbox = Path(message.document.path), self._path(message.number, _DOCUMENT)
            with suppress(FileNotFoundError):
                if keep_document:
                    self._kept.mkdir(mode=0o700, exist_ok=True)
                    path.replace(self._kept / in_outbox.name)
            # If the record was never written, the document may have two names.
            path.unlink(missing_ok=True)
            in_outbox.unlink(missing_ok=True)

    def set_aside(self, message: Message, answer: bytes) -> None:
        """Move a message that the Manager will never take, with its answer beside it."""
        self.save(message)
        self._move_aside(message.number, answer)

    def verify(self, message: Message) -> None:
        """Go on without a document that is damaged; raises OSError when it may be well later."""
        # It is read to its end: an upload would find a bad sector too late.
        document = message.document
        try:
            if document and not message.saved:
                files.checksum(Path(document.path), document.start, document.end)
            elif document and files.checksum(Path(document.path)) != message.checksum:
                raise OSError("its checksum is wrong")
        except OSError as error:
            # It moves when the disk takes a result that waited in memory.
            if files.whose(error) is files.Whose.HOST or message.document is not document:
                raise
            self._lose_document(message, str(error))

    def _load(self, number: int, path: Path) -> list[Message]:
        """The message of a record, unless that is damaged; raises OSError."""
        try:
            message = Message.decode(number, files.read_whole(path))
        except ValueError as error:
            log.error("a damaged result is set aside", file=str(path), error=str(error))
            self._move_aside(number, str(error).encode())
            return []
        message.settled = path.suffix == SETTLED
        message.move_document(str(self._path(number, _DOCUMENT)))
        if not message.settled:
            self.verify(message)
        return [message]

    def _lose_document(self, message: Message, reason: str) -> None:
        """Go on without a document, which is set aside if that is possible."""
        assert message.outcome and message.document
        log.error("the document of a result is lost", file=message.document.path, error=reason)
        with suppress(OSError):
            Path(message.document.path).rename(self._rejected / f"{message.number:09d}{_DOCUMENT}")
        message.outcome = message.outcome.lose_document()

    def _move_aside(self, number: int, answer: bytes) -> None:
        """Move a record and its document to rejected/; after a failure, the record goes last."""
        files.write_whole(self._rejected / f"{number:09d}{_ANSWER}", [answer[:ANSWER_KEPT]])
        for suffix in (_DOCUMENT, _RECORD, SETTLED):
            self._reject(number, suffix)
        self.rejected += 1

    def _reject(self, number: int, suffix: str) -> None:
        with suppress(FileNotFoundError):
            (path := self._path(number, suffix)).rename(self._rejected / path.name)

    def _path(self, number: int, suffix: str) -> Path:
        return self._outbox / f"{number:09d}{suffix}"


def _names(directory: Path) -> list[Path]:
    """The files of a directory, or a name with a number that no record reaches; ConfigError."""
    try:
        return list(directory.iterdir())
    except OSError as error:
        if files.whose(error) is files.Whose.OWNER:
            advice = "make it a directory that this user can read, or set another STATE_DIR"
            raise ConfigError(f"{error}: {advice}") from error
        log.error("a directory of results cannot be read now", error=str(error))
        return [directory / str(10**10 + int(time.time()))]


def _number(path: Path) -> int:
    stem = path.name.partition(".")[0]
    return int(stem) if stem.isdecimal() and len(stem) < 20 else 0  # with more it is none of ours
