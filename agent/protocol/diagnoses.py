"""What limited a test, as a result says it."""

from enum import StrEnum
from typing import Any

from msgspec import Struct


class Cause(StrEnum):
    """What limited a test. A reader takes a value that is not listed here as `unknown`."""

    TOO_SHORT = "too_short"
    TARGET_RATE = "target_rate"
    LINE_RATE = "line_rate"
    SENDER_CPU = "sender_cpu"
    RECEIVER_CPU = "receiver_cpu"
    RECEIVER_WINDOW = "receiver_window"
    SEND_BUFFER = "send_buffer"
    PATH_CAPACITY = "path_capacity"
    PATH_LOSS = "path_loss"
    PATH_MTU = "path_mtu"
    RECEIVER_HOST = "receiver_host"
    SENDER_HOST = "sender_host"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> "Cause":
        return cls.UNKNOWN


class Diagnosis(Struct, frozen=True, omit_defaults=True):
    """What limited one direction of a test, in words for its operator, and why that is so.

    `sure` says that nothing else fits the evidence, whose figures docs/diagnosis.md explains.
    """

    limited_by: Cause
    sure: bool
    words: str
    evidence: dict[str, Any] = {}
