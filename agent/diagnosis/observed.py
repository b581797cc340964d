"""One test of a child: what was seen of it, and what that says."""

import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from agent.diagnosis import host
from agent.diagnosis.control import ControlConnection
from agent.diagnosis.evidence import Evidence, Role
from agent.diagnosis.farewells import Farewells
from agent.diagnosis.sockets import UDP, Socket
from agent.diagnosis.ways import Way, role_of
from agent.host import Route, interface_of

# Samples of the host, which are dear with many threads, are so many times their CPU apart.
_COST = 400
# Seconds to wait for the last words beside two round trips, and at most.
_PATIENCE, _LONGEST_PATIENCE = 0.03, 0.25


class ObservedTest:
    """One test of a child, from the first sight of its control connection on.

    `streams` are its connected data sockets, and `began` is the monotonic time at which the last
    was seen first. `round_trip` is the longest that one of its connections expects now, in seconds.
    `moved` is how many bytes the data sockets have carried, both ways, or their interface for
    whomever, if it `is_interfaces`. `interface` is what the test leaves by, `peer` the address of
    the other side and `port` that of its control connection there, and `since` when it was first
    seen. `aside` is the CPU in seconds of the last look that need not come with the next one.
    """

    def __init__(self, control: Socket, has_gsro: bool) -> None:
        self._has_gsro = has_gsro
        self.peer, self.port, self.since = control.peer, control.peer_port, datetime.now(UTC)
        self.inode, self.streams, self.began, self.is_udp = control.inode, 0, 0.0, False
        self.round_trip = self.aside = 0.0
        self.moved: int | None = None
        self.is_interfaces = False
        self.interface = Route()
        with suppress(OSError):
            self.interface = interface_of(control.local_address, control.device)
        self._cookie, self._control = control.cookie, ControlConnection()
        self._farewells: Farewells | None = None
        with suppress(OSError):
            self._farewells = Farewells(control)
        self._ways: dict[Role, Way] = {"sender": Way("sender"), "receiver": Way("receiver")}
        self._seconds = self._host_due = 0.0
        # The first sample and the last one.
        self._hosts: list[host.HostSample] = []
        self._states: Counter[str] = Counter()
        self._counted: host.HostSample | None = None
        self._drops: list[int] = []
        self._carried: dict[int, int] = {}

    def add(self, pid: int, control: Socket, data: list[Socket], is_last: bool) -> None:
        """Note what can be seen now of the control connection, the data sockets and the host."""
        self.round_trip = max(each.expected_round_trip() for each in (control, *data))
        self._control.add(control)
        if not data:
            return
        now = time.monotonic()
        if (streams := len({each.inode for each in data})) > self.streams:
            # What was seen before was not yet the test.
            self.began, self.streams, self._hosts, self._host_due = now, streams, [], now
        self._seconds = now - self.began
        self._states[host.state_of(pid)] += 1
        self.is_udp = data[0].protocol == UDP
        self.aside = 0.0
        if self.is_udp or is_last or now >= self._host_due:
            self._look_at_host(pid)
        if self.is_udp:
            self._drops = [each.numbers["drops"] for each in data if "drops" in each.numbers]
            # From the last sample on since which there was something to count.
            sample = self._hosts[-1]
            since = self._counted or sample
            step, self.is_interfaces = host.bytes_between(since, sample, self._has_gsro)
            self.moved = None if step is None else (self.moved or 0) + step
            if step or not self._counted:
                self._counted = sample
        else:
            roles = [role_of(each) for each in data]
            for role, way in self._ways.items():
                if group := [each for each, own in zip(data, roles, strict=True) if own == role]:
                    way.add(group, self._seconds)
            # What the process reads and writes has `--zerocopy` twice, `--skip-rx-copy` not at all.
            # A path of MPTCP may have gone.
            self._carried |= {each.cookie: sum(each.carried()) for each in data}
            self.moved = sum(self._carried.values()) or None

    def end(self) -> None:
        """Hear the last words of its sockets, which have gone; call it in a greenlet."""
        if not self._farewells:
            return
        # At UDP the control connection's tells much. It comes a round trip after its end.
        patience = min(_PATIENCE + 2 * self.round_trip, _LONGEST_PATIENCE) if self.is_udp else 0.0
        destroyed, self._farewells = self._farewells.hear(self._cookie, patience), None
        for way in self._ways.values():
            way.end(destroyed)
        if control := destroyed.get(self._cookie):
            self._control.end(control)

    def _look_at_host(self, pid: int) -> None:
        began = time.thread_time()
        self._hosts[1:] = [host.take_sample(pid, self.interface.interface)]
        cost = time.thread_time() - began
        self._host_due = time.monotonic() + cost * _COST
        # At UDP it tells what the test has moved.
        self.aside = 0.0 if self.is_udp else cost

    def path(self) -> dict[str, float]:
        """What is known of the way between the hosts, as a result's `path` has it."""
        sent, received = self._figures().values()
        figures = {
            **self._control.round_trips(sent),
            "pmtu": sent.get("pmtu") or self._control.usual("pmtu"),
            "mss": sent.get("mss"),
            "cwnd_bytes": sent.get("cwnd_bytes"),
            "window_bytes": sent.get("window_bytes") or received.get("rcv_wnd"),
        }
        figures["min_rtt_ms"] = figures.pop("base_ms")
        return {name: value for name, value in figures.items() if value}

    def _figures(self) -> dict[Role, dict[str, Any]]:
        return {role: way.figures(self._seconds) for role, way in self._ways.items()}

    def host(self) -> dict[str, Any]:
        """What is known of this host, as a result's `host` has it."""
        drops = {"socket_drops": sum(self._drops)} if self._drops else {}
        return drops | host.figures_between(self._hosts[0], self._hosts[-1]) if self._hosts else {}

    def evidence(self, role: Role) -> Evidence:
        """What is known of the direction at whose end this host is in that role."""
        ways = self._figures()
        round_trips = self._control.round_trips(ways["sender"])
        figures = ways[role] | round_trips | self.host() | host.largest_buffers()
        if not figures.get("pmtu"):
            figures["pmtu"] = self._control.usual("pmtu")
        if self.is_udp:
            figures["control_rise_ms"] = self._control.rise(figures["base_ms"])
        if thread := figures.pop("iperf3_busiest_thread", None):
            figures["cpu"] = thread["run"], thread["waited"]
        if looks := self._states.total() - self._states[""]:
            figures |= {"stopped": self._states["T"] / looks, "stuck": self._states["D"] / looks}
        if self._hosts:
            figures["quota"] = host.was_throttled(self._hosts[0], self._hosts[-1])
        return Evidence.of(
            figures,
            role=role,
            protocol="udp" if self.is_udp else "tcp",
            streams=self.streams,
            seconds=self._seconds,
            interface=self.interface.interface,
            speed_mbps=host.believed_speed(self.interface),
        )
