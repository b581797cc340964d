"""What the evidence of one half of a test or of both means, in the terms of the rules."""

import math
from typing import Any

import msgspec

from agent.diagnosis.evidence import Evidence

# Milliseconds, and a share of the base: a round trip that is longer by both has waited in a queue.
# The share alone says nothing on a LAN (0.09 ms over 0.005 undisturbed).
_QUEUE, QUEUE_SHARE = 1.0, 0.25
# A window is full from this share on, and waited for from that share of the time; one that never
# fell below the last share of its largest is constant. BBR waits for a small window for 0.37 to
# 0.52 of the time only, and eight undisturbed streams for up to 0.75 without filling it.
_FULL, _WAITED_FOR, CONSTANT = 0.85, 0.2, 0.7
# The shares of the send buffer, and of the waits for it, of a sender that has nothing to send.
EMPTY, _SELDOM = 0.3, 0.2
# The control connection's smoothed round trip takes in an eighth of a new one (RFC 6298).
_SMOOTHED = 8
# The share of the time that a thread waits for a core on a host that is not busy.
_CALM = 0.2
# Fewer than so many losses, and than this share of the segments, limit nothing.
_FEW_LOST, LITTLE_LOST = 3, 2e-4
# So many times a bitrate may be, and are kept to, beside the block that each stream of TCP sends at
# once.
_MAY_BE_KEPT, KEPT = 2.0, 1.1
_BLOCK = 128 * 1024
# The share of the time in which nothing passed, from which on it counts.
_STOOD_STILL = 0.1
# A share of the segments or datagrams that is more than a chance.
MUCH_LOST = 1e-3
# The share of what was sent that may be on its way at the end.
_IN_TIME = 0.02
# The share of the segments that came behind a hole, from which on holes may fill the buffer.
_MANY_HOLES = 0.1


