"""The scenes with two causes at once: each may be named, unless only one of them counts."""

from tests.lab.busy import quota, stopped
from tests.lab.end_scenes import EITHER_CPU, FAR, SMALL_BUFFER, SMALL_WINDOW
from tests.lab.making import long_link, lossy, slow_link
from tests.lab.scenes import CONGESTIONS, WAYS, group

_TBF = slow_link("100mbit", "latency 50ms")

DOUBLE_SCENES = [
    *group(
        "tcp_rmem and tcp_wmem 32K, 20 ms",
        "receiver_window send_buffer",
        FAR,
        SMALL_WINDOW,
        SMALL_BUFFER,
        variants=CONGESTIONS,
        clear="cubic",
        is_far=True,
    ),
    *group(
        "tcp_rmem 32K, loss 1 %, 20 ms",
        "receiver_window path_loss",
        long_link(loss=0.01),
        SMALL_WINDOW,
        variants=CONGESTIONS,
        is_far=True,
    ),
    *group(
        "tcp_rmem 32K, tbf 100M",
        "receiver_window path_capacity",
        _TBF,
        SMALL_WINDOW,
        variants=CONGESTIONS,
    ),
    *group(
        "50M asked, tcp_rmem 32K, 20 ms",
        "receiver_window",
        FAR,
        SMALL_WINDOW,
        variants=CONGESTIONS,
        clear="cubic",
        is_far=True,
        bitrate=50_000_000,
    ),
    *group(
        "200M asked, tbf 100M",
        "path_capacity",
        _TBF,
        variants=WAYS,
        clear="reverse",
        bitrate=200_000_000,
    ),
    *group(
        "50M asked, tbf 100M",
        "target_rate",
        _TBF,
        variants=CONGESTIONS,
        clear="cubic",
        bitrate=50_000_000,
    ),
    *group(
        "20M asked, loss 0.1 %",
        "target_rate",
        lossy(0.1),
        variants=CONGESTIONS,
        clear="bbr",
        bitrate=20_000_000,
    ),
    *group(
        "sender's quota 50 %, tbf 100M",
        "path_capacity",
        quota(0.5),
        _TBF,
        variants=WAYS,
        clear="forward",
    ),
    *group(
        "both quotas 10 %",
        EITHER_CPU,
        quota(0.1),
        quota(0.1, "receivers"),
        variants="forward sid",
    ),
    *group(
        "receiver stopped, tbf 100M",
        "receiver_host path_capacity",
        stopped("receivers"),
        _TBF,
        variants="forward reverse sid",
    ),
    *group(
        "sender's quota 20 %, loss 1 %",
        "sender_cpu path_loss",
        quota(0.2),
        lossy(1),
        variants=CONGESTIONS,
    ),
]
