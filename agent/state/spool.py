"""Results on the disk, from before they are first sent until the Manager has them.

One record is one file, `NUMBER.result`; the document of it, if there is one, is the file that
iperf3 wrote, as `NUMBER.document`. A parcel is both.
"""

import os
from contextlib import suppress
from itertools import count
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from agent import files
from agent.errors import RecordDamaged, StateUnusable
from agent.protocol import Claimed, Document, Outcome
from agent.state import records
from agent.state.directory import StateDirectory

# Of an answer that refuses a result for good, so many bytes are kept.
ANSWER_KEPT = 64 * 1024
_RECORD, _DOCUMENT, _ANSWER, _SETTLED = ".result", ".document", ".answer", ".settled"

log = structlog.get_logger()


class Parcel(Struct):
    """One outcome on its way. `saved` says that the disk has it.

    `checksum` is the CRC-32 of the document's whole file.
    """

    number: int
    claimed: Claimed
    outcome: Outcome
    idempotency_key: str
    checksum: int = 0
    saved: bool = False


class Spool:
    """The parcels of one state directory; what writes raises StateUnusable."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._directory = state.outbox
        self._rejected = state.rejected
        self._kept = state.kept
        places = (self._directory, self._rejected, self._kept)
        taken = [_number(file) for place in places for file in place.iterdir()]
        self._numbers = count(max(taken, default=0) + 1)
        # What is in rejected/ now, for whoever asks how much was given up.
        self.rejected = sum(1 for file in self._rejected.iterdir() if file.suffix == _RECORD)

    def new_parcel(self, claimed: Claimed, outcome: Outcome, idempotency_key: str) -> Parcel:
        """A parcel that is not on the disk yet."""
        return Parcel(next(self._numbers), claimed.on_disk, outcome, idempotency_key)

    def load(self) -> list[Parcel]:
        """The parcels that a former life left, the oldest first; the damaged are set aside.

        It blocks while it reads: to be called before anything else runs.
        """
        found = []
        for path in sorted(self._directory.glob(f"*{_RECORD}"), key=_number):
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
        """The parcels of which a former life could not note in its journal that they arrived.

        Their documents are gone.
        """
        found = []
        for path in self._directory.glob(f"*{_SETTLED}"):
            with suppress(OSError, RecordDamaged, msgspec.MsgspecError):
                found.append(_record(path))
        return found

    def save(self, parcel: Parcel) -> None:
        """Return when the parcel is on the disk."""
        if not parcel.saved:
            self._state.run(self._write, parcel)

    def remove(self, parcel: Parcel, noted: bool = True, but_document: bool = False) -> None:
        """Forget a parcel that was delivered, or all of it but the document, which is kept.

        Where the journal has no room to note that, the record stays under another name, which
        takes none, until `forget_settled`.
        """
        if but_document:
            # A move takes no room, where `keep` may have found none for a second name.
            self._state.run(self._move_document, parcel)
        self._state.run(self._unlink, parcel, noted)

    def forget_settled(self) -> None:
        """Remove what says in the journal's place which parcels were delivered."""
        self._state.run(self._unlink_settled)

    def keep(self, parcel: Parcel) -> None:
        """Have the document in kept/ as well, before the smaller form of it counts as delivered."""
        self._state.run(self._link_document, parcel)

    def set_aside(self, parcel: Parcel, answer: bytes) -> None:
        """Move a parcel that the Manager will never take, with its answer beside it."""
        self.save(parcel)
        self._state.run(self._move_aside, parcel.number, answer)

    def _clear(self, known: set[int]) -> None:
        """Remove what a crash left half done; where it came from it is still there."""
        for path in self._directory.iterdir():
            if path.suffix != _SETTLED and (_number(path) not in known or path.suffix == ".new"):
                path.unlink()

    def _path(self, number: int, suffix: str) -> Path:
        return self._directory / f"{number:09d}{suffix}"

    def _read(self, path: Path) -> Parcel:
        parcel = _record(path)
        parcel.saved = True
        if document := parcel.outcome.document:
            path = self._path(parcel.number, _DOCUMENT)
            if not path.exists() or files.checksum(path) != parcel.checksum:
                raise RecordDamaged("its document is damaged")
            _set_document(parcel, Document(str(path), document.start, document.end))
        return parcel

    def _write(self, parcel: Parcel) -> None:
        """Link the document first: a crash in between leaves it where it was as well."""
        before = ""
        if document := parcel.outcome.document:
            path = self._path(parcel.number, _DOCUMENT)
            if document.path != str(path):
                before = document.path
                path.unlink(missing_ok=True)
                os.link(before, path)
            files.sync(path)
            parcel.checksum = files.checksum(path)
            document = Document(str(path), document.start, document.end)
        # The path is this directory's, and need be no text: the next life makes it anew.
        named = document and Document("", document.start, document.end)
        on_disk = msgspec.structs.replace(
            parcel, outcome=msgspec.structs.replace(parcel.outcome, document=named)
        )
        data = records.frame(msgspec.json.encode(on_disk))
        files.write_whole(self._path(parcel.number, _RECORD), data)
        _set_document(parcel, document)
        parcel.saved = True
        if before:
            os.unlink(before)

    def _unlink(self, parcel: Parcel, noted: bool) -> None:
        record = self._path(parcel.number, _RECORD)
        if not noted and record.exists():
            record.rename(record.with_suffix(_SETTLED))
        # Without room for a record its document has both names.
        record.unlink(missing_ok=True)
        self._path(parcel.number, _DOCUMENT).unlink(missing_ok=True)
        if parcel.outcome.document:
            Path(parcel.outcome.document.path).unlink(missing_ok=True)

    def _link_document(self, parcel: Parcel) -> None:
        if parcel.outcome.document:
            with suppress(FileExistsError, FileNotFoundError):
                os.link(parcel.outcome.document.path, self._kept_path(parcel))

    def _move_document(self, parcel: Parcel) -> None:
        if parcel.outcome.document:
            with suppress(FileNotFoundError):
                # Of two names for the same file, both stay.
                os.rename(parcel.outcome.document.path, self._kept_path(parcel))

    def _kept_path(self, parcel: Parcel) -> Path:
        return self._kept / f"{parcel.number:09d}{_DOCUMENT}"

    def _unlink_settled(self) -> None:
        for path in self._directory.glob(f"*{_SETTLED}"):
            path.unlink()

    def _move_aside(self, number: int, answer: bytes) -> None:
        for suffix in (_DOCUMENT, _RECORD):
            path = self._path(number, suffix)
            if path.exists():
                path.rename(self._rejected / path.name)
        self.rejected += 1
        answer_path = self._rejected / f"{number:09d}{_ANSWER}"
        files.write_whole(answer_path, answer[:ANSWER_KEPT])


def _record(path: Path) -> Parcel:
    return msgspec.json.decode(records.unframe(path.read_bytes()), type=Parcel)


def _number(path: Path) -> int:
    stem = path.name.partition(".")[0]
    return int(stem) if stem.isdigit() else 0


def _set_document(parcel: Parcel, document: Document | None) -> None:
    parcel.outcome = msgspec.structs.replace(parcel.outcome, document=document)
