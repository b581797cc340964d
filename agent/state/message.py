"""What the Manager is to be told of a task, in memory and on the disk."""

import time
import uuid

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agent.files import frame, unframe
from agent.protocol import Claimed, Document, Form, Outcome
from agent.text import to_json


class Message(Struct, eq=False, omit_defaults=True):
    """`started`, with a pid, or an outcome, which lies on the disk as the record `number`.

    `checksum` is the CRC-32 of the document's whole file. `saved` says that the disk has it all,
    `settled` that the Manager had it before the agent's start, and `tried` that an attempt may have
    reached the Manager. `form` is the largest that it takes. `born` is on the monotonic clock.
    """

    claimed: Claimed
    outcome: Outcome | None = None
    pid: int = 0
    number: int = 0
    idempotency_key: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))
    checksum: int = 0
    saved: bool = False
    settled: bool = False
    tried: bool = False
    form: Form = Form.WHOLE
    born: float = msgspec.field(default_factory=time.monotonic)

    @property
    def document(self) -> Document | None:
        """The document of its outcome."""
        return self.outcome.document if self.outcome else None

    @property
    def is_final(self) -> bool:
        """Whether nothing is left to report of the task after it."""
        return self.outcome is not None and self.outcome.final

    def move_document(self, path: str) -> None:
        """Note where the document's file is now, if there is one."""
        if self.outcome and (document := self.outcome.document):
            self.outcome = replace(self.outcome, document=replace(document, path=path))

    def encode(self) -> bytes:
        """The record. It lacks the document's path: the next run knows where it is."""
        record = replace(self, claimed=self.claimed.without_payload)
        record.move_document("")
        return frame(to_json(record))

    @classmethod
    def decode(cls, number: int, content: bytes) -> "Message":
        """The message of a record that was read; raises ValueError for a damaged one."""
        message = msgspec.json.decode(unframe(content), type=cls)
        message.number, message.born = number, time.monotonic()
        message.saved = message.tried = True
        return message
