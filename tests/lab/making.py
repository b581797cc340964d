"""How a test is made slow: each maker is a block in which the cause is there, physically."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from tests.lab.hosts import ENDS, FAR, FAR_DEVICE, NEAR, NEAR_DEVICE, OTHER, Hosts
from tests.support.distance import carried


@dataclass(frozen=True)
class Place:
    """Where a test runs: which ends send, by which of the two paths, and whose iperf3 is which.

    `pid` waits for the iperf3 of an end, and has its process id. `version` is that of IP.
    """

    hosts: Hosts
    senders: tuple[str, ...]
    is_far: bool
    pid: Callable[[str], int]
    version: int = 4

    @property
    def receivers(self) -> list[str]:
        """The ends that receive."""
        return [OTHER[sender] for sender in self.senders]

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each end."""
        return (FAR if self.is_far else NEAR)[self.version]

    @property
    def device(self) -> str:
        """The device of each end."""
        return FAR_DEVICE if self.is_far else NEAR_DEVICE


Maker = Callable[[Place], AbstractContextManager[None]]


def long_link(
    round_trip: float = 0.02,
    rate: float = 3e8,
    queue: float = 0.1,
    loss: float = 0.0,
    late: float = 0.0,
) -> Maker:
    """Carry the long link's packets, as `carried` says; what has no cause beside it fills it.

    A process carries them: with a higher rate it would take a core from the test.
    """
    return lambda place: carried(place.hosts.link, round_trip, rate, queue, loss, late)


def settings(name: str, value: str, of: str = "senders") -> Maker:
    """Give a sysctl another value on the senders, or on the `receivers`."""
    return _each(of, lambda place, end: place.hosts.setting(end, name, value))


def bottleneck(*lines: str, to: str = "receivers") -> Maker:
    """The router's way out to the receivers, or to the `senders`, as lines of `tc` have it."""
    return _each(to, lambda place, end: place.hosts.queue("router", end, *lines))


def slow_link(rate: str, limit: str) -> Maker:
    """A link of that rate behind a queue of so many bytes, or of a time such as `latency 50ms`."""
    return bottleneck(f"qdisc add DEV root tbf rate {rate} burst 32k {limit}")


def deep_link(rate: str, packets: int) -> Maker:
    """A link of that rate behind a queue of so many packets."""
    return bottleneck(
        "qdisc add DEV root handle 1: htb default 1 r2q 1000",
        f"class add DEV parent 1: classid 1:1 htb rate {rate}",
        f"qdisc add DEV parent 1:1 pfifo limit {packets}",
    )


def own_queue(line: str) -> Maker:
    """The senders' own way out, as this line of `tc` has it."""
    return _each("senders", lambda place, end: place.hosts.queue(end, place.device, line))


def dropping(match: str) -> Maker:
    """Drop what goes to the receivers and matches, on the way there; each packet is a single one.

    The long link has no router: there the packets end at the receiver's door.
    """

    @contextmanager
    def make(place: Place) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(place.hosts.single_packets())
            to = "ip6 daddr" if place.version == 6 else "ip daddr"
            rules = [f"{to} {place.addresses[end]} {match} drop" for end in place.receivers]
            if place.is_far:
                for end, rule in zip(place.receivers, rules, strict=True):
                    stack.enter_context(place.hosts.filter(end, "prerouting", rule))
            else:
                stack.enter_context(place.hosts.filter("router", "forward", *rules))
            yield

    return make


def lossy(percent: float, least: int = 0) -> Maker:
    """Lose such a share at random of the packets that have so many bytes or more."""
    return dropping(f"meta length >= {least} numgen random mod 10000 < {round(percent * 100)}")


def policer(kilobytes: int, burst: int) -> Maker:
    """Drop what is above a rate per second and a burst, in kilobytes, and queue nothing."""
    return dropping(f"limit rate over {kilobytes} kbytes/second burst {burst} kbytes")


def small_mtu(size: int) -> Maker:
    """The router's cables to the receivers carry less than the others, and nobody says so."""

    @contextmanager
    def make(place: Place) -> Iterator[None]:
        silence = ("icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop")
        with place.hosts.filter("router", "output", *silence), ExitStack() as stack:
            for end in place.receivers:
                stack.enter_context(place.hosts.mtu("router", end, size))
            yield

    return make


def slow_line(mbps: int) -> Maker:
    """A network device of that speed at both ends of the long link, which says so."""

    @contextmanager
    def make(place: Place) -> Iterator[None]:
        for end in ENDS:
            words = f"ethtool -s {FAR_DEVICE} speed {mbps} duplex full".split()
            place.hosts.run(end, *words)
        try:
            with carried(place.hosts.link, 0.001, mbps * 1e6, 0.02, 0.0):
                yield
        finally:
            for end in ENDS:
                words = f"ethtool -s {FAR_DEVICE} speed 10000 duplex full".split()
                place.hosts.run(end, *words)

    return make


def _each(of: str, make: Callable[[Place, str], AbstractContextManager[None]]) -> Maker:
    """The same for each of the `senders` or `receivers`."""

    @contextmanager
    def make_all(place: Place) -> Iterator[None]:
        with ExitStack() as stack:
            for end in place.senders if of == "senders" else place.receivers:
                stack.enter_context(make(place, end))
            yield

    return make_all
