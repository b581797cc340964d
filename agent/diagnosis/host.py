"""What a host does during a test: its counters at a moment, and what they rose by."""

import os
import re
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from agent.diagnosis.netlink import DUMP, NETLINK_ROUTE, ask, attributes
from agent.host import Route

# Seconds: in shorter times a share, and that nothing was read, say nothing.
_SHORTEST, _SILENT = 0.2, 1.0
# A share of the time: what runs less waits for its peer.
_AT_WORK = 0.001
# Where each counter is, and the numbers there that it is the sum of.
_COUNTERS = [
    ("io", "/proc/{pid}/io", r"^[rw]char: (\d+)"),
    ("udp_receive_buffer_errors", "/proc/{pid}/net/snmp", r"^Udp: \d+ \d+ \d+ \d+ (\d+)"),
    ("udp_receive_buffer_errors", "/proc/{pid}/net/snmp6", r"^Udp6RcvbufErrors\s+(\d+)"),
    ("softnet_dropped", "/proc/net/softnet_stat", r"^\w+ (\w+)"),
]
_THROTTLED = r"^nr_throttled (\d+)"
# The columns of an interface in /proc/PID/net/dev; there are eight for each direction.
_DEVICES = "/proc/{pid}/net/dev"
_COLUMNS = {"rx_bytes": 0, "rx_dropped": 3, "tx_bytes": 8, "tx_dropped": 11}
_ERRORS = (2, 10)
_OF_NIC = ("rx_dropped", "tx_dropped", "errors")
_OF_HOST = ("qdisc_drops", "softnet_dropped", "udp_receive_buffer_errors")
# linux/rtnetlink.h: struct tcmsg (family, interface, handle, parent, info), the parent of a root,
# and an attribute, struct tc_stats (bytes, packets, drops, ...).
_RTM_GETQDISC, _ROOT, _TCA_STATS = 38, 0xFFFFFFFF, 3
_TCMSG, _DROPS = struct.Struct("=B3xiIII"), struct.Struct("=12xI")
# In Mbit/s: what veth, TUN and TAP say of themselves, and carry more or less.
_INVENTED = (10, 10_000)


class HostSample(NamedTuple):
    """A moment's counters, and how many seconds each thread ran and waited for a core."""

    at: float
    threads: dict[str, tuple[float, float]]
    counters: dict[str, int]


def take_sample(pid: int, nic: str) -> HostSample:
    """Read what can be read of a process, of its network namespace and of an interface."""
    sample = HostSample(time.monotonic(), {}, {})
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            # A thread may end meanwhile.
            if words := _read(f"/proc/{pid}/task/{task}/schedstat").split():
                sample.threads[task] = int(words[0]) / 1e9, int(words[1]) / 1e9
    quotas = [("throttled", path, _THROTTLED) for path in _quotas_of(pid)]
    for name, path, pattern in [*_COUNTERS, *quotas]:
        base = 16 if name == "softnet_dropped" else 10
        for number in re.findall(pattern, _read(path.format(pid=pid)), re.MULTILINE):
            sample.counters[name] = sample.counters.get(name, 0) + int(number, base)
    # What it wrote to stdout is its report, and no traffic.
    with suppress(OSError, KeyError):
        sample.counters["io"] -= os.stat(f"/proc/{pid}/fd/1").st_size
    devices = _read(_DEVICES.format(pid=pid))
    if row := re.search(rf"^\s*{re.escape(nic)}:(.*)", devices, re.MULTILINE):
        numbers = [int(number) for number in row[1].split()]
        sample.counters.update({name: numbers[place] for name, place in _COLUMNS.items()})
        sample.counters["errors"] = sum(numbers[place] for place in _ERRORS)
    with suppress(OSError):
        sample.counters["qdisc_drops"] = _qdisc_drops(socket.if_nametoindex(nic))
    return sample


