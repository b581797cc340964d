"""One direction of a TCP test: what its sockets say at each look, and what that comes to."""

from collections import deque
from collections.abc import Callable
from operator import itemgetter
from statistics import median_high, median_low
from typing import Any

from agent.diagnosis.evidence import Role, Worst
from agent.diagnosis.sockets import Socket
from agent.diagnosis.stretches import Stretches

SAMPLES_KEPT = 3600
# Seconds after which the first sample, of the slow start, counts no more, and from which on a
# window should have its size.
_STARTED, _GROWN = 0.5, 1.0
# More bytes than iperf3 sends on each stream before the test.
_GREETING = 1000
_Figure = Callable[[dict[str, int]], float]


def _fullness(socket: dict[str, int]) -> float:
    flight, window = socket["unacked"] * socket["snd_mss"], socket["snd_wnd"]
    return flight / window if flight < window else 1.0


def _segments(counter: str, octets: str) -> _Figure:
    """How many there were: that counter of the kernel has 32 bits, the one of octets has 64."""

    def count(socket: dict[str, int]) -> float:
        counted, least = socket[counter], socket[octets] // max(socket["snd_mss"], 1)
        return counted + round(max(0, least - counted) / 2**32) * 2**32

    return count


_SENT = _segments("data_segs_out", "bytes_acked")
# Of these count the medians, over the streams and then over the samples.
_SAMPLED: dict[Role, dict[str, _Figure]] = {
    "sender": {
        "rtt_ms": lambda socket: socket["rtt"] / 1000,
        "min_rtt_ms": lambda socket: socket["min_rtt"] / 1000,
        "in_flight_to_window": _fullness,
        "window_bytes": itemgetter("snd_wnd"),
        "cwnd_bytes": lambda socket: socket["snd_cwnd"] * socket["snd_mss"],
        "notsent": itemgetter("notsent_bytes"),
        "queued_share": lambda socket: socket["wmem_queued"] / max(socket["sndbuf"], 1),
        "sndbuf": itemgetter("sndbuf"),
    },
    "receiver": {
        "unread_share": lambda socket: socket["rmem_alloc"] / max(socket["rcvbuf"], 1),
        "rcv_wnd": itemgetter("rcv_wnd"),
        "rcvbuf": itemgetter("rcvbuf"),
        "rcv_rtt_ms": lambda socket: socket["rcv_rtt"] / 1000,
    },
}
# Of these counts the last word of each stream: the median, the share of the time, the sum.
_LAST: dict[str, _Figure] = {"mss": itemgetter("snd_mss"), "pmtu": itemgetter("pmtu")}
_SHARES: dict[str, _Figure] = {
    "receiver_window_share": itemgetter("rwnd_limited"),
    "send_buffer_share": itemgetter("sndbuf_limited"),
    "busy_share": itemgetter("busy_time"),
}
_SUMS: dict[Role, dict[str, _Figure]] = {
    "sender": {
        "segments": _SENT,
        "retransmitted": itemgetter("total_retrans"),
        "needless": itemgetter("dsack_dups"),
        "reordered": itemgetter("reord_seen"),
        # Linux before 6.7 tells only of those that are in a row now.
        "timeouts": lambda socket: socket.get("total_rto", socket["retransmits"]),
        "acked": itemgetter("bytes_acked"),
        "pacing": lambda socket: socket["max_pacing_rate"] * 8,
    },
    "receiver": {
        "segments": _segments("data_segs_in", "bytes_received"),
        "out_of_order": itemgetter("rcv_ooopack"),
    },
}


def role_of(socket: Socket) -> Role | None:
    """Which end of its stream a data socket is; None before there is more than a greeting."""
    sent, received = socket.carried()
    # What nobody acknowledges was sent as well.
    sent += socket.numbers.get("notsent_bytes", 0)
    sent += socket.numbers.get("unacked", 0) * socket.numbers.get("snd_mss", 0)
    if max(sent, received) <= _GREETING:
        return None
    return "sender" if sent > received else "receiver"


