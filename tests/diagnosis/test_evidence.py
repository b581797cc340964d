"""What the two ends of a real test know of it when its path, a socket or a host holds it up."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import gevent
import pytest
from gevent import subprocess

from agent.diagnosis.evidence import Evidence
from agent.diagnosis.host import believed_speed
from agent.diagnosis.observed import ObservedTest
from agent.diagnosis.observer import RUNNING, Observer
from agent.host import Route
from agent.process.ports import is_listening
from tests.lab.busy import quota, stopped
from tests.lab.hosts import ENDS, OTHER, Hosts, lab_hosts
from tests.lab.making import Maker, Place, long_link, lossy, own_queue, settings, slow_link
from tests.support.harness import until

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]
NOWHERE = subprocess.DEVNULL  # type: ignore[attr-defined]
PORT, SECONDS = 5201, 3
SMALL = "4096 16384 32768"


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """The lab's namespaces."""
    with lab_hosts() as found:
        yield found


def seen(hosts: Hosts, *makers: Maker, options: str = "", far: bool = False) -> list[Evidence]:
    """What the sender and the receiver know of a test that the makers have made slow.

    Of a bidirectional one first both ends of the client's direction, then those of the other.
    """
    children: dict[str, Any] = {}

    def pid(end: str) -> int:
        until(lambda: end in children)
        return int(children[end].pid)

    senders = ("server",) if "-R" in options else ENDS if "--bidir" in options else ("client",)
    place = Place(hosts, senders, far, pid)
    with ExitStack() as stack:
        for maker in makers:
            stack.enter_context(maker(place))
        argv = {"server": ["iperf3", "-s", "-1"], "client": ["iperf3", "-t", str(SECONDS)]}
        argv["client"] += ["-c", place.addresses["server"], *options.split()]
        for end in ("server", "client"):
            with hosts.inside(end):
                children[end] = subprocess.Popen(argv[end], stdout=NOWHERE, stderr=NOWHERE)
            stack.callback(children[end].kill)
            until(lambda: end == "client" or _serves(hosts, children[end].pid))
        tests = _watched(hosts, children)
    return [
        each
        for sender in senders
        for each in (
            tests[sender].evidence("sender"),
            tests[OTHER[sender]].evidence("receiver"),
        )
    ]


def _serves(hosts: Hosts, pid: int) -> bool:
    with hosts.inside("server"):
        return bool(is_listening(pid, PORT))


def _watched(hosts: Hosts, children: dict[str, Any]) -> dict[str, ObservedTest]:
    """The test as an agent at each end sees it, until the client has ended."""
    observers = {
        end: Observer(child.pid, SECONDS if end == "client" else None, RUNNING)
        for end, child in children.items()
    }
    due = dict.fromkeys(observers, 0.0)
    is_over = False
    while not is_over:
        is_over = children["client"].poll() is not None
        for end, observer in observers.items():
            if is_over or time.monotonic() >= due[end]:
                with hosts.inside(end):
                    observer.look()
                due[end] = time.monotonic() + observer.wait
        gevent.sleep(0.005)
    tests = {}
    for end, observer in observers.items():
        test = observer.finished or observer.test
        assert test
        test.end()
        tests[end] = test
    return tests


def dropping_for_a_while(begin: float, seconds: float, match: str = "") -> Maker:
    """Drop what goes either way and matches, from so long after the client's start on."""

    @contextmanager
    def make(place: Place) -> Iterator[None]:
        def drop() -> None:
            place.pid("client")
            gevent.sleep(begin)
            with place.hosts.filter("router", "forward", f"{match} drop"):
                gevent.sleep(seconds)

        dropping = gevent.spawn(drop)
        try:
            yield
        finally:
            dropping.kill()

    return make


