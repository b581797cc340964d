"""Which test a child runs, and what the kernel knows of it from the first sight on."""

import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from statistics import median_low
from typing import Any

from agent.diagnosis.children import ChildSockets
from agent.diagnosis.host import HostSample, bytes_between, figures_between, take_sample
from agent.diagnosis.sockets import TCP, UDP, Socket
from agent.host import Route, interface_of

# Seconds between two looks: at an idle child, at one whose test begins (this share of its age), and
# at one whose test runs. Expensive ones are rarer, so that all of them take 0.25 % of a core.
_SHORTEST, _IDLE, _SHARE, RUNNING, _COST = 0.02, 1.0, 0.3, 1.0, 400
# Seconds before a test's planned end of the last look: at its end the sockets are gone.
_BEFORE_THE_END = 0.08
_SAMPLES_KEPT = 3600
# More bytes than iperf3 sends on each stream before the test.
_GREETING = 1000


class ObservedTest:
    """One test of a child, from the first sight of its control connection on.

    `streams` are its connected data sockets, and `began` is the monotonic time at which the last
    was seen first. `round_trip` is the longest that one of its connections expects now, in seconds.
    `moved` is how many bytes the data sockets have carried, both ways. `interface` is what the test
    leaves by, `peer` the address of the other side and `port` that of its control connection
    there, and `since` when it was first seen.
    """

    def __init__(self, control: Socket, has_gsro: bool) -> None:
        self._has_gsro = has_gsro
        self.peer, self.port, self.since = control.peer, control.peer_port, datetime.now(UTC)
        self.inode, self.streams, self.began, self.is_udp = control.inode, 0, 0.0, False
        self.round_trip = 0.0
        self.moved: int | None = None
        self.interface = Route()
        with suppress(OSError):
            self.interface = interface_of(control.local_address, control.device)
        self._seen: dict[str, deque[float]] = {}
        # The first sample and the last one.
        self._hosts: list[HostSample] = []
        self._counted: HostSample | None = None
        self._drops: list[int] = []
        self._carried: dict[int, int] = {}

    def add(self, pid: int, control: Socket, data: list[Socket]) -> None:
        """Note what can be seen now of the control connection and of the data sockets."""
        self.round_trip = max(each.expected_round_trip() for each in (control, *data))
        if not data:
            return
        if (streams := len({each.inode for each in data})) > self.streams:
            self.began, self.streams = time.monotonic(), streams
        for name, value in _sample(control, data).items():
            if value:
                self._seen.setdefault(name, deque(maxlen=_SAMPLES_KEPT)).append(value)
        self._hosts[1:] = [take_sample(pid, self.interface[0])]
        self.is_udp = data[0].protocol == UDP
        if self.is_udp:
            self._drops = [each.drops for each in data if each.drops is not None]
            # From the last sample on since which there was something to count.
            now = self._hosts[-1]
            step = bytes_between(self._counted or now, now, self._has_gsro)
            self.moved = None if step is None else (self.moved or 0) + step
            if step or not self._counted:
                self._counted = now
        else:
            # What the process reads and writes has `--zerocopy` twice, `--skip-rx-copy` not at all.
            # A path of MPTCP may have gone.
            self._carried |= {each.cookie: sum(each.carried()) for each in data}
            self.moved = sum(self._carried.values()) or None

    def path(self) -> dict[str, float]:
        """What is known of the way between the hosts, as a result's `path` has it."""
        return {
            name: min(values) if name == "min_rtt_ms" else median_low(values)
            for name, values in self._seen.items()
        }

    def host(self) -> dict[str, Any]:
        """What is known of this host, as a result's `host` has it."""
        drops = {"socket_drops": sum(self._drops)} if self._drops else {}
        return drops | figures_between(self._hosts[0], self._hosts[-1]) if self._hosts else {}


class Observer:
    """Looks at a child when it is time to.

    `test` is the one that runs, None between two, and `finished` is the one before. A client's test
    takes `planned_seconds`, if that is known. `wait` is the seconds until the next look, which are
    at most `running` while a test runs. `has_gsro` is for an iperf3 with that option.
    """

    def __init__(
        self, pid: int, planned_seconds: float | None, running: float, has_gsro: bool = True
    ) -> None:
        self._planned, self._running, self._has_gsro = planned_seconds, running, has_gsro
        self._sockets = ChildSockets(pid)
        self._born = time.monotonic()
        self.test: ObservedTest | None = None
        self.finished: ObservedTest | None = None
        self.wait = _SHORTEST

    def is_idle(self) -> bool:
        """Whether the last look has found a server without a client."""
        return not self.test and self._sockets.only_listen()

    def has_news(self) -> bool:
        """Whether there may be something new to see at an idle server, or it has ended."""
        return self._sockets.have_changed()

    def look(self) -> None:
        """Look now. It takes a millisecond, and 6 ms at 128 streams: call it in a native thread."""
        began, streams = time.thread_time(), 0
        try:
            sockets = self._sockets.read()
        except OSError:
            sockets = []
        control = next((each for each in sockets if each.protocol == TCP), None)
        if self.test and (control is None or control.inode != self.test.inode):
            self.test, self.finished = None, self.test
        if control:
            self.test = self.test or ObservedTest(control, self._has_gsro)
            streams = self.test.streams
            data = [each for each in sockets if each.inode != control.inode]
            self.test.add(self._sockets.pid, control, data)
        self.wait = self._next(time.thread_time() - began, streams)

    def _next(self, cost: float, streams: int) -> float:
        now, test = time.monotonic(), self.test
        if not test or not streams or test.streams > streams:
            idle = min(_IDLE, 2 * self._running)
            return max(_SHORTEST, min(idle, _SHARE * (now - self._born)))
        pause = max(self._running, cost * _COST)
        last = test.began + (self._planned or 0) - _BEFORE_THE_END - now
        return min(pause, last) if last > 0 else pause


def _sample(control: Socket, data: list[Socket]) -> dict[str, float]:
    """What the sockets say of the path: medians over the streams.

    A socket that only receives knows no more than its own window: the rest is the control
    connection's then. The least round trip of that belongs to the base in any case.
    """
    tcp = [each for each in data if each.protocol == TCP]
    sending = [each for each in tcp if each.carried()[0] > max(each.carried()[1], _GREETING)]
    mss = _median(sending, "snd_mss")
    base = max(_median([control], "min_rtt"), _median(sending, "min_rtt"))
    return {
        "rtt_ms": max(_median(sending or [control], "rtt"), base) / 1000,
        "min_rtt_ms": base / 1000,
        "pmtu": _median(sending or [control], "pmtu"),
        "mss": mss,
        "cwnd_bytes": _median(sending, "snd_cwnd") * mss,
        "window_bytes": _median(sending, "snd_wnd") or _median(tcp, "rcv_wnd"),
    }


def _median(sockets: list[Socket], field: str) -> int:
    """The median of a number that they know; 0 if none knows it."""
    known = [value for each in sockets if (value := each.tcp_info(field))]
    return median_low(known) if known else 0
