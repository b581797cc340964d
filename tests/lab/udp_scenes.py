"""The scenes of UDP."""

from tests.lab.busy import quota, stopped
from tests.lab.end_scenes import EITHER_CPU, FAR
from tests.lab.making import (
    Maker,
    deep_link,
    long_link,
    lossy,
    own_queue,
    policer,
    slow_line,
    slow_link,
)
from tests.lab.scenes import WAYS, Scene, group

_ONE_WAY = "forward reverse 8-streams sid sid+reverse"
_TBF = slow_link("20mbit", "latency 50ms")
# No test begins without the few bytes by which the ends tell each other of a stream.
_DATA = 100


def _udp(
    name: str,
    right: str,
    *makers: Maker,
    mbps: int,
    variants: str = WAYS,
    clear: str = "",
    is_far: bool = False,
) -> list[Scene]:
    """Scenes with so many Mbit/s of UDP in each stream."""
    return group(
        f"UDP {mbps}M, {name}",
        right,
        *makers,
        variants=variants,
        clear=clear,
        is_far=is_far,
        udp=True,
        bitrate=mbps * 1_000_000,
    )


UDP_SCENES = [
    *_udp("undisturbed", "target_rate", mbps=20, clear="forward reverse sid"),
    *_udp("20 ms", "target_rate", FAR, mbps=20, is_far=True),
    *_udp("tbf 20M", "path_capacity", _TBF, mbps=50, clear="forward reverse sid"),
    *_udp("tbf 20M", "path_capacity", _TBF, mbps=22, variants="forward reverse sid"),
    *_udp("htb 20M, deep", "path_capacity", deep_link("20mbit", 200), mbps=25, clear="forward"),
    *_udp(
        "20M at 20 ms",
        "path_capacity",
        long_link(rate=2e7, queue=0.05),
        mbps=50,
        # The full queue drops the last message of one reverse test in five: then nothing tells.
        clear="forward",
        is_far=True,
    ),
    *_udp("line of 100M", "line_rate path_capacity", slow_line(100), mbps=150, is_far=True),
    *_udp("loss 5 %", "path_loss", lossy(5, _DATA), mbps=20, clear="forward reverse sid"),
    *_udp("loss 1 %, 20 ms", "path_loss target_rate", FAR, lossy(1, _DATA), mbps=20, is_far=True),
    *_udp("policer 16M", "path_loss", policer(2000, 64), mbps=30, clear="forward"),
    # No limit at all.
    *_udp("undisturbed", f"{EITHER_CPU} receiver_host", mbps=0, variants=_ONE_WAY),
    # It sends in bursts, for which the receiver may have no room.
    *_udp(
        "sender's quota 10 %",
        "sender_cpu receiver_host",
        quota(0.1),
        mbps=1000,
        variants=_ONE_WAY,
        clear="forward",
    ),
    *_udp(
        "receiver's quota 5 %",
        "receiver_cpu receiver_host",
        quota(0.05, "receivers"),
        mbps=500,
        variants=_ONE_WAY,
        clear="forward",
    ),
    *_udp(
        "receiver stopped",
        "receiver_host",
        stopped("receivers"),
        mbps=50,
        variants=_ONE_WAY,
        clear="forward reverse sid",
    ),
    # It makes up for each pause, with a burst that not all may find room for.
    *_udp(
        "sender stopped",
        "sender_host target_rate receiver_host",
        stopped("senders"),
        mbps=50,
        variants=_ONE_WAY,
    ),
    *_udp(
        "own tbf 20M",
        "sender_host",
        own_queue("qdisc add DEV root tbf rate 20mbit burst 4k limit 12k"),
        mbps=50,
        variants=_ONE_WAY,
        clear="forward",
    ),
]
