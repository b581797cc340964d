"""What the halves of a test may have seen, for the rules that judge it."""

from typing import Any

from agent.diagnosis.evidence import Evidence

# A test of 5 s over 20 ms in which nothing is remarkable.
TCP: dict[str, Any] = {
    "seconds": 5.0,
    "rate": 100e6,
    "rtt_ms": 20.1,
    "base_ms": 20.0,
    "pmtu": 1500,
    "mss": 1448,
    "first_mss": 1448,
    "in_flight_to_window": 0.3,
    "window_bytes": 3_000_000,
    "window_floor": 0.9,
    "receiver_window_share": 0.0,
    "send_buffer_share": 0.0,
    "busy_share": 1.0,
    "notsent": 500_000,
    "queued_share": 0.9,
    "sndbuf": 1_000_000,
    "congestion": "cubic",
    "segments": 40_000,
    "retransmitted": 0,
    "needless": 0,
    "reordered": 0,
    "timeouts": 0,
    "acked": 60_000_000,
    "lossy_share": 1.0,
    "silent_share": 0.0,
    "cpu": (0.2, 0.0),
    "stopped": 0.0,
    "qdisc_drops": 0,
}
TCP_RECEIVER: dict[str, Any] = {
    "seconds": 5.0,
    "rate": 100e6,
    "base_ms": 20.0,
    "rcv_rtt_ms": 20.2,
    "rcv_wnd": 3_000_000,
    "unread_share": 0.0,
    "out_of_order": 0,
    "segments": 40_000,
    "cpu": (0.2, 0.0),
    "stopped": 0.0,
}
UDP: dict[str, Any] = {
    "protocol": "udp",
    "seconds": 5.0,
    "rate": 50e6,
    "sent": 50e6,
    "asked": 50e6,
    "rtt_ms": 20.0,
    "base_ms": 20.0,
    "control_rise_ms": 0.0,
    "lost": 0,
    "packets": 20_000,
    "cpu": (0.2, 0.0),
    "stopped": 0.0,
    "qdisc_drops": 0,
}
UDP_RECEIVER = {name: UDP[name] for name in UDP if name not in ("sent", "control_rise_ms")}
UDP_RECEIVER |= {"socket_drops": 0}


def sender(**changes: Any) -> Evidence:
    """What the sender of a TCP test saw, apart from these changes."""
    return Evidence(role="sender", **TCP | changes)


def receiver(**changes: Any) -> Evidence:
    """What its receiver saw."""
    return Evidence(role="receiver", **TCP_RECEIVER | changes)


def udp(**changes: Any) -> tuple[Evidence, Evidence]:
    """Both halves of a UDP test; each takes the changes that are about it."""
    own = {name: value for name, value in changes.items() if not name.startswith("there_")}
    there = {name[6:]: value for name, value in changes.items() if name.startswith("there_")}
    common = {name: own[name] for name in ("rate", "lost", "asked", "seconds") if name in own}
    return (
        Evidence(role="sender", **UDP | own),
        Evidence(role="receiver", **UDP_RECEIVER | common | there),
    )


Half = dict[str, Any]
FULL: Half = {"in_flight_to_window": 0.97, "receiver_window_share": 0.8, "window_bytes": 39_000}
SLOW: Half = {"rate": 14e6}
QUEUE: Half = {"rtt_ms": 53.0}
LOSS: Half = {"retransmitted": 400}
STARVED: Half = {"notsent": 0, "queued_share": 0.1}
BLACK_HOLE: Half = {"timeouts": 4, "acked": 37, "rate": 100.0, "orderly": True}
BUSY: Half = {"cpu": (0.1, 0.85)}
LOST: Half = {"rate": 40e6, "lost": 4000}
# Of datagrams of 8000 bytes, so that `packets` fits.
ALL_LOST: Half = {"rate": 0.0, "lost": 3900, "packets": 3900, "there_packets": 3900}