def _qdisc_drops(index: int) -> int:
    """What the queue of an interface has dropped: nothing where there is none."""
    drops = 0
    for answer in ask(NETLINK_ROUTE, _RTM_GETQDISC, _TCMSG.pack(0, index, 0, 0, 0), DUMP):
        _, interface, _, parent, _ = _TCMSG.unpack_from(answer)
        if (interface, parent) == (index, _ROOT):
            (drops,) = _DROPS.unpack_from(attributes(answer[_TCMSG.size :])[_TCA_STATS])
    return drops


def _quotas_of(pid: int) -> list[str]:
    """Where the kernel counts how often quotas held up a process: its group's, and those above."""
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        # Of cgroup 2 the controllers are empty.
        _, controllers, path = line.split(":", 2)
        group = Path(f"/sys/fs/cgroup/{controllers}{path}")
        if controllers != "cpuset" and (group / "cpu.stat").exists():
            return [f"{each}/cpu.stat" for each in (group, *group.parents)]
    return []


def state_of(pid: int) -> str:
    """The letter of a process's state, as in ps(1): T is stopped, D is stuck in the kernel."""
    return _read(f"/proc/{pid}/stat").rpartition(") ")[2][:1]


def believed_speed(route: Route) -> int | None:
    """The Mbit/s of an interface that has a device, or of which somebody has set them."""
    has_device = os.path.exists(f"/sys/class/net/{route.interface}/device")
    return route.speed_mbps or None if has_device or route.speed_mbps not in _INVENTED else None


def largest_buffers() -> dict[str, int]:
    """The bytes that the host allows each socket of TCP, named as in Evidence."""
    largest = {}
    for name in ("tcp_rmem", "tcp_wmem"):
        if words := _read(f"/proc/sys/net/ipv4/{name}").split():
            largest[f"{name}_max"] = int(words[-1])
    return largest


def _read(path: str) -> str:
    """A file's text; empty if it cannot be read. Buffers would take as long as the file."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        return file.readall().decode("ascii", "replace")
    return ""


def figures_between(first: HostSample, last: HostSample) -> dict[str, Any]:
    """What happened from the first to the last of two samples, as a result's `host` has it."""
    rose, shares = _rose(first, last), _shares(first, last)
    figures: dict[str, Any] = {}
    if shares and last.at - first.at >= _SHORTEST:
        ran, waited = max(shares, key=sum)
        figures["iperf3_busiest_thread"] = {"run": round(ran, 3), "waited": round(waited, 3)}
    if nic := {name: rose[name] for name in _OF_NIC if name in rose}:
        figures["nic"] = nic
    return figures | {name: rose[name] for name in _OF_HOST if name in rose}


def was_throttled(first: HostSample, last: HostSample) -> bool | None:
    """Whether a quota held up the process meanwhile; None if nobody counts."""
    rose = _rose(first, last)
    return rose["throttled"] > 0 if "throttled" in rose else None


def bytes_between(first: HostSample, last: HostSample, has_gsro: bool) -> tuple[int | None, bool]:
    """What a process read and wrote from one sample to the next; None where nobody counts.

    The kernel does not count so what `--gsro` moves. For an iperf3 that has it and runs for a
    second, and yet neither reads nor writes, it is what the interface carried, whoever it was for,
    and the answer's second part is true.
    """
    rose = _rose(first, last)
    at_work = sum(ran for ran, _ in _shares(first, last)) > _AT_WORK
    if has_gsro and rose.get("io") == 0 and at_work and last.at - first.at >= _SILENT:
        return max(rose.get("rx_bytes", 0), rose.get("tx_bytes", 0)), True
    return rose.get("io"), False


def _rose(first: HostSample, last: HostSample) -> dict[str, int]:
    both = first.counters.keys() & last.counters
    return {name: last.counters[name] - first.counters[name] for name in both}


def _shares(first: HostSample, last: HostSample) -> list[tuple[float, float]]:
    """The shares of the time that threads ran and waited; one born meanwhile began at 0."""
    seconds = max(last.at - first.at, 1e-3)
    pairs = [(first.threads.get(name, (0.0, 0.0)), now) for name, now in last.threads.items()]
    return [((now[0] - was[0]) / seconds, (now[1] - was[1]) / seconds) for was, now in pairs]
