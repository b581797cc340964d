"""The round trips of a test's control connection, and which of a test's count."""

from collections import deque
from statistics import median_low
from typing import Any

from agent.diagnosis.sockets import Socket
from agent.diagnosis.ways import SAMPLES_KEPT

# Milliseconds above the least round trip, and a share of that, that hide no rise.
_FADES, _FADES_SHARE = 0.6, 0.08
# Milliseconds: a rise that is a queue's, whatever was lost. Of an eighth, as the kernel smooths it.
_SURELY_ROSE = 0.25
# A round trip of the data below this share of the control connection's least is a shorter path's.
_SHORTER = 0.9


class ControlConnection:
    """What its socket says at each look, and at its end. It is idle while the test runs."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[int]] = {}
        # In microseconds.
        self._last_round_trip: int | None = None
        self._lost_words = False

    def add(self, control: Socket) -> None:
        """Note what it says now."""
        for name in ("rtt", "min_rtt", "pmtu"):
            if value := control.numbers.get(name):
                self._samples.setdefault(name, deque(maxlen=SAMPLES_KEPT)).append(value)

    def end(self, control: Socket) -> None:
        """Note its last words."""
        self._last_round_trip = control.numbers.get("rtt")
        self._lost_words = bool(control.numbers.get("total_retrans"))

    def usual(self, name: str) -> int | None:
        """The median of its `rtt` or `min_rtt`, in microseconds, or of its `pmtu` in bytes."""
        values = self._samples.get(name)
        return median_low(values) if values else None

    def rise(self, base: float | None) -> float | None:
        """How much its round trip rose at its end, in milliseconds.

        None where the rise would be hidden: a message that had to be sent again has no round trip,
        and what follows it finds the queue empty; and one from before the test, as of a packet that
        waited for an address, fades meanwhile.
        """
        usual, last = self.usual("rtt"), self._last_round_trip
        if not (usual and last and base):
            return None
        rise = (last - usual) / 1000
        fades = usual / 1000 - base > max(_FADES, base * _FADES_SHARE)
        is_hidden = (fades and rise <= 0) or (self._lost_words and rise < _SURELY_ROSE)
        return None if is_hidden else rise

    def round_trips(self, sent: dict[str, Any]) -> dict[str, float | None]:
        """The test's usual and least one, by what the data sockets that send know as well.

        This connection's belongs to the least, and stands for sockets that only receive. But it
        does not notice a path that gets shorter: then only the data's count, of the later half.
        """
        least = min(self._samples.get("min_rtt", [0])) / 1000
        later = sent.get("later_rtt_ms", least)
        if later < least * _SHORTER:
            return {"rtt_ms": later, "base_ms": sent.get("min_rtt_ms")}
        base = max(least, sent.get("min_rtt_ms", 0.0))
        usual = sent.get("rtt_ms") or (self.usual("rtt") or 0) / 1000
        return {"rtt_ms": max(usual, base) or None, "base_ms": base or None}