class Way:
    """The data sockets that send, or those that receive."""

    def __init__(self, role: Role) -> None:
        self._role: Role = role
        self._samples: dict[str, deque[float]] = {}
        self._has_started = False
        # By the cookies: each as it was last seen, as it was when it was destroyed, and its least
        # and its largest window.
        self._last: dict[int, Socket] = {}
        self._destroyed: dict[int, Socket] = {}
        self._windows: dict[int, tuple[int, int]] = {}
        self._first_mss: float | None = None
        self._stretches = Stretches()

    def add(self, sockets: list[Socket], age: float) -> None:
        """Note what they say at this age of the test."""
        if age >= _STARTED and not self._has_started:
            self._samples, self._has_started = {}, True
        if not self._last:
            self._first_mss = _median(_known(sockets, _LAST["mss"]))
        self._last |= {each.cookie: each for each in sockets}
        self._stretches.add(list(self._last.values()), age)
        for name, figure in _SAMPLED[self._role].items():
            value = _median(_known(sockets, figure))
            # The kernel forgets its least one after five minutes, and the deque its oldest.
            if value and name == "min_rtt_ms" and (kept := self._samples.get(name)):
                value = min(value, kept[-1])
            # A time of 0 is none.
            if value or (value is not None and not name.endswith("_ms")):
                self._samples.setdefault(name, deque(maxlen=SAMPLES_KEPT)).append(value)
        if age >= _GROWN:
            for each in sockets:
                window = each.numbers.get("snd_wnd", 0)
                least, most = self._windows.get(each.cookie, (window, window))
                self._windows[each.cookie] = min(least, window), max(most, window)

    def end(self, destroyed: dict[int, Socket]) -> None:
        """Note the last words of those that have been seen."""
        self._destroyed = {one: destroyed[one] for one in self._last.keys() & destroyed}

    def figures(self, seconds: float) -> dict[str, Any]:
        """What is known of this direction after so many seconds, named as in Evidence.

        `min_rtt_ms`, `later_rtt_ms` (of the later half) and `cwnd_bytes` are no part of that.
        """
        if not (sockets := list(self._last.values())):
            return {}
        figures: dict[str, Any] = {name: median_low(all) for name, all in self._samples.items()}
        if least := self._samples.get("min_rtt_ms"):
            figures["min_rtt_ms"] = least[-1]
        if all := list(self._samples.get("rtt_ms", [])):
            figures["later_rtt_ms"] = median_low(all[len(all) // 2 :])
        carried = [each.carried()[self._role == "receiver"] for each in sockets]
        figures["worst"] = self._worst(sockets, carried)
        for name, figure in _SUMS[self._role].items():
            if known := _known(list((self._last | self._destroyed).values()), figure):
                figures[name] = sum(known)
        # One look is no time.
        if seconds:
            figures["rate"] = sum(carried) * 8 / seconds
        if self._role == "receiver":
            return figures
        for name, figure in _SHARES.items():
            if seconds and (known := _known(sockets, figure)):
                figures[name] = min(1.0, sum(known) / 1e6 / seconds / len(known))
        figures |= {name: _median(_known(sockets, figure)) for name, figure in _LAST.items()}
        figures |= self._stretches.shares()
        figures |= {"first_mss": self._first_mss, "congestion": sockets[0].congestion or None}
        floors = [least / most for least, most in self._windows.values() if most]
        return figures | {"window_floor": _median(floors)}

    def _worst(self, sockets: list[Socket], carried: list[int]) -> Worst | None:
        # Of two streams, the better one is what the other one is compared with.
        if len(carried) == 1 or not (median := median_high(carried)):
            return None
        number = min(range(len(carried)), key=carried.__getitem__)
        # Only a sender knows the other two.
        own = [sockets[number]] if self._role == "sender" else []
        return Worst(
            number=number + 1,
            rate_share=carried[number] / median,
            lost_share=_median(_known(own, _lost_share)),
            rtt_ms=_median(_known(own, _SAMPLED["sender"]["rtt_ms"])),
        )


def _lost_share(socket: dict[str, int]) -> float:
    lost = socket["total_retrans"] - socket["dsack_dups"]
    return max(0, lost) / max(_SENT(socket), 1)


def _known(sockets: list[Socket], figure: _Figure) -> list[float]:
    """A figure of those sockets that have all that it is made of."""
    known = []
    for each in sockets:
        # For 128 streams `suppress` takes a millisecond.
        try:
            known.append(figure(each.numbers))
        except KeyError:
            continue
    return known


def _median(values: list[float]) -> float | None:
    return median_low(values) if values else None
