"""The scenes in which a TCP test itself or one of its ends is what limits it."""

from tests.lab.busy import neighbours, quota, stopped
from tests.lab.making import long_link, own_queue, settings, slow_line
from tests.lab.scenes import CONGESTIONS, ONE_WAY, WAYS, group

FAR = long_link()
SMALL_WINDOW = settings("ipv4.tcp_rmem", "4096 16384 32768", "receivers")
SMALL_BUFFER = settings("ipv4.tcp_wmem", "4096 16384 32768")
EITHER_CPU = "sender_cpu receiver_cpu"

END_SCENES = [
    # Two cores cannot carry what a virtual cable can.
    *group("undisturbed", f"{EITHER_CPU} unknown", clear="cubic reverse 8-streams sid"),
    *group("undisturbed, 300M at 20 ms", "path_capacity unknown", FAR, is_far=True),
    *group("blocks of 64 bytes", EITHER_CPU, variants="bbr reverse sid", length=64),
    *group(
        "tiny",
        "too_short",
        variants="forward reverse bidir 8-streams",
        clear="forward reverse",
        bytes=200_000,
    ),
    *group(
        "1 s at 150 ms",
        "too_short",
        long_link(0.15),
        variants=WAYS,
        clear="forward reverse",
        is_far=True,
        seconds=1,
    ),
    *group(
        "4 s at 300 ms",
        "too_short unknown path_capacity",
        long_link(0.3),
        variants=CONGESTIONS,
        is_far=True,
    ),
    *group("20M a stream", "target_rate", clear="bbr reverse bidir sid", bitrate=20_000_000),
    *group(
        "20M a stream, 20 ms", "target_rate", FAR, clear="cubic", is_far=True, bitrate=20_000_000
    ),
    *group(
        "fq_rate 50M",
        "target_rate",
        variants="forward 8-streams sid",
        clear="forward 8-streams",
        fq_rate=50_000_000,
    ),
    # iperf3 does not tell the server of it.
    *group("fq_rate 50M", f"{EITHER_CPU} unknown", variants="reverse", fq_rate=50_000_000),
    *group(
        "line of 100M",
        "line_rate",
        slow_line(100),
        variants=ONE_WAY,
        clear="cubic reverse",
        is_far=True,
    ),
    *group(
        "sender's quota 10 %", "sender_cpu", quota(0.1), variants=ONE_WAY, clear="bbr reverse sid"
    ),
    *group("sender's neighbours", "sender_cpu", neighbours(20), variants=ONE_WAY, clear="cubic"),
    *group(
        "receiver's quota 10 %",
        "receiver_cpu",
        quota(0.1, "receivers"),
        variants=ONE_WAY,
        clear="bbr reverse sid",
    ),
    *group(
        "receiver's neighbours",
        "receiver_cpu",
        neighbours(20, "receivers"),
        variants=ONE_WAY,
        clear="cubic",
    ),
    *group("quota 10 % for all", EITHER_CPU, quota(0.1), variants="bidir"),
    *group(
        "tcp_rmem 32K, 20 ms",
        "receiver_window",
        FAR,
        SMALL_WINDOW,
        clear="reno bbr reverse bidir 8-streams sid",
        is_far=True,
    ),
    *group(
        "tcp_wmem 32K, 20 ms",
        "send_buffer",
        FAR,
        SMALL_BUFFER,
        clear="cubic reverse sid",
        is_far=True,
    ),
    # It is for both buffers of both ends.
    *group(
        "window 32K, 20 ms",
        "receiver_window send_buffer",
        FAR,
        clear="reverse",
        is_far=True,
        window=32768,
    ),
    *group(
        "receiver stopped",
        "receiver_host",
        stopped("receivers"),
        variants=ONE_WAY,
        clear="bbr reverse sid",
    ),
    *group(
        "sender stopped",
        "sender_host",
        stopped("senders"),
        variants=ONE_WAY,
        clear="bbr reverse sid",
    ),
    *group(
        "own tbf 50M, 12 KB deep",
        "sender_host",
        own_queue("qdisc add DEV root tbf rate 50mbit burst 4k limit 12k"),
    ),
]
