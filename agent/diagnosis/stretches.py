"""The time between the looks at TCP sockets that send: what happened in each stretch of it."""

from agent.diagnosis.sockets import Socket

# Seconds of a stretch at least: what is lost steadily is lost in each of this length.
_SHORTEST = 0.5


class Stretches:
    """Shares of the time in which something was lost, and in which nothing was acknowledged."""

    def __init__(self) -> None:
        self._number = 0
        self._seconds = self._lossy = self._silent = 0.0
        # At the end of the last stretch: the age of the test, what was lost and acknowledged.
        self._before: tuple[float, int, int] | None = None

    def add(self, sockets: list[Socket], age: float) -> None:
        """Note what all of them have counted at this age of the test."""
        round_trip = max(each.expected_round_trip() for each in sockets)
        # An acknowledgement takes a round trip.
        if self._before and 0 < age - self._before[0] < max(_SHORTEST, round_trip):
            return
        known = [each.numbers for each in sockets]
        try:
            # What had arrived was not lost.
            lost = sum(each["total_retrans"] - each["dsack_dups"] for each in known)
            acked = sum(each["bytes_acked"] for each in known)
            waits = any(each["notsent_bytes"] or each["unacked"] for each in known)
        except KeyError:
            return
        # The age begins anew with each further stream.
        if self._before and age:
            began, lost_before, acked_before = self._before
            self._number += 1
            self._seconds += age - began
            self._lossy += (age - began) * (lost > lost_before)
            self._silent += (age - began) * (acked == acked_before and waits)
        self._before = age, lost, acked

    def shares(self) -> dict[str, float]:
        """Both, named as in Evidence; nothing before there are two stretches."""
        if self._number < 2:
            return {}
        shares = {"lossy_share": self._lossy, "silent_share": self._silent}
        return {name: seconds / self._seconds for name, seconds in shares.items()}
