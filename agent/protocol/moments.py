"""Moments: how the agent writes them, and whether two that a Manager wrote are the same."""

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

# A Manager's moment: text in ISO 8601, or a number of seconds. Text has some 30 characters, and is
# kept with each task.
Moment = Annotated[str, Meta(max_length=100)] | int | float | None
# A database may round a moment, or cut its fraction off.
_SAME_WITHIN = 1.0


def timestamp(moment: datetime) -> str:
    """A UTC moment in ISO 8601 with milliseconds and `Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_now() -> str:
    """The present moment, as `timestamp` writes it."""
    return timestamp(datetime.now(UTC))


def is_same_moment(one: Moment, other: Moment) -> bool:
    """Whether both may stand for one moment: within a second, whatever their zone and precision.

    A moment without a zone is UTC. One that is missing may be any. Text that is no moment is
    compared as text.
    """
    if one == other or one in (None, "") or other in (None, ""):
        return True
    try:
        return abs(_seconds(one) - _seconds(other)) <= _SAME_WITHIN
    except (ValueError, OverflowError):
        return False


def _seconds(moment: Moment) -> float:
    """Seconds since 1970; raises ValueError and OverflowError."""
    if not isinstance(moment, str):
        return float(moment or 0)
    found = datetime.fromisoformat(moment)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
