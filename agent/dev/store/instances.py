"""Which runs of one agent report: two in turn are two hosts that have one name and key."""

from datetime import datetime, timedelta

from msgspec import Struct

# The Manager's own rule: three heartbeats of 5 s missed.
OFFLINE_AFTER = timedelta(seconds=15)
# Of more that take turns, the latest are told.
KEPT = 8


class _Heard(Struct, frozen=True):
    address: str
    first: datetime
    last: datetime

    def overlaps(self, other: "_Heard") -> bool:
        return self is not other and self.first < other.last and other.first < self.last


class Instances:
    """The instances of one agent that were heard lately; the latest comes last.

    An agent that restarts is another instance too, but the one before does not come back.
    """

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def record(self, instance: str, address: str, now: datetime) -> None:
        """Take note of a heartbeat, and forget who is silent for too long."""
        known = self._heard.pop(instance, None)
        fresh = {
            name: heard for name, heard in self._heard.items() if now - heard.last <= OFFLINE_AFTER
        }
        own = _Heard(address, known.first if known else now, now)
        self._heard = dict([*fresh.items(), (instance, own)][-KEPT:])

    def others(self, instance: str) -> list[str]:
        """The addresses of those that take turns with this one, the latest last."""
        own = self._heard[instance]
        return [heard.address for heard in self._heard.values() if heard.overlaps(own)]

    def addresses(self) -> list[str]:
        """The addresses of all that take turns, sorted; none when there is but one."""
        return sorted(heard.address for name, heard in self._heard.items() if self.others(name))
