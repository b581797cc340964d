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


class Worst(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stream that carried least, where there are several.

    `number` counts from 1 in the order of the descriptors. `rate_share` is what it carried over
    what the median did; `lost_share` and `rtt_ms` are its own.
    """

    number: int
    rate_share: float
    lost_share: float | None = None
    rtt_ms: float | None = None


class Evidence(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One direction of one test, as this host saw it. None is what nobody knows.

    Figures are of the test alone: of RTT, flight, windows and buffers the medians over samples and
    streams, of counters what they rose by, over all streams. Shares are between 0 and 1; rates in
    bits per second; sizes in bytes. `missing` names what could not be read.
    """

    # Which end of this direction this host's iperf3 is, from the first sight of the data sockets
    # to the last sample. `rate` is at the receiver, or else what was acknowledged or sent; `sent`
    # is at the sender, where somebody said so; `asked` is what the task wanted, and `pacing` its
    # fq_rate: all of all streams.
    role: Role
    protocol: Literal["tcp", "udp"] = "tcp"
    streams: int = 1
    seconds: float = 0.0
    rate: float | None = None
    sent: float | None = None
    asked: float | None = None
    pacing: float | None = None
    # Seconds at the end in which nothing may have moved, as iperf3 had not looked yet.
    overtime: float | None = None
    # Seconds at the start that the document leaves out, and the kernel's counters do not.
    omitted: float | None = None
    # Whether iperf3 said at its end that all is well: then its small messages passed.
    orderly: bool = False
    # Whether the test was bidirectional: acknowledgements wait behind the other way's data then.
    both_ways: bool = False

    # The path. `base_ms` is the least round trip, the larger one of the data's and the control
    # connection's; `control_rise_ms` the last round trip of that less the one before (only at UDP).
    rtt_ms: float | None = None
    base_ms: float | None = None
    control_rise_ms: float | None = None
    pmtu: int | None = None
    # A full segment's payload at the last sample, and at the first.
    mss: int | None = None
    first_mss: int | None = None

    # Windows and buffers of a TCP sender. `window_floor` is the smallest window over the largest
    # after the first second. The shares are of the time: it waited for the peer's window, for its
    # own buffer, and had something to send. `queued_share` is of the send buffer.
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
    # This host's largest for all sockets: the third number of net.ipv4.tcp_wmem and tcp_rmem.
    tcp_wmem_max: int | None = None
    tcp_rmem_max: int | None = None

    # Those of a receiver. `unread_share` is what its receive buffer holds over its size.
    unread_share: float | None = None
    rcv_wnd: int | None = None
    rcvbuf: int | None = None
    rcv_rtt_ms: float | None = None

    # What a TCP sender lost: `needless` retransmissions (D-SACK), times it saw packets `reordered`,
    # retransmission `timeouts`. `acked` are bytes. Of the time between looks, `lossy_share` is that
    # in which something was lost, `silent_share` that in which nothing was acknowledged of what
    # there was.
    segments: int | None = None
    retransmitted: int | None = None
    needless: int | None = None
    reordered: int | None = None
    timeouts: int | None = None
    acked: int | None = None
    lossy_share: float | None = None
    silent_share: float | None = None
    # What a TCP receiver got behind a hole; its `segments` are those that came.
    out_of_order: int | None = None
    # What a UDP receiver did, as the document has it.
    lost: int | None = None
    packets: int | None = None

    # The host: the shares that the busiest thread of iperf3 ran and waited for a core, and those of
    # the looks that found it stopped (T) or stuck (D). `quota`: its control group was throttled.
    cpu: tuple[float, float] | None = None
    stopped: float | None = None
    stuck: float | None = None
    quota: bool | None = None
    socket_drops: int | None = None
    qdisc_drops: int | None = None
    nic: dict[str, int] = {}
    softnet_dropped: int | None = None
    udp_receive_buffer_errors: int | None = None
    # What its traffic leaves by, and the speed of that where it can be believed.
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
