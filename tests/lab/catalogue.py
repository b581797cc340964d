"""All scenes of the lab that this kernel can play."""

from pathlib import Path

from tests.lab.double_scenes import DOUBLE_SCENES
from tests.lab.end_scenes import END_SCENES
from tests.lab.hosts import VERSIONS
from tests.lab.ipv6_scenes import IPV6_SCENES
from tests.lab.path_scenes import PATH_SCENES
from tests.lab.udp_scenes import UDP_SCENES

_KNOWN = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_CONGESTIONS = _KNOWN.read_text(encoding="ascii").split() if _KNOWN.exists() else []
SCENES = [
    scene
    for scene in (*END_SCENES, *PATH_SCENES, *UDP_SCENES, *DOUBLE_SCENES, *IPV6_SCENES)
    if scene.payload.get("congestion") in (None, *_CONGESTIONS) and scene.version in VERSIONS
]
