"""Results on the disk, from before they are first sent until the Manager has them.

A result is a record in `NUMBER.result` and, if iperf3 wrote a document, that file as
`NUMBER.document`. Both together are a parcel.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from agent import files
from agent.errors import RecordDamaged, StateUnusable
from agent.protocol import Claimed, Outcome
from agent.state import records
from agent.state.directory import StateDirectory
from agent.text import to_json

# Bytes that are kept of an answer that refuses a result for good.
ANSWER_KEPT = 64 * 1024
_RECORD, _DOCUMENT, _ANSWER, _SETTLED = ".result", ".document", ".answer", ".settled"

log = structlog.get_logger()


class Parcel(Struct):
    """One outcome on its way to the Manager. `saved` says that the disk has it.

    `checksum` is the CRC-32 of the document's whole file.
    """

    number: int
    claimed: Claimed
    outcome: Outcome
    idempotency_key: str
    checksum: int = 0
    saved: bool = False


class Spool:
    """The parcels of one state directory; methods that write raise StateUnusable.

    `rejected` is how many were given up: the results that are in rejected/ now.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        places = (state.outbox, state.rejected, state.kept)
        taken = [_number(file) for place in places for file in place.iterdir()]
        self._numbers = count(max(taken, default=0) + 1)
        self.rejected = sum(1 for file in state.rejected.iterdir() if file.suffix == _RECORD)

    def new_parcel(self, claimed: Claimed, outcome: Outcome, idempotency_key: str) -> Parcel:
        """A parcel that is not on the disk yet."""
        return Parcel(next(self._numbers), claimed.without_payload, outcome, idempotency_key)

    def load(self) -> list[Parcel]:
        """The parcels that the previous run left, the oldest first; damaged ones are set aside.

        It blocks while it reads, so call it before anything else runs.
        """
        found = []
        for path in sorted(self._state.outbox.glob(f"*{_RECORD}"), key=_number):
            try:
                found.append(self._read(path))
            except (OSError, RecordDamaged, msgspec.MsgspecError) as error:
                log.error("a damaged result is set aside", file=str(path), error=str(error))
                with suppress(StateUnusable):
                    self._state.run(self._move_aside, _number(path), str(error).encode())
        with suppress(StateUnusable):
            self._state.run(self._clear, {parcel.number for parcel in found})
        return found

    def load_settled(self) -> list[Parcel]:
        """Delivered parcels, now without documents, that the previous journal could not note."""
        found = []
        for path in self._state.outbox.glob(f"*{_SETTLED}"):
            with suppress(OSError, RecordDamaged, msgspec.MsgspecError):
                found.append(_record(path))
        return found

    def save(self, parcel: Parcel) -> None:
        """Return when the parcel is on the disk."""
        if not parcel.saved:
            self._state.run(self._write, parcel)

    def remove(self, parcel: Parcel, noted: bool = True, but_document: bool = False) -> None:
        """Forget a parcel that was delivered, or all of it but the document, which is kept.

        If the journal could not note the delivery, the record is renamed, which takes no disk
        space, and stays until `forget_settled`.
        """
        if but_document:
            # A move takes no disk space; `keep` may have found none for a second name.
            self._state.run(self._keep_document, parcel, os.rename)
        self._state.run(self._unlink, parcel, noted)

    def forget_settled(self) -> None:
        """Remove the records that stand for missing lines of the journal."""
        self._state.run(self._unlink_settled)

    def keep(self, parcel: Parcel) -> None:
        """Link the document into kept/, before a smaller form of it counts as delivered."""
        self._state.run(self._keep_document, parcel, os.link)

    def set_aside(self, parcel: Parcel, answer: bytes) -> None:
        """Move a parcel that the Manager will never take, with its answer beside it."""
        self.save(parcel)
        self._state.run(self._move_aside, parcel.number, answer)

    def _clear(self, known: set[int]) -> None:
        """Remove what a crash left half done; its source is still in place."""
        for path in self._state.outbox.iterdir():
            if path.suffix != _SETTLED and (_number(path) not in known or path.suffix == ".new"):
                path.unlink()

    def _path(self, number: int, suffix: str) -> Path:
        return self._state.outbox / f"{number:09d}{suffix}"

    def _read(self, path: Path) -> Parcel:
        parcel = _record(path)
        parcel.saved = True
        if parcel.outcome.document:
            path = self._path(parcel.number, _DOCUMENT)
            if not path.exists() or files.checksum(path) != parcel.checksum:
                raise RecordDamaged("its document is damaged")
            parcel.outcome = _with_document_at(str(path), parcel.outcome)
        return parcel

    def _write(self, parcel: Parcel) -> None:
        """Link the document first: after a crash in between it also has its old name."""
        before, path = "", self._path(parcel.number, _DOCUMENT)
        if document := parcel.outcome.document:
            if document.path != str(path):
                before = document.path
                path.unlink(missing_ok=True)
                os.link(before, path)
            files.sync(path)
            parcel.checksum = files.checksum(path)
        # Without its path, which may not be UTF-8: the next run makes it anew.
        outcome = _with_document_at("", parcel.outcome)
        on_disk = msgspec.structs.replace(parcel, outcome=outcome)
        data = records.frame(to_json(on_disk))
        files.write_whole(self._path(parcel.number, _RECORD), data)
        parcel.outcome = _with_document_at(str(path), parcel.outcome)
        parcel.saved = True
        if before:
            os.unlink(before)

    def _unlink(self, parcel: Parcel, noted: bool) -> None:
        record = self._path(parcel.number, _RECORD)
        if not noted and record.exists():
            record.rename(record.with_suffix(_SETTLED))
        # When the record could not be written, its document still has both names.
        record.unlink(missing_ok=True)
        self._path(parcel.number, _DOCUMENT).unlink(missing_ok=True)
        if parcel.outcome.document:
            Path(parcel.outcome.document.path).unlink(missing_ok=True)

    def _keep_document(self, parcel: Parcel, how: Callable[[str, Path], None]) -> None:
        if document := parcel.outcome.document:
            # A rename between two names of the same file leaves both.
            with suppress(FileExistsError, FileNotFoundError):
                how(document.path, self._state.kept / f"{parcel.number:09d}{_DOCUMENT}")

    def _unlink_settled(self) -> None:
        for path in self._state.outbox.glob(f"*{_SETTLED}"):
            path.unlink()

    def _move_aside(self, number: int, answer: bytes) -> None:
        for suffix in (_DOCUMENT, _RECORD):
            path = self._path(number, suffix)
            if path.exists():
                path.rename(self._state.rejected / path.name)
        self.rejected += 1
        answer_path = self._state.rejected / f"{number:09d}{_ANSWER}"
        files.write_whole(answer_path, answer[:ANSWER_KEPT])


def _record(path: Path) -> Parcel:
    return msgspec.json.decode(records.unframe(path.read_bytes()), type=Parcel)


def _number(path: Path) -> int:
    stem = path.name.partition(".")[0]
    return int(stem) if stem.isdecimal() else 0


def _with_document_at(path: str, outcome: Outcome) -> Outcome:
    if outcome.document is None:
        return outcome
    document = msgspec.structs.replace(outcome.document, path=path)
    return msgspec.structs.replace(outcome, document=document)
