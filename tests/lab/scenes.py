"""What a scene of the lab is: a test on a path that is made slow in a known way."""

from dataclasses import dataclass
from typing import Any

from tests.lab.making import Maker

# What a test's payload has, or which Debian's iperf3 runs it, in each variant of a scene.
_PAYLOADS: dict[str, dict[str, Any]] = {
    "forward": {},
    "reverse": {"reverse": True},
    "bidir": {"bidir": True},
    "8-streams": {"parallel": 8},
    "reno": {"congestion": "reno"},
    "cubic": {"congestion": "cubic"},
    "bbr": {"congestion": "bbr"},
}
_SUITES = ("trixie", "sid")
CONGESTIONS = "reno cubic bbr"
ONE_WAY = f"{CONGESTIONS} reverse 8-streams trixie sid"
ALL = f"{ONE_WAY} bidir"
# For what does not depend on the congestion control.
WAYS = "forward reverse bidir 8-streams sid"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One test of a group of scenes whose path is made slow in the same way.

    `right` are the causes that are true of it, in each of its directions. A clear one has to be
    named by both halves together. The test takes the long link if it `is_far`. `suite` is the
    Debian whose iperf3 runs, by default the host's. `version` is that of IP.
    """

    group: str
    variant: str
    right: frozenset[str]
    makers: tuple[Maker, ...]
    payload: dict[str, Any]
    is_far: bool
    is_clear: bool
    suite: str
    seconds: int
    version: int = 4

    @property
    def name(self) -> str:
        """What it is called, and called by."""
        return f"{self.group}, {self.variant}"

    @property
    def senders(self) -> tuple[str, ...]:
        """The ends that send, the one of the result's `diagnosis` first."""
        if self.payload.get("bidir"):
            return ("client", "server")
        return ("server",) if self.payload.get("reverse") else ("client",)


def group(
    name: str,
    right: str,
    *makers: Maker,
    variants: str = ALL,
    clear: str = "",
    is_far: bool = False,
    seconds: int = 4,
    **payload: Any,
) -> list[Scene]:
    """Scenes that differ in how the test runs alone.

    `right`, `variants` and `clear`, the variants of which nobody should be in doubt, are words.
    A variant of several has them joined by "+".
    """
    assert set(clear.split()) <= set(variants.split()), name
    scenes = []
    for variant in variants.split():
        varied = dict(payload)
        for word in variant.split("+"):
            varied |= _PAYLOADS.get(word, {})
        scene = Scene(
            group=name,
            variant=variant,
            right=frozenset(right.split()),
            makers=makers,
            payload=varied,
            is_far=is_far,
            is_clear=variant in clear.split(),
            suite=next((word for word in variant.split("+") if word in _SUITES), ""),
            seconds=seconds,
        )
        scenes.append(scene)
    return scenes
