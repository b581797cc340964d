"""The twins over IPv6 of some of the other scenes, with the same name after "IPv6, "."""

from dataclasses import replace

from tests.lab.end_scenes import END_SCENES
from tests.lab.path_scenes import PATH_SCENES
from tests.lab.udp_scenes import UDP_SCENES

_GROUPS = {
    "undisturbed",
    "tiny",
    "20M a stream",
    "fq_rate 50M",
    "line of 100M",
    "tcp_rmem 32K, 20 ms",
    "tcp_wmem 32K, 20 ms",
    "receiver stopped",
    "sender stopped",
    "tbf 100M, 50 ms deep",
    "loss 1 %",
    "loss 1 %, 20 ms",
    "policer 64M",
    "black hole above 1400",
    "silent MTU of 1400",
    "UDP 20M, undisturbed",
    "UDP 50M, tbf 20M",
    "UDP 150M, line of 100M",
    "UDP 20M, loss 5 %",
    "UDP 50M, receiver stopped",
}
_VARIANTS = {"forward", "cubic", "reverse", "bidir"}
_CLEAR = {
    "undisturbed, reverse",
    "tcp_rmem 32K, 20 ms, reverse",
    "tcp_wmem 32K, 20 ms, cubic",
    "tbf 100M, 50 ms deep, bidir",
    "silent MTU of 1400, cubic",
    "UDP 50M, tbf 20M, forward",
    "UDP 50M, receiver stopped, reverse",
}

IPV6_SCENES = [
    replace(scene, group=f"IPv6, {scene.group}", version=6, is_clear=scene.name in _CLEAR)
    for scene in (*END_SCENES, *PATH_SCENES, *UDP_SCENES)
    if scene.group in _GROUPS and scene.variant in _VARIANTS
]