def test_an_undisturbed_test_lacks_nothing_and_has_no_sign_of_a_trouble(hosts: Hosts) -> None:
    sender, receiver = seen(hosts, options="-b 20M")
    assert (sender.role, receiver.role) == ("sender", "receiver")
    for each in (sender, receiver):
        assert each.missing == ()
        assert (each.protocol, each.streams, each.interface) == ("tcp", 1, "path0")
        assert 1 < each.seconds < SECONDS + 0.5
        assert each.rate == pytest.approx(20e6, rel=0.2)
        assert (each.speed_mbps, each.pacing) == (None, None)
        # Of a group without the CPU's controller nobody knows of a quota.
        assert (each.stopped, each.stuck, bool(each.quota)) == (0, 0, False)
        assert (each.qdisc_drops, each.pmtu) == (0, 1500)
        assert each.nic == {"rx_dropped": 0, "tx_dropped": 0, "errors": 0}
        assert 0 < sum(each.cpu or ()) < 1
        assert 0 < (each.base_ms or 0) <= (each.rtt_ms or 0)
    assert (sender.mss, sender.first_mss, sender.timeouts) == (1448, 1448, 0)
    # The kernel may still make the window larger.
    assert 0 < (sender.window_floor or 0) <= 1
    assert sender.congestion in ("reno", "cubic", "bbr")
    # The last word counts what was sent after the last look.
    assert sender.acked == pytest.approx(20e6 * SECONDS / 8, rel=0.1)
    assert sender.segments == pytest.approx(receiver.segments, rel=0.05)
    assert (sender.lossy_share, sender.silent_share) == (0, 0)
    assert (receiver.lossy_share, receiver.silent_share) == (None, None)


def test_each_direction_of_a_bidirectional_test_has_its_own_sockets(hosts: Hosts) -> None:
    forward, received, backward, got = seen(hosts, options="--bidir -b 20M -P 2 --fq-rate 30M")
    for sender, receiver in ((forward, received), (backward, got)):
        assert sender.missing == receiver.missing == ()
        assert sender.streams == 4
        assert sender.acked == pytest.approx(2 * 20e6 * SECONDS / 8, rel=0.1)
        assert sender.segments == pytest.approx(receiver.segments, rel=0.05)
        assert sender.worst and sender.worst.number in (1, 2)
        assert sender.worst.rate_share == pytest.approx(1, abs=0.2)
    # The server's iperf3 takes no heed of it.
    assert (forward.pacing, backward.pacing) == (2 * 30e6, None)


def test_a_window_that_holds_the_sender_is_full_and_constant(hosts: Hosts) -> None:
    small = settings("ipv4.tcp_rmem", SMALL, "receivers")
    sender, receiver = seen(hosts, long_link(), small, far=True)
    assert (sender.in_flight_to_window or 0) >= 0.85
    assert (sender.window_floor or 0) >= 0.7
    assert (sender.receiver_window_share or 0) >= 0.2
    assert (sender.send_buffer_share or 0) < 0.2
    assert sender.window_bytes == receiver.rcv_wnd
    assert (sender.base_ms or 0) > 15
    assert receiver.rcvbuf == 32768


def test_a_send_buffer_that_is_too_small_is_waited_for(hosts: Hosts) -> None:
    sender, _ = seen(hosts, long_link(), settings("ipv4.tcp_wmem", SMALL), far=True)
    assert (sender.send_buffer_share or 0) >= 0.3
    assert (sender.receiver_window_share or 0) < 0.2
    assert (sender.in_flight_to_window or 1) < 0.85
    assert (sender.sndbuf, sender.notsent) == (32768, 0)


def test_a_queue_before_a_slow_link_shows_in_the_round_trip(hosts: Hosts) -> None:
    sender, _ = seen(hosts, slow_link("50mbit", "latency 50ms"), options="-C reno")
    assert (sender.rtt_ms or 0) > (sender.base_ms or 0) + 5
    assert sender.base_ms is not None and sender.base_ms < 2
    assert sender.congestion == "reno"


def test_a_path_that_gets_shorter_has_the_round_trip_of_its_later_part(hosts: Hosts) -> None:
    @contextmanager
    def shorter(place: Place) -> Iterator[None]:
        def shorten() -> None:
            place.pid("client")
            gevent.sleep(1.5)
            long.close()
            stack.enter_context(long_link(0.02)(place))

        with ExitStack() as stack, ExitStack() as long:
            long.enter_context(long_link(0.1)(place))
            stack.callback(gevent.spawn(shorten).kill)
            yield

    sender, _ = seen(hosts, shorter, options="-t 6 -b 20M", far=True)
    assert 20 <= (sender.base_ms or 0) <= (sender.rtt_ms or 0) < 80