class Ends:
    """Both ends of one direction of a test, or the one whose half is known.

    What the other one would know is None in its evidence, so that no rule finds anything there.
    Rates are in bits per second, times in milliseconds. `base` is the path's own round trip, and
    `rise` what is above that in the `trip`: a receiver sees how long its sender takes to answer.
    `window` is the receiver's, in bytes, `carries` what that allows on this path, and `room` how
    often that holds the rate; `buffer_room` is the same of the send buffer, over the `trip`.
    `behind_holes` is the share of the segments that came when an earlier one was missing, and
    `unread` that of the receive buffer that iperf3 does not empty: 0 where such holes may be why.
    For a share of the time the sender `waits_for_window` or `waits_for_buffer`. At UDP `delay` is
    how much later than usual the end of the test came, by the `rises` of the control connection;
    `has_missing` is whether most of what did not arrive is not counted as lost, and `datagram` how
    many bytes each has, 0 if that is not known. `is_calm` is whether no half is known to have
    waited for a core for long.
    """

    def __init__(self, *halves: Evidence) -> None:
        roles = {each.role: each for each in halves}
        self.knows_sender, self.knows_receiver = "sender" in roles, "receiver" in roles
        self.sender = sender = roles.get("sender") or Evidence(role="sender")
        self.receiver = receiver = roles.get("receiver") or Evidence(role="receiver")
        # What the receiver knows of a rate counts more.
        self.halves = [roles[role] for role in ("receiver", "sender") if role in roles]
        self.is_udp = self.halves[0].protocol == "udp"
        self.streams = max(each.streams for each in self.halves)
        self.seconds = max(each.seconds for each in self.halves)
        self.rate, self.sent, self.asked = map(self._known, ("rate", "sent", "asked"))
        self.overtime = min((each.overtime or 0.0 for each in self.halves))
        self.sees_cpu = all(each.cpu is not None for each in self.halves)
        self.base = max((each.base_ms or 0.0 for each in self.halves))
        trip = (sender.rtt_ms if self.knows_sender else receiver.rcv_rtt_ms) or 0.0
        self.rise = max(0.0, trip - self.base) if self.base else 0.0
        self.trip = self.base + self.rise
        self.window = (sender.window_bytes if self.knows_sender else receiver.rcv_wnd) or 0
        known = [each.control_rise_ms for each in self.halves]
        self.rises = [_SMOOTHED * one for one in known if one is not None]
        # The usual round trip is left out: it may have a delayed acknowledgement of 40 ms in it.
        self.delay = max([0.0, *self.rises])
        self.is_calm = all(each.cpu[1] < _CALM for each in self.halves if each.cpu)
        self.waits_for_window = sender.receiver_window_share or 0.0
        self.waits_for_buffer = sender.send_buffer_share or 0.0
        self.behind_holes = (receiver.out_of_order or 0) / max(1, receiver.segments or 0)
        has_holes = self.behind_holes >= _MANY_HOLES
        self.unread = 0.0 if has_holes else receiver.unread_share or 0.0
        self.carries = self.window * self.streams * 8e3 / self.base if self.base else 0.0
        self.room = self.carries / self.rate if self.rate else 0.0
        held = (sender.sndbuf or 0) * self.streams * 8e3
        self.buffer_room = held / self.trip / self.rate if self.trip and self.rate else 0.0
        self.lost = max(0, (sender.retransmitted or 0) - (sender.needless or 0))
        self._packets: float | None = sender.segments
        if self.is_udp:
            self.lost, self._packets = round(self._known("lost") or 0), self._known("packets")
        self.datagram = (self.sent or 0.0) * self.seconds / 8 / (self._packets or math.inf)
        self.knows_losses = self._packets is not None
        self.lost_share = self.lost / max(self._packets or 0, self.lost, 1)
        missing = self._missing_share() if self.is_udp else 0.0
        self.has_missing = missing - self.lost_share > max(_IN_TIME, self.lost_share)
        if self.has_missing:
            self.lost_share = missing
            self.lost = max(self.lost, round(missing * (self._packets or 0)))

    def _known(self, name: str) -> float | None:
        known = (getattr(each, name) for each in self.halves)
        return next((value for value in known if value is not None), None)

    def _missing_share(self) -> float:
        """What was sent and did not arrive; the receiver's clock runs for a round trip longer."""
        longer = 1 + self.base / 1000 / max(self.seconds, 1.0)
        arrived = self.sent if self.rate is None else self.rate * longer
        return 1 - (arrived or 0.0) / self.sent if self.sent else 0.0

    def is_at(self, limit: float | None, least: float, most: float = _MAY_BE_KEPT) -> bool:
        """Whether the rate is that of a limit, from this share of it to that one."""
        blocks = 0.0 if self.is_udp else self.streams * _BLOCK * 8 / max(self.seconds, 1.0)
        limit = limit or 0.0
        return 0 < limit * least <= (self.rate or 0.0) <= limit * most + blocks

    @property
    def stood_still(self) -> bool:
        """Whether for a part of the time nothing passed, though there was something to send."""
        return (self.sender.silent_share or 0.0) >= _STOOD_STILL

    @property
    def has_queue(self) -> bool:
        """Whether packets wait in a queue on their way."""
        return self.rise >= max(_QUEUE, self.base * QUEUE_SHARE)

    @property
    def has_loss(self) -> bool:
        """Whether more than a few were lost."""
        return self.lost >= _FEW_LOST and self.lost_share >= LITTLE_LOST

    @property
    def is_starved(self) -> bool:
        """Whether the sender's kernel has nothing to send, as its iperf3 writes too little."""
        is_empty = self.sender.notsent == 0 and (self.sender.queued_share or 0.0) < EMPTY
        return is_empty and self.waits_for_buffer < _SELDOM

    @property
    def is_window_full(self) -> bool:
        """Whether the sender fills the receiver's window and waits for it."""
        is_full = (self.sender.in_flight_to_window or 0.0) >= _FULL
        return is_full and self.waits_for_window >= _WAITED_FOR

    @property
    def is_window_constant(self) -> bool:
        """Whether the window never fell far, as that of a receiver does which does not read."""
        return (self.sender.window_floor or 0.0) >= CONSTANT

    def figures(self) -> dict[str, Any]:
        """The evidence as a result has it: all that is known, and what the rules make of it."""
        known: dict[str, Any] = {"missing": []}
        for each in self.halves:
            known |= msgspec.to_builtins(each)
            if each.cpu:
                known[f"{each.role}_cpu"] = each.load
        known["missing"] = [name for each in self.halves for name in each.missing]
        if self.knows_losses:
            known["lost_share"] = self.lost_share
        if self.rises:
            known["end_delay_ms"] = self.delay
        if self.sender.segments:
            known["retransmitted_share"] = (self.sender.retransmitted or 0) / self.sender.segments
        if self.rate is not None:
            known["rate"] = self.rate
        known["rtt_above_base_ms"] = self.rise
        return {name: _short(value) for name, value in known.items()}


def _short(value: Any) -> Any:
    """A number with six digits, which are more than was measured."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
