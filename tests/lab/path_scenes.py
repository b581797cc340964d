"""The scenes in which the path limits a TCP test."""

from tests.lab.busy import others_traffic
from tests.lab.end_scenes import EITHER_CPU, FAR
from tests.lab.making import (
    bottleneck,
    deep_link,
    dropping,
    long_link,
    lossy,
    policer,
    settings,
    slow_link,
    small_mtu,
)
from tests.lab.scenes import group

LARGE_ONES_LOST = dropping("meta length > 1400")

PATH_SCENES = [
    *group(
        "tbf 100M, 50 ms deep",
        "path_capacity",
        slow_link("100mbit", "latency 50ms"),
        clear="reno bbr reverse bidir 8-streams sid",
    ),
    *group("tbf 1G, 5 ms deep", f"path_capacity {EITHER_CPU}", slow_link("1gbit", "latency 5ms")),
    *group(
        "htb 200M, huge queue",
        "path_capacity",
        deep_link("200mbit", 10_000),
        clear="reno",
    ),
    *group(
        "50M at 20 ms, 50 ms deep",
        "path_capacity",
        long_link(rate=5e7, queue=0.05),
        clear="cubic reverse",
        is_far=True,
    ),
    *group(
        "tbf 100M, 8 KB deep",
        "path_loss path_capacity",
        bottleneck("qdisc add DEV root tbf rate 100mbit burst 4k limit 8k"),
    ),
    *group(
        "tbf 100M, shared",
        "path_capacity",
        slow_link("100mbit", "latency 50ms"),
        others_traffic(),
        variants="reno cubic bbr reverse 8-streams sid",
    ),
    # It is the acknowledgements that wait there.
    *group(
        "1M on the way back",
        f"path_capacity {EITHER_CPU}",
        bottleneck("qdisc add DEV root tbf rate 1mbit burst 4k latency 50ms", to="senders"),
        variants="reno cubic bbr reverse",
    ),
    *group(
        "tbf 100M, 2 s omitted",
        "path_capacity",
        slow_link("100mbit", "latency 50ms"),
        variants="forward reverse sid",
        omit=2,
    ),
    *group("loss 1 %", f"path_loss {EITHER_CPU}", lossy(1), clear="reno cubic"),
    # BBR fills the long link in spite of it.
    *group(
        "loss 1 %, 20 ms",
        "path_loss path_capacity",
        long_link(loss=0.01),
        clear="reno cubic",
        is_far=True,
    ),
    *group("loss 3 %, 20 ms", "path_loss path_capacity", FAR, lossy(3), is_far=True),
    *group(
        "policer 64M",
        "path_loss",
        policer(8000, 64),
        clear="reno bbr reverse sid",
    ),
    *group(
        "policer 64M, 20 ms",
        "path_loss",
        FAR,
        policer(8000, 64),
        clear="cubic",
        is_far=True,
    ),
    *group(
        "black hole above 1400",
        "path_mtu",
        LARGE_ONES_LOST,
        clear="cubic reverse sid",
    ),
    *group("black hole above 1400, 20 ms", "path_mtu", FAR, LARGE_ONES_LOST, is_far=True),
    *group("silent MTU of 1400", "path_mtu", small_mtu(1400), clear="cubic"),
    *group(
        "black hole, mtu_probing",
        "path_mtu",
        LARGE_ONES_LOST,
        settings("ipv4.tcp_mtu_probing", "1"),
        variants="forward reverse sid",
        seconds=12,
    ),
    *group(
        "packets out of order, 20 ms",
        "unknown path_capacity",
        long_link(late=0.02),
        is_far=True,
    ),
]
