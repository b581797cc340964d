"""What one half of a test knows of why one of its directions was as fast as it was."""

from typing import Any, Literal, Self

from msgspec import Struct

Role = Literal["sender", "receiver"]
# What can be known of any direction, and of those of TCP and UDP by the role; all else is missing.
_OF_ALL = "rtt_ms base_ms pmtu cpu stopped quota qdisc_drops softnet_dropped nic"
_OF_EACH = {
    ("tcp", "sender"): "in_flight_to_window window_bytes window_floor receiver_window_share"
    " send_buffer_share busy_share notsent queued_share sndbuf congestion tcp_wmem_max mss"
    " first_mss segments retransmitted needless reordered timeouts acked",
    ("tcp", "receiver"): "unread_share rcv_wnd rcvbuf rcv_rtt_ms tcp_rmem_max segments"
    " out_of_order",
    ("udp", "sender"): "control_rise_ms",
    ("udp", "receiver"): "socket_drops udp_receive_buffer_errors",
}
# A thread that runs or waits for a core for this share of the time limits its test; starved
# receivers took 0.87 to 1.03 of a core, others 0.6 at most.
_BUSY = 0.8
# The same where a quota held it up, as a thread that its quota has stopped may count as idle.
_THROTTLED = 0.4


class Worst(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stream that carried least, where there are several, counted from 1 on."""

    number: int
    rate_share: float
    lost_share: float | None = None
    rtt_ms: float | None = None


class Evidence(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One direction of one test, as this host saw it. None is what nobody knows.

    docs/diagnosis.md says what each figure is, in which unit, and of what. `missing` names what
    could not be read.
    """

    role: Role
    protocol: Literal["tcp", "udp"] = "tcp"
    streams: int = 1
    seconds: float = 0.0
    rate: float | None = None
    sent: float | None = None
    asked: float | None = None
    pacing: float | None = None
    overtime: float | None = None
    omitted: float | None = None
    orderly: bool = False
    both_ways: bool = False

    # The path.
    rtt_ms: float | None = None
    base_ms: float | None = None
    control_rise_ms: float | None = None
    pmtu: int | None = None
    mss: int | None = None
    first_mss: int | None = None

    # Windows and buffers of a TCP sender, and this host's largest.
    in_flight_to_window: float | None = None
    window_bytes: int | None = None
    window_floor: float | None = None
    receiver_window_share: float | None = None
    send_buffer_share: float | None = None
    busy_share: float | None = None
    notsent: int | None = None
    queued_share: float | None = None
    sndbuf: int | None = None
    congestion: str | None = None
    tcp_wmem_max: int | None = None
    tcp_rmem_max: int | None = None

    # Those of a TCP receiver.
    unread_share: float | None = None
    rcv_wnd: int | None = None
    rcvbuf: int | None = None
    rcv_rtt_ms: float | None = None

    # What a TCP sender lost, what a TCP receiver got behind a hole, and what UDP lost.
    segments: int | None = None
    retransmitted: int | None = None
    needless: int | None = None
    reordered: int | None = None
    timeouts: int | None = None
    acked: int | None = None
    lossy_share: float | None = None
    silent_share: float | None = None
    out_of_order: int | None = None
    lost: int | None = None
    packets: int | None = None

    # The host.
    cpu: tuple[float, float] | None = None
    stopped: float | None = None
    stuck: float | None = None
    quota: bool | None = None
    socket_drops: int | None = None
    qdisc_drops: int | None = None
    nic: dict[str, int] = {}
    softnet_dropped: int | None = None
    udp_receive_buffer_errors: int | None = None
    interface: str = ""
    speed_mbps: int | None = None

    worst: Worst | None = None
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, figures: dict[str, Any], **known: Any) -> Self:
        """Those figures that have a field here; what could be known and is not is missing."""
        names = set(cls.__struct_fields__) & figures.keys()
        found = {name: figures[name] for name in names} | known
        wanted = f"{_OF_ALL} {_OF_EACH[known['protocol'], known['role']]}".split()
        missing = tuple(name for name in wanted if found.get(name) is None)
        return cls(**found, missing=missing)

    @property
    def load(self) -> float:
        """The share of the time in which the busiest thread ran or waited; 0 if nobody knows."""
        return sum(self.cpu or ())

    @property
    def is_busy(self) -> bool:
        """Whether that thread had too little of a core."""
        return self.load >= (_THROTTLED if self.quota else _BUSY)
