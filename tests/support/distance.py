"""Two hosts that are far from each other: namespaces, and a link that delivers each packet late."""

import fcntl
import heapq
import itertools
import os
import random
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gevent import subprocess

from tests.support.network import Network, run_ip

# Addresses that the tests' own host does not see.
NEAR, FAR = "10.98.1.1", "10.98.1.2"
# The network device at both ends.
DEVICE = "long0"
# linux/if_tun.h: TUNSETIFF, with IFF_TUN and IFF_NO_PI.
_SET_DEVICE, _TUN = 0x400454CA, 0x1001
_PACKETS_AT_ONCE = 64
_NUMBERS = itertools.count()


@contextmanager
def distance(
    round_trip: float, rate: float = 1e9, queue: float = 4.0, loss: float = 0.0
) -> Iterator[Network]:
    """The hosts `near` and `far`, so many seconds apart, taken down with the block.

    Each way carries `rate` bits per second, after a queue of so many seconds, and loses that share
    of the packets. Needs root, iproute2 and /dev/net/tun. It carries some 0.5 Gbit/s.
    """
    name = f"distance-{os.getpid()}-{next(_NUMBERS)}"
    with ExitStack() as stack:
        for host in ("near", "far"):
            run_ip("netns", "add", f"{name}-{host}")
            stack.callback(run_ip, "netns", "del", f"{name}-{host}")
            run_ip("-n", f"{name}-{host}", "link", "set", "lo", "up")
        ends = stack.enter_context(link_ends(name, {"near": NEAR, "far": FAR}))
        stack.enter_context(carried(ends, round_trip, rate, queue, loss))
        yield Network(name)


@contextmanager
def link_ends(name: str, addresses: dict[str, str]) -> Iterator[list[int]]:
    """A TUN device in each of the network's two hosts, which have these addresses on it."""
    with ExitStack() as stack:
        ends = []
        for host, address in addresses.items():
            with Network(name).inside(host):
                ends.append(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK))
                fcntl.ioctl(ends[-1], _SET_DEVICE, struct.pack("16sH22x", DEVICE.encode(), _TUN))
            stack.callback(os.close, ends[-1])
            for words in (
                ["address", "add", f"{address}/24", "dev", DEVICE],
                ["link", "set", DEVICE, "up", "txqueuelen", "2000"],
            ):
                run_ip("-n", f"{name}-{host}", *words)
        yield ends


@contextmanager
def carried(
    ends: list[int], round_trip: float, rate: float, queue: float, loss: float, late: float = 0.0
) -> Iterator[None]:
    """Carry packets between the ends of a link as `distance` does, until the block's end.

    The share `late` of the packets arrives a quarter of the round trip after its turn.
    """
    command = [sys.executable, str(Path(__file__)), *map(str, ends)]
    command += map(str, (round_trip / 2, rate, queue, loss, late))
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": root}
    link = subprocess.Popen(command, pass_fds=ends, stdout=subprocess.PIPE, env=environment)
    try:
        # A first packet that waited for the link would make a round trip that TCP remembers.
        assert link.stdout and link.stdout.readline()
        yield
    finally:
        link.kill()
        link.wait()


def carry(
    ends: list[int], delay: float, rate: float, queue: float, loss: float, late: float
) -> None:
    """Carry packets between two TUN devices, each `delay` seconds late; for ever."""
    # When each way has carried what is in its queue.
    free = dict.fromkeys(ends, 0.0)
    other = dict(zip(ends, reversed(ends), strict=True))
    # When it is due, in which order it came, and where to: no two are alike.
    flying: list[tuple[float, int, int, bytes]] = []
    order = itertools.count()
    while True:
        pause = max(0.0, flying[0][0] - time.monotonic()) if flying else None
        for end in select.select(ends, [], [], pause)[0]:
            now = time.monotonic()
            for _ in range(_PACKETS_AT_ONCE):
                try:
                    packet = os.read(end, 65536)
                except BlockingIOError:
                    break
                if free[end] - now > queue or random.random() < loss:
                    continue
                free[end] = max(now, free[end]) + len(packet) * 8 / rate
                due = free[end] + delay * (1.5 if late and random.random() < late else 1)
                heapq.heappush(flying, (due, next(order), other[end], packet))
        while flying and flying[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(flying)
            try:
                os.write(end, packet)
            except BlockingIOError:
                # As a full queue does, it loses the packet.
                continue


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A cable does not wait for a core. A container's root may not say so.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    print("ready", flush=True)
    carry([int(sys.argv[1]), int(sys.argv[2])], *map(float, sys.argv[3:]))