def test_what_is_lost_is_told_from_what_the_own_queue_drops(hosts: Hosts) -> None:
    sender, receiver = seen(hosts, lossy(1), options="-b 100M")
    assert (sender.retransmitted or 0) >= 0.005 * (sender.segments or 0)
    assert (sender.qdisc_drops, receiver.qdisc_drops) == (0, 0)
    assert (receiver.out_of_order or 0) > 0
    queue = own_queue("qdisc add DEV root tbf rate 50mbit burst 16k latency 2ms")
    sender, receiver = seen(hosts, queue)
    assert (sender.qdisc_drops or 0) * 3 > (sender.retransmitted or 0) > 0
    assert receiver.qdisc_drops == 0


def test_one_burst_of_losses_is_told_from_steady_loss_and_from_a_path_that_was_cut(
    hosts: Hosts,
) -> None:
    sender, _ = seen(hosts, lossy(1), options="-b 100M")
    assert (sender.lossy_share, sender.silent_share) == (1, 0)
    burst = dropping_for_a_while(0.5, 0.1, "numgen random mod 10 < 3")
    sender, _ = seen(hosts, burst, options="-b 100M -t 6")
    assert 0 < (sender.lossy_share or 0) < 0.5
    assert sender.silent_share == 0
    sender, _ = seen(hosts, dropping_for_a_while(1.5, 2.0), options="-t 6")
    assert 0.1 < (sender.silent_share or 0) < 0.7


def test_a_process_that_is_stopped_or_held_by_a_quota_is_seen_to_be(hosts: Hosts) -> None:
    sender, receiver = seen(hosts, stopped("receivers", 2.0, 0.8))
    assert (receiver.stopped or 0) > 0 and sender.stopped == 0
    # One that nobody stops leaves less than 0.1 unread.
    assert (receiver.unread_share or 0) > 0.15 and receiver.rcv_wnd is not None
    assert (sender.window_floor or 0) < 0.7
    sender, receiver = seen(hosts, quota(0.03))
    assert (sender.quota, bool(receiver.quota)) == (True, False)
    ran, waited = sender.cpu or (0, 0)
    assert ran < 0.3 < waited


@pytest.mark.parametrize("reverse", ["", " -R"])
def test_the_queue_that_udp_fills_shows_when_the_control_connection_ends(
    hosts: Hosts, reverse: str
) -> None:
    slow = slow_link("20mbit", "latency 100ms")
    ends = seen(hosts, slow, options="-u -b 30M" + reverse)
    assert [each.protocol for each in ends] == ["udp", "udp"]
    # The full queue may have dropped the last message of one of them, so that it says nothing.
    assert 8 * max(each.control_rise_ms or 0 for each in ends) > 60
    assert {*ends[0].missing, *ends[1].missing} <= {"control_rise_ms"}
    ends = seen(hosts, options="-u -b 30M" + reverse)
    # An acknowledgement may be delayed by 40 ms.
    assert 8 * max(each.control_rise_ms or 0 for each in ends) < 45


def test_a_socket_that_has_no_room_counts_what_it_drops(hosts: Hosts) -> None:
    sender, receiver = seen(hosts, stopped("receivers", 2.0, 0.8), options="-u -b 50M -w 128K")
    assert (receiver.socket_drops or 0) > 100
    # So large a buffer drops nothing before the first look, from which on the namespace counts.
    assert (receiver.udp_receive_buffer_errors or 0) >= (receiver.socket_drops or 0)
    assert sender.socket_drops == 0


def test_a_speed_is_believed_where_there_is_a_device_or_somebody_has_set_it() -> None:
    assert believed_speed(Route("no-such-device", 1500, 100)) == 100
    assert believed_speed(Route("no-such-device", 1500, 10_000)) is None
    assert believed_speed(Route("no-such-device", 1500, 0)) is None
    assert believed_speed(Route()) is None
