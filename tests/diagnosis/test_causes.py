"""Each rule at its boundaries, each half by itself, and the words that an operator reads."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.diagnosis.evidence import Evidence, Worst
from agent.diagnosis.halves import diagnose
from agent.protocol import Cause, Diagnosis
from tests.support.halves import (
    ALL_LOST,
    BLACK_HOLE,
    BUSY,
    FULL,
    LOSS,
    LOST,
    QUEUE,
    SLOW,
    STARVED,
    UDP,
    UDP_RECEIVER,
    Half,
    receiver,
    sender,
    udp,
)

WIDE: Half = {"window_bytes": 2_000_000}
LAN: Half = {"base_ms": 0.1, "sndbuf": 4000}
ALL_SENT: Half = {"asked": 108e6, "sent": 108e6, "queued_share": 0.2}
BOTH = [
    ("too_short", True, {"seconds": 0.99}, {"seconds": 0.9}),
    ("too_short", True, {"seconds": 1.9, "base_ms": 200.0}, {"seconds": 1.9}),
    ("path_mtu", True, BLACK_HOLE, {"rate": 100.0}),
    ("path_mtu", False, BLACK_HOLE | {"orderly": False}, {"rate": 100.0}),
    ("path_mtu", True, BLACK_HOLE | {"silent_share": 1.0}, {"rate": 100.0}),
    # Nothing passed from some time on: a smaller MTU since, or a path that stood still.
    ("path_mtu", False, {"timeouts": 4, "orderly": True, "silent_share": 0.5}, {}),
    ("unknown", False, {"timeouts": 1, "orderly": True, "silent_share": 0.5}, {}),
    ("unknown", False, {"timeouts": 4, "silent_share": 0.5}, {}),
    ("path_mtu", True, {"timeouts": 2, "mss": 1012, "orderly": True}, {}),
    # On a path that died they shrink as well, and the search for the MTU ends a little too early.
    ("unknown", False, {"timeouts": 2, "mss": 1012}, {}),
    ("unknown", False, {"timeouts": 9, "mss": 1421, "first_mss": 1428, "orderly": True}, {}),
    # The path's MTU fell, and the kernel was told so; or the peer wants small segments.
    ("unknown", False, {"timeouts": 2, "mss": 1348, "pmtu": 1400}, {}),
    ("unknown", False, {"timeouts": 2, "mss": 500, "first_mss": 500}, {}),
    ("unknown", False, BLACK_HOLE | {"timeouts": 1}, {}),
    ("target_rate", True, {"asked": 105e6}, {}),
    ("unknown", False, {"asked": 106e6}, {}),
    ("target_rate", True, {"asked": 91e6}, {}),
    # Perhaps it did not keep to that, and surely it did not.
    ("target_rate", False, {"asked": 80e6}, {}),
    ("unknown", False, {"asked": 10e6}, {}),
    ("unknown", False, {"pacing": 10e6}, {}),
    ("too_short", False, {"overtime": 0.6}, {"overtime": 1.0}),
    ("too_short", True, {"seconds": 1.5, "overtime": 0.6}, {"seconds": 1.5, "overtime": 1.0}),
    ("unknown", False, {"overtime": 0.4}, {"overtime": 1.0}),
    ("target_rate", True, {"pacing": 107e6}, {}),
    # All was sent, and the slow start took a part of the time.
    ("target_rate", False, ALL_SENT, {}),
    ("target_rate", False, ALL_SENT | {"congestion": "bbr", "retransmitted": 8}, {}),
    ("unknown", False, ALL_SENT | {"sent": 105e6}, {}),
    ("unknown", False, ALL_SENT | {"queued_share": 0.3}, {}),
    ("path_capacity", False, ALL_SENT | QUEUE, {}),
    ("unknown", False, ALL_SENT | {"asked": 112e6, "sent": 112e6}, {}),
    ("unknown", False, {"pacing": 108e6}, {}),
    ("line_rate", True, {"speed_mbps": 1000, "interface": "eth0"}, {"speed_mbps": 110}),
    ("unknown", False, {"speed_mbps": 112}, {}),
    # It has another speed than it says.
    ("unknown", False, {"speed_mbps": 98}, {}),
    ("sender_cpu", True, STARVED | {"cpu": (0.85, 0.06)}, {}),
    ("sender_cpu", False, STARVED | {"cpu": (0.75, 0.06)}, {}),
    ("sender_cpu", False, {"cpu": (0.85, 0.06)}, {}),
    ("receiver_window", False, FULL | SLOW | {"cpu": (0.95, 0.0)}, SLOW),
    ("receiver_cpu", True, {"cpu": (0.85, 0.0)}, {"cpu": (0.95, 0.0), "unread_share": 0.2}),
    # It reads all that comes, so that the link may be the limit.
    ("receiver_cpu", False, QUEUE, {"cpu": (0.06, 0.87), "unread_share": 0.1}),
    ("sender_cpu", True, STARVED | {"cpu": (0.92, 0.0)}, {"cpu": (0.95, 0.0)}),
    ("receiver_cpu", False, QUEUE, {"cpu": (0.5, 0.35)}),
    ("receiver_host", True, QUEUE, {"stopped": 0.4}),
    ("receiver_host", True, QUEUE, {"unread_share": 0.5}),
    ("receiver_host", False, QUEUE, {"unread_share": 0.4}),
    # Behind a hole nobody can read: what fills the buffer waits for what was lost.
    ("receiver_host", True, QUEUE, {"unread_share": 0.5, "out_of_order": 3999}),
    ("path_loss", True, LOSS, {"unread_share": 0.6, "out_of_order": 4000}),
    ("receiver_cpu", False, {}, BUSY | {"unread_share": 0.6, "out_of_order": 4000}),
    # A window of 0 is no small one: a proxy ends the connection, or somebody does not read.
    ("receiver_host", False, FULL | {"window_bytes": 0}, {}),
    ("unknown", False, {"window_bytes": 0}, {}),
    ("receiver_host", False, QUEUE, {"unread_share": 0.8, "cpu": (0.2, 0.3)}),
    ("sender_cpu", False, STARVED | {"busy_share": 0.5, "cpu": (0.3, 0.2)}, {}),
    ("receiver_cpu", False, STARVED | {"busy_share": 0.5}, {"cpu": (0.5, 0.2)}),
    ("sender_host", True, LOSS | {"qdisc_drops": 134}, {}),
    ("path_loss", True, LOSS | {"qdisc_drops": 130}, {}),
    # Others' packets are dropped there as well, or alone.
    ("sender_host", False, LOSS | {"qdisc_drops": 1300}, {}),
    ("path_loss", True, LOSS | {"qdisc_drops": 4100}, {}),
    ("sender_host", True, LOSS | {"needless": 400, "stopped": 0.2}, {}),
    ("sender_host", False, STARVED | {"busy_share": 0.5, "stopped": 0.1}, {}),
    ("sender_cpu", False, STARVED | {"busy_share": 0.5, "cpu": (0.1, 0.3), "quota": True}, {}),
    ("receiver_cpu", False, {}, {"cpu": (0.1, 0.3), "quota": True}),
    ("sender_host", False, STARVED | {"busy_share": 0.5}, {}),
    ("unknown", False, STARVED | {"busy_share": 0.95}, {}),
    ("receiver_window", True, FULL | SLOW, SLOW),
    ("receiver_window", False, FULL | SLOW | {"window_floor": 0.5}, SLOW),
    ("receiver_window", False, FULL | SLOW | LOSS, SLOW),
    # A queue that is shorter than a millisecond may hide behind it.
    ("receiver_window", True, FULL | LAN | {"rtt_ms": 0.2}, {"base_ms": 0.1}),
    ("receiver_window", False, FULL | LAN | {"rtt_ms": 0.21}, {"base_ms": 0.1}),
    ("receiver_window", False, FULL | SLOW | QUEUE, SLOW),
    ("receiver_window", False, FULL | SLOW | {"in_flight_to_window": 0.8}, SLOW),
    ("unknown", False, FULL | SLOW | {"receiver_window_share": 0.09}, SLOW),
    # A larger window would but lengthen the queue.
    ("path_capacity", False, FULL | QUEUE | WIDE | {"receiver_window_share": 0.49}, {}),
    ("path_capacity", False, FULL | QUEUE | WIDE | {"window_floor": 0.6}, {}),
    # If that is what it waits for, it is named first.
    ("receiver_window", False, FULL | QUEUE | WIDE, {}),
    ("send_buffer", False, QUEUE | {"send_buffer_share": 0.5}, {}),
    ("path_capacity", False, QUEUE | {"send_buffer_share": 0.49}, {}),
    ("receiver_window", False, FULL | SLOW | {"silent_share": 0.1}, SLOW),
    ("path_loss", False, FULL | LOSS | WIDE, {}),
    ("send_buffer", True, {"send_buffer_share": 0.4}, {}),
    # One that carries more than four times what passed waits for something behind it.
    ("send_buffer", True, {"send_buffer_share": 0.4, "sndbuf": 1_000_000}, {}),
    ("send_buffer", False, {"send_buffer_share": 0.4, "sndbuf": 4 << 20}, {}),
    ("send_buffer", False, {"send_buffer_share": 0.39}, {}),
    ("send_buffer", True, LAN | {"send_buffer_share": 0.4, "rtt_ms": 0.2}, {"base_ms": 0.1}),
    ("send_buffer", False, LAN | {"send_buffer_share": 0.4, "rtt_ms": 0.21}, {"base_ms": 0.1}),
    ("send_buffer", False, {"send_buffer_share": 0.1}, {}),
    # Without a loss the queue may be on the way back, or a longer path.
    ("path_capacity", False, QUEUE, {}),
    ("path_capacity", True, QUEUE | LOSS, {}),
    ("path_capacity", False, QUEUE | LOSS | {"receiver_window_share": 0.1}, {}),
    ("path_capacity", False, QUEUE | LOSS | {"send_buffer_share": 0.1}, {}),
    ("path_capacity", False, QUEUE | LOSS | {"silent_share": 0.05}, {}),
    ("path_capacity", True, QUEUE | LOSS | {"silent_share": None}, {}),
    # Steady loss and a rise below the base may be a policer behind a path of changing delay.
    ("path_capacity", False, LOSS | {"rtt_ms": 39.9}, {}),
    ("path_capacity", True, LOSS | {"rtt_ms": 39.9, "lossy_share": 0.69}, {}),
    ("path_capacity", True, {"rtt_ms": 39.9, "retransmitted": 199}, {}),
    ("path_capacity", False, QUEUE | LOSS | {"timeouts": 1}, {}),
    ("path_capacity", False, QUEUE | LOSS | {"both_ways": True}, {"both_ways": True}),
    ("path_capacity", False, QUEUE | {"retransmitted": 2}, {}),
    ("path_capacity", True, LOSS | {"base_ms": 0.1, "rtt_ms": 2.2}, {"base_ms": 0.1}),
    ("path_capacity", False, LOSS | {"base_ms": 0.1, "rtt_ms": 1.2}, {"base_ms": 0.1}),
    ("unknown", False, {"base_ms": 0.1, "rtt_ms": 1.0}, {"base_ms": 0.1}),
    ("unknown", False, {"rtt_ms": 24.9}, {}),
    ("path_capacity", False, {"congestion": "bbr"}, {}),
    # Its buffer is as small as the window.
    (
        "receiver_window",
        False,
        FULL | SLOW | {"congestion": "bbr", "in_flight_to_window": 0.55},
        SLOW,
    ),
    ("unknown", False, LOSS | {"needless": 201}, {}),
    # Much was lost, though the order changes as well.
    ("path_loss", False, {"retransmitted": 401, "needless": 201}, {}),
    ("path_loss", True, {"retransmitted": 402, "needless": 201}, {}),
    ("unknown", False, {"reordered": 9, "retransmitted": 40, "needless": 40}, {}),
    ("path_loss", True, LOSS | {"reordered": 3}, {}),
    ("path_loss", True, LOSS | {"lossy_share": 0.7, "rtt_ms": 20.45}, {}),
    ("path_loss", False, LOSS | {"lossy_share": 0.69}, {}),
    ("path_loss", False, LOSS | {"lossy_share": None}, {}),
    ("path_loss", False, LOSS | {"rtt_ms": 20.6}, {}),
    ("path_loss", False, LOSS | {"rtt_ms": 24.9}, {}),
    ("path_loss", False, LOSS | {"silent_share": 0.01}, {}),
    ("path_loss", False, LOSS | {"silent_share": None}, {}),
    ("path_loss", False, LOSS | {"stopped": 0.1}, {}),
    ("path_loss", False, LOSS, {"stopped": 0.1}),
    ("path_loss", True, LOSS | {"receiver_window_share": 0.09}, {}),
    ("path_loss", False, LOSS | {"receiver_window_share": 0.1}, {}),
    # Lost at one time: the slow start filled a queue that is short for the path.
    ("path_loss", False, LOSS | {"lossy_share": 0.5}, {}),
    ("path_capacity", False, LOSS | {"lossy_share": 0.5, "rtt_ms": 22.1}, {}),
    ("path_loss", True, LOSS | {"needless": 199}, {}),
    ("path_loss", True, {"retransmitted": 200}, {}),
    ("path_loss", False, {"retransmitted": 199}, {}),
    ("path_loss", False, {"retransmitted": 8}, {}),
    ("unknown", False, {"retransmitted": 7}, {}),
    ("unknown", False, {}, {}),
]


@pytest.mark.parametrize(("cause", "sure", "here", "there"), BOTH)
def test_both_halves_of_a_tcp_test(cause: str, sure: bool, here: Half, there: Half) -> None:
    found = diagnose(sender(**here), receiver(**there))
    assert (found.limited_by, found.sure) == (cause, sure), found.words
    assert found == diagnose(receiver(**there), sender(**here))


SENDER = [
    ("too_short", True, {"seconds": 0.5}),
    ("target_rate", True, {"asked": 100e6}),
    ("sender_cpu", True, STARVED | BUSY),
    ("sender_host", True, STARVED | {"busy_share": 0.5, "stopped": 0.5}),
    ("path_mtu", True, BLACK_HOLE),
    ("receiver_window", True, FULL | SLOW),
    ("send_buffer", True, {"send_buffer_share": 0.5}),
    # What is lost is as often a receiver's.
    ("path_loss", False, LOSS),
    # A receiver that does not read, or delays its ACKs, looks like a queue of up to 45 ms.
    ("path_capacity", False, QUEUE),
    ("path_capacity", False, QUEUE | {"retransmitted": 100}),
    ("path_capacity", True, QUEUE | {"rtt_ms": 65.1, "retransmitted": 100}),
    ("path_capacity", False, QUEUE | {"rtt_ms": 65.1}),
    ("path_capacity", True, QUEUE | LOSS),
    ("path_capacity", False, LOSS | {"base_ms": 0.1, "rtt_ms": 1.2}),
]


@pytest.mark.parametrize(("cause", "sure", "here"), SENDER)
def test_the_sender_alone(cause: str, sure: bool, here: Half) -> None:
    found = diagnose(sender(**here), ask="server")
    assert (found.limited_by, found.sure) == (cause, sure), found.words
    assert ("server's task knows more" in found.words) != sure


RECEIVER = [
    ("too_short", True, {"seconds": 0.5}),
    ("target_rate", True, {"asked": 100e6}),
    ("line_rate", False, {"speed_mbps": 100}),
    ("receiver_cpu", True, BUSY | {"unread_share": 0.3}),
    ("receiver_cpu", False, BUSY),
    ("receiver_host", True, {"unread_share": 0.8}),
    ("receiver_host", True, {"stopped": 0.3}),
    ("receiver_window", False, {"rcv_wnd": 200_000}),
    ("path_capacity", False, {"rcv_rtt_ms": 60.0}),
    ("path_loss", False, {"out_of_order": 400}),
    ("unknown", False, {}),
]


@pytest.mark.parametrize(("cause", "sure", "here"), RECEIVER)
def test_the_receiver_alone(cause: str, sure: bool, here: Half) -> None:
    found = diagnose(receiver(**here), ask="client")
    assert (found.limited_by, found.sure) == (cause, sure), found.words
    assert ("client's task knows more" in found.words) != sure


NEAR = {"base_ms": 0.01, "rtt_ms": 0.05, "there_base_ms": 0.01}
UDP_TESTS = [
    ("target_rate", True, {}),
    ("target_rate", True, {"lost": 10}),
    ("too_short", True, {"seconds": 0.5, "there_seconds": 0.5}),
    ("line_rate", True, {"asked": 100e6, "there_speed_mbps": 55}),
    ("sender_cpu", True, {"sent": 40e6, "rate": 40e6, "cpu": (0.95, 0.0)}),
    ("sender_cpu", False, {"sent": 40e6, "rate": 40e6, "cpu": (0.85, 0.0)}),
    # The busiest thread may be that of the other direction.
    ("sender_cpu", False, {"sent": 40e6, "rate": 40e6, "cpu": (0.95, 0.0), "both_ways": True}),
    ("sender_host", False, {"sent": 40e6, "rate": 40e6}),
    ("sender_host", True, {"sent": 40e6, "rate": 40e6, "stopped": 0.5}),
    ("sender_cpu", True, {"asked": None, "there_asked": None, "cpu": (0.95, 0.0)}),
    ("unknown", False, {"asked": None, "there_asked": None}),
    ("receiver_host", True, LOST | {"there_socket_drops": 3200}),
    ("receiver_host", False, LOST | {"there_socket_drops": 2000}),
    ("receiver_cpu", True, LOST | {"there_socket_drops": 2000, "there_cpu": (0.95, 0.0)}),
    (
        "receiver_cpu",
        False,
        LOST | {"there_socket_drops": 2000, "there_cpu": (0.95, 0.0), "there_both_ways": True},
    ),
    ("receiver_host", True, LOST | {"there_socket_drops": 2000, "there_stopped": 0.4}),
    ("path_loss", True, LOST | {"there_socket_drops": 1999}),
    ("sender_host", True, LOST | {"qdisc_drops": 2000}),
    ("sender_host", False, LOST | {"qdisc_drops": 14_000}),
    ("path_loss", True, LOST | {"qdisc_drops": 41_000}),
    ("path_capacity", False, LOST | {"control_rise_ms": 0.65}),
    # Late by less than a quarter of the base, or surely not at all.
    ("path_loss", False, LOST | {"control_rise_ms": 0.6}),
    ("path_loss", True, LOST | {"control_rise_ms": 0.12}),
    ("path_loss", False, LOST | {"control_rise_ms": 0.13}),
    # A delayed acknowledgement delays an end by 40 ms.
    ("path_capacity", True, LOST | NEAR | {"control_rise_ms": 5.63}),
    ("path_capacity", False, LOST | NEAR | {"control_rise_ms": 5.62}),
    ("path_loss", False, LOST | NEAR | {"control_rise_ms": 0.24}),
    # A base that was taken within others' queue, and iperf3 that was stopped once.
    ("path_loss", False, LOST | {"control_rise_ms": -0.13}),
    ("path_loss", True, LOST | {"rtt_ms": 20.4}),
    ("path_loss", False, LOST | {"rtt_ms": 20.6}),
    ("path_loss", False, LOST | {"stopped": 0.17}),
    ("path_loss", False, LOST | {"there_stopped": 0.17}),
    ("path_loss", False, LOST | {"there_stopped": None}),
    # The receiver's usual round trip has a delayed acknowledgement in it.
    ("path_loss", True, LOST | {"there_rtt_ms": 25.5}),
    # Nothing at all passes no queue and no policer.
    ("path_mtu", False, ALL_LOST | {"orderly": True}),
    ("path_mtu", False, ALL_LOST | {"orderly": True, "control_rise_ms": 5.0}),
    ("path_loss", False, ALL_LOST),
    ("path_loss", False, ALL_LOST | {"orderly": True, "packets": 31_000, "there_packets": 31_000}),
    # The queue takes all and grows, or the path.
    ("path_capacity", False, {"rate": 47e6, "control_rise_ms": 0.65}),
    ("path_capacity", False, {"rate": 48e6, "control_rise_ms": 0.65}),
    ("target_rate", True, {"rate": 49e6, "control_rise_ms": 0.65}),
    # A stream is dead, of which the receiver counts nothing.
    ("path_loss", False, {"rate": 37.5e6, "streams": 4}),
    # The receiver's clock runs on until the last message has come.
    ("unknown", False, {"rate": 47.2e6, "base_ms": 300.0, "rtt_ms": 300.0}),
    ("path_loss", False, LOST | {"control_rise_ms": 0.65, "there_cpu": (0.85, 0.0)}),
    ("path_loss", False, LOST | {"lost": 99}),
    ("path_loss", False, LOST | {"control_rise_ms": None}),
    ("path_capacity", True, LOST | {"there_rtt_ms": 20.0, "there_control_rise_ms": 6.0}),
    # A busy host answers late.
    ("path_loss", False, LOST | {"control_rise_ms": 0.9, "cpu": (0.1, 0.3)}),
    ("path_capacity", False, LOST | {"control_rise_ms": 1.3, "cpu": (0.1, 0.3)}),
    ("path_capacity", True, LOST | {"control_rise_ms": 6.0, "cpu": (0.1, 0.3)}),
    ("path_loss", True, {"rate": 49.75e6, "lost": 100}),
]


@pytest.mark.parametrize(("cause", "sure", "changes"), UDP_TESTS)
def test_both_halves_of_a_udp_test(cause: str, sure: bool, changes: Half) -> None:
    found = diagnose(*udp(**changes))
    assert (found.limited_by, found.sure) == (cause, sure), found.words


def test_the_words_say_how_long_that_end_was_stopped_which_is_named() -> None:
    ends = sender(stopped=0.1), receiver(stopped=0.4)
    assert "receiver was stopped in 40 %" in diagnose(*ends).words


def test_no_half_alone_is_sure_of_a_udp_loss() -> None:
    halves = udp(**LOST | {"control_rise_ms": 5.0})
    assert [(one.limited_by, one.sure) for one in map(diagnose, halves)] == [
        (Cause.PATH_CAPACITY, False),
        (Cause.PATH_LOSS, False),
    ]
    assert diagnose(udp(**LOST | {"qdisc_drops": 4000})[0]).sure is False


def test_a_udp_sender_that_nobody_told_of_a_loss_is_sure_of_nothing() -> None:
    for changes in ({}, {"sent": 30e6, "rate": 30e6, "cpu": (0.95, 0.0)}):
        half = Evidence(role="sender", **UDP | {"lost": None, "packets": None} | changes)
        found = diagnose(half, ask="client")
        assert not found.sure and "client's task knows more" in found.words


def test_a_udp_receiver_says_that_the_sender_was_slow() -> None:
    found = diagnose(Evidence(role="receiver", **UDP_RECEIVER | {"sent": 30e6, "rate": 30e6}))
    assert (found.limited_by, found.sure) == (Cause.UNKNOWN, False)
    assert "sent 30.0 Mbit/s of the 50.0 Mbit/s" in found.words


def test_no_udp_test_is_said_to_accelerate() -> None:
    for half in udp(asked=None, there_asked=None):
        assert "accelerating" not in diagnose(half).words


def test_the_rate_of_a_slow_link_is_what_passed_as_others_may_have_passed_too() -> None:
    words = diagnose(*udp(**LOST, control_rise_ms=6.0)).words
    assert words.startswith("A queue stood before the path's slowest link: 40.0 Mbit/s passed, and")


def test_the_delay_that_the_words_name_is_in_the_evidence() -> None:
    found = diagnose(*udp(**LOST, control_rise_ms=5.0))
    assert found.evidence["end_delay_ms"] == 40.0 and "some 40 ms" in found.words


def test_a_tcp_receiver_speaks_of_no_loss_that_it_cannot_see() -> None:
    words = diagnose(receiver(), ask="client").words
    assert words.startswith("At 100 Mbit/s, nothing that the receiver can see held the test back.")
    assert "lost" not in words


def test_nothing_is_sure_where_nobody_sees_the_cpu() -> None:
    for here in (FULL | SLOW, LOSS, {"send_buffer_share": 0.8}):
        assert not diagnose(sender(**here | {"cpu": None})).sure
        assert not diagnose(sender(**here), receiver(**SLOW | {"cpu": None})).sure
    assert diagnose(sender(asked=100e6, cpu=None)).sure


def test_nothing_that_the_kernel_counts_is_sure_with_omitted_seconds() -> None:
    """Its counters have those as well."""
    for here in (FULL | SLOW, {"send_buffer_share": 0.8}, {"stopped": 0.8}, QUEUE | LOSS):
        cause = diagnose(sender(**here)).limited_by
        halves = sender(**here, omitted=2.0), receiver(**SLOW)
        for found in (diagnose(*halves), diagnose(halves[0])):
            assert (found.limited_by, found.sure) == (cause, False), found.words
    assert not diagnose(*udp(**LOST, omitted=2.0, there_socket_drops=4000)).sure
    assert diagnose(sender(asked=100e6, omitted=2.0)).sure
    assert diagnose(sender(seconds=0.5, omitted=2.0)).sure


def test_the_words_of_a_window_are_those_of_an_operator() -> None:
    here = FULL | SLOW | {"window_bytes": 38 * 1024, "rtt_ms": 20.4}
    found = diagnose(sender(**here), receiver(**SLOW, tcp_rmem_max=32768))
    assert found.words == (
        "The receiver's window held the sender back: 38 KiB over 20.4 ms are at most 15.3 Mbit/s."
        " Ask for a larger `window`, or for none and raise net.ipv4.tcp_rmem on the receiver (now"
        " at most 32 KiB)."
    )
    assert {
        name: found.evidence[name]
        for name in ("in_flight_to_window", "receiver_window_share", "lost_share", "sender_cpu")
    } == {
        "in_flight_to_window": 0.97,
        "receiver_window_share": 0.8,
        "lost_share": 0.0,
        "sender_cpu": 0.2,
    }
    assert found.evidence["rtt_above_base_ms"] == pytest.approx(0.4)
    assert found.evidence["missing"] == []


def test_a_constant_window_far_below_its_limit_has_another_reason() -> None:
    """Window scaling is off, or a memory limit: a larger tcp_rmem would not help."""
    for window, unscaled in ((65535, True), (80_000, False)):
        here = FULL | SLOW | {"window_bytes": window}
        words = diagnose(sender(**here), receiver(**SLOW, tcp_rmem_max=32 << 20)).words
        assert "tcp_rmem on the receiver allows 32 MiB" in words and "memory limit" in words
        assert ("window scaling" in words) == unscaled and "raise" not in words
    # One that grows may reach its limit yet.
    grows = FULL | {"window_floor": 0.5}
    assert "raise" in diagnose(sender(**grows), receiver(tcp_rmem_max=32 << 20)).words


def test_no_rate_in_the_words_is_below_that_of_the_test() -> None:
    """The round trip, or the window, was another one for a part of the time."""
    words = diagnose(sender(**FULL), receiver()).words
    assert words.startswith("The receiver's window held the sender back: 38.1 KiB over 20.1 ms.")


def test_a_window_that_does_not_grow_accelerates_nothing() -> None:
    assert "accelerating" not in diagnose(sender()).words


WORDS = [
    (sender(send_buffer_share=0.71, tcp_wmem_max=32768), ["71 %", "977 KiB", "tcp_wmem", "32 KiB"]),
    (sender(send_buffer_share=0.71, tcp_wmem_max=4 << 20), ["tcp_wmem", "4 MiB", "memory limit"]),
    (sender(**QUEUE), ["20 to 53 ms", "100 Mbit/s passed", "way back", "`tc -s qdisc`"]),
    (sender(**QUEUE, silent_share=0.25), ["For 25 % of the time nothing passed"]),
    (sender(**LOSS | {"lossy_share": 0.2}), ["400", "20 % of the time", "slow start", "`time`"]),
    (sender(**ALL_SENT), ["108 Mbit/s", "100 Mbit/s", "slow start", "`time`"]),
    (sender(**FULL | {"window_bytes": 0}), ["was 0", "proxy", "100 Mbit/s"]),
    (sender(timeouts=4, orderly=True, silent_share=0.7), ["70 %", "4 time-outs", "MTU"]),
    (sender(**LOSS), ["1 % of the segments", "400", "policer", "short queue", "bad link"]),
    (sender(**BLACK_HOLE), ["4 time-outs", "1500", "`mss`"]),
    (sender(**STARVED | BUSY), ["10 %", "85 %", "quota"]),
    (sender(asked=100e6), ["100 Mbit/s", "`bitrate`"]),
    (sender(pacing=100e6), ["100 Mbit/s", "`fq_rate`"]),
    (sender(**LOSS, qdisc_drops=300, interface="eth7"), ["300", "eth7", "tc -s qdisc"]),
    (sender(**LOSS, needless=300), ["order", "400", "300"]),
    (sender(window_floor=0.5), ["cannot be told", "accelerating"]),
    (sender(missing=("congestion",)), ["cannot be told", "congestion"]),
    (sender(speed_mbps=100, interface="eth7"), ["eth7", "100 Mbit/s"]),
    (receiver(unread_share=0.8), ["80 %", "did not read"]),
    (udp(**LOST, there_socket_drops=4000)[1], ["4000", "20 %", "rmem_max"]),
    (udp(**LOST, control_rise_ms=5.0)[0], ["40 ms", "20 %"]),
    (udp(**ALL_LOST, orderly=True)[0], ["of 8013 bytes", "100 %", "(3900)", "`length`"]),
    (udp(**ALL_LOST)[0], ["100 %", "a firewall may drop UDP"]),
    (udp(rate=45e6, control_rise_ms=1.0)[0], ["kept growing", "45.0 Mbit/s of the 50.0", "8 ms"]),
    (udp(rate=37.5e6, streams=4)[0], ["25 % of what was sent", "One of the 4 streams"]),
    (
        sender(**LOSS, streams=8, worst=Worst(number=3, rate_share=0.12)),
        ["Stream 3 carried 12 %"],
    ),
]


@pytest.mark.parametrize(("half", "parts"), WORDS)
def test_the_words_have_the_figures(half: Evidence, parts: list[str]) -> None:
    words = diagnose(half).words
    assert [part for part in parts if part not in words] == [], words


def test_a_stream_is_named_of_which_the_receiver_has_seen_nothing() -> None:
    here = sender(**LOSS, streams=8, worst=Worst(number=3, rate_share=0.0))
    there = receiver(streams=7, worst=Worst(number=2, rate_share=0.9))
    assert "Stream 3 carried 0 %" in diagnose(here, there).words


def test_a_receiver_does_not_say_that_nothing_was_lost() -> None:
    words = diagnose(receiver(rcv_rtt_ms=53.0)).words
    assert "from 20 to 53 ms" in words and "0 %" not in words


def test_a_receiver_does_not_say_that_no_queue_stood() -> None:
    halves = udp(**LOST)
    for each in halves:
        assert "no queue was seen" in diagnose(each).words
    assert "no queue stood" in diagnose(*halves).words


def test_more_streams_are_the_advice_only_where_the_thread_ran() -> None:
    for cpu, has_core in (((0.97, 0.0), True), ((0.1, 0.85), False)):
        for half in (sender(**STARVED, cpu=cpu), receiver(cpu=cpu)):
            words = diagnose(half).words
            assert ("`parallel`" in words, "cpu.max" in words) == (has_core, not has_core)


def test_two_explanations_that_both_fit_are_both_said() -> None:
    found = diagnose(sender(send_buffer_share=0.35, **LOSS, window_bytes=400_000))
    assert (found.limited_by, found.sure) == (Cause.SEND_BUFFER, False)
    assert "may as well have been loss on the path" in found.words


SHARE = st.none() | st.floats(0, 1.2)
COUNT = st.none() | st.integers(0, 10**9)
TIME = st.none() | st.floats(0, 1e4)
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    float | None: st.none() | st.floats(0, 1e12),
    int | None: COUNT,
    bool | None: st.none() | st.booleans(),
    str | None: st.none() | st.sampled_from(["bbr", "cubic", ""]),
    tuple[float, float] | None: st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    Worst | None: st.none() | st.builds(Worst, number=st.just(3), rate_share=st.floats(0, 1)),
    int: st.integers(1, 128),
    float: st.floats(0, 1e5),
}


def halves(role: str) -> st.SearchStrategy[Evidence]:
    """Any evidence, however odd."""
    fields = {
        field.name: st.just(field.default) | KINDS[field.type]
        for field in msgspec.structs.fields(Evidence)
        if field.type in KINDS
    }
    given_names = {"role": st.just(role), "protocol": st.sampled_from(["tcp", "udp"])}
    return st.builds(Evidence, **fields | given_names)


def check(found: Diagnosis) -> None:
    """What holds of each diagnosis."""
    assert found.words and "None" not in found.words, found.words
    assert msgspec.convert(found.evidence, Evidence)
    text = msgspec.json.encode(found)
    assert msgspec.json.encode(msgspec.json.decode(text, type=Diagnosis)) == text
    assert not (found.sure and found.limited_by is Cause.UNKNOWN)


@given(halves("sender"), halves("receiver"))
def test_any_evidence_has_a_diagnosis(here: Evidence, there: Evidence) -> None:
    check(diagnose(here))
    check(diagnose(there))
    check(diagnose(here, there))
    known = {Cause.TOO_SHORT, Cause.TARGET_RATE, Cause.RECEIVER_CPU, Cause.RECEIVER_HOST}
    alone = diagnose(there)
    assert not alone.sure or alone.limited_by in known


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("role", ["sender", "receiver"])
def test_no_evidence_is_sure_of_nothing(role: Any, protocol: Any) -> None:
    bare = Evidence(role=role, protocol=protocol, seconds=5.0, missing=("sockets", "threads"))
    found = diagnose(bare, ask="server")
    assert (found.limited_by, found.sure) == (Cause.UNKNOWN, False)
    assert "sockets, threads" in found.words
    assert " ms" not in found.words and "held the test back" not in found.words
    assert " ms" not in diagnose(msgspec.structs.replace(bare, seconds=0.5)).words
