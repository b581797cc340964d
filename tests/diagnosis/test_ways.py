"""What the sockets of one direction come to, over hours and with few streams."""

import pytest

from agent.diagnosis.sockets import TCP, Socket
from agent.diagnosis.ways import SAMPLES_KEPT, Way

# 7 TB: more segments than the kernel's counter can hold.
MANY = 5_000_000_000
NUMBERS = {
    "snd_mss": 1448,
    "bytes_acked": MANY * 1448,
    "bytes_received": 37,
    "data_segs_out": (MANY + 40_000) % 2**32,
    "total_retrans": 40_000,
    "dsack_dups": 0,
    "rtt": 135_000,
    "min_rtt": 20_000,
}


def sock(cookie: int = 1, **changes: int) -> Socket:
    """A data socket with these numbers, apart from those changes."""
    found = Socket(TCP, bytes(72))
    found.cookie, found.numbers = cookie, NUMBERS | changes
    return found


def test_the_least_round_trip_is_kept_for_longer_than_the_kernel_does() -> None:
    """It forgets one after five minutes, and a queue that stands would be the path's own."""
    way = Way("sender")
    way.add([sock()], 1.0)
    for second in range(SAMPLES_KEPT + 10):
        way.add([sock(min_rtt=134_000)], 300.0 + second)
    assert way.figures(4000.0)["min_rtt_ms"] == 20.0
    assert way.figures(4000.0)["rtt_ms"] == 135.0


@pytest.mark.parametrize("segments", [1000, 2**32 - 5, 2**32 + 5, MANY])
@pytest.mark.parametrize("again", [0, 50_000])
def test_segments_are_counted_beyond_32_bits(segments: int, again: int) -> None:
    sent = (segments + again) % 2**32
    here = sock(data_segs_out=sent, bytes_acked=segments * 1448, total_retrans=again)
    there = sock(data_segs_in=sent, bytes_received=segments * 1448, bytes_acked=0)
    for role, socket in (("sender", here), ("receiver", there)):
        way = Way("sender" if role == "sender" else "receiver")
        way.add([socket], 1.0)
        assert way.figures(5000.0)["segments"] == segments + again


def test_the_losses_of_a_stream_are_a_share_of_all_that_it_sent() -> None:
    way = Way("sender")
    way.add([sock(1), sock(2, bytes_acked=MANY * 14480)], 1.0)
    worst = way.figures(5000.0)["worst"]
    assert (worst.number, worst.lost_share) == (1, pytest.approx(40_000 / (MANY + 40_000)))


@pytest.mark.parametrize(
    ("carried", "number", "share"),
    [([9, 1], 2, 1 / 9), ([0, 9], 1, 0.0), ([0, 9, 0, 9], 1, 0.0), ([9, 9, 9, 3], 4, 1 / 3)],
)
def test_the_worst_stream_is_compared_with_the_better_ones(
    carried: list[int], number: int, share: float
) -> None:
    way = Way("sender")
    way.add([sock(at, bytes_acked=10**6 * each) for at, each in enumerate(carried)], 1.0)
    worst = way.figures(5.0)["worst"]
    assert (worst.number, worst.rate_share) == (number, pytest.approx(share))
