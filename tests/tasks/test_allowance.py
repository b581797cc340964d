"""What a test may move under a bitrate, by a clock of the test's own."""

from collections.abc import Callable, Iterable

import pytest

from agent.tasks.allowance import Allowance

LIMIT = 10_000_000
MIB = 2**20
LOOKS = 0.25


def ended_after(
    moved: Callable[[float], float], streams: int, block: int | None = None, seconds: float = 60
) -> float | None:
    """The seconds after which a test is beyond its bitrate that has moved so many bits by then."""
    allowance, before = Allowance(LIMIT, block, 100.0), 0
    for now in _moments(seconds):
        bits = round(moved(now))
        if beyond := allowance.rate_beyond(bits - before, streams, 100.0 + now):
            assert beyond > LIMIT
            return now
        before = bits
    return None


def _moments(seconds: float) -> Iterable[float]:
    return (LOOKS * (look + 1) for look in range(int(seconds / LOOKS)))


def paced(block: int, streams: int, path: float = 10e9) -> Callable[[float], float]:
    """What iperf3 has sent: each stream sends a block whenever its mean is below its bitrate."""
    each = LIMIT / streams
    every = block * 8 / each
    return lambda now: streams * min(
        (now // every + 1) * block * 8,
        (now // every) * block * 8 + (now % every) * path / streams,
    )


@pytest.mark.parametrize("streams", [1, 8, 128])
@pytest.mark.parametrize("block", [1460, 128 * 1024, MIB])
@pytest.mark.parametrize("path", [10e9, 100e6])
def test_what_iperf3_paces_is_within_its_bitrate(streams: int, block: int, path: float) -> None:
    moved = paced(block, streams, path)
    assert ended_after(moved, streams, block) is None
    if streams * block <= min(2 * path / 8, 16 * MIB):
        assert ended_after(moved, streams) is None


@pytest.mark.parametrize(
    ("rate", "streams", "most"),
    [
        (1e10, 1, 0.25),
        (1e10, 128, 0.25),
        (1e8, 1, 0.5),
        (1e8, 128, 2.25),
        (1.6e7, 8, 2.25),
        (2.56e8, 256, 2.25),
    ],
)
def test_what_is_not_paced_is_ended_within_seconds(rate: float, streams: int, most: float) -> None:
    assert (ended_after(lambda now: rate * now, streams) or 99) <= most


def test_the_blocks_of_many_streams_are_bounded_together() -> None:
    """128 KiB each, or 16 MiB in all: 200 MB at once are none."""
    assert ended_after(lambda now: 200e6 * 8, 256) == LOOKS
    assert ended_after(lambda now: 33e6 * 8, 256) is None
    assert ended_after(lambda now: 16e6 * 8, 16) is None


def test_the_rate_of_what_is_counted_a_second_apart_is_over_that_second() -> None:
    allowance = Allowance(LIMIT, None, 100.0)
    looks = [allowance.rate_beyond(0, 0, 100 + LOOKS * look) for look in (1, 2, 3)]
    assert not any(looks)
    assert allowance.rate_beyond(20 * LIMIT, 0, 101.0) == 20 * LIMIT


def test_datagrams_have_no_blocks() -> None:
    assert ended_after(lambda now: LIMIT * 1.05 * now, 0) is None
    assert ended_after(lambda now: LIMIT * 1.2 * now, 0) == 2.0


@pytest.mark.parametrize(("pause", "ended"), [(20, False), (40, True)])
def test_a_pause_is_made_up_for_but_not_for_ever(pause: float, ended: bool) -> None:
    def moved(now: float) -> float:
        return LIMIT * (now if now < 5 or now > 5 + pause else 5)

    assert (ended_after(moved, 1, seconds=120) is not None) == ended


def in_a_row(tests: int, bits: int, streams: int, pause: float = 0.0) -> int:
    """How many tests of a server are let be, of those that move so much in a tenth of a second."""
    allowance, now = Allowance(LIMIT, None, 100.0), 100.0
    for number in range(tests):
        allowance.begin(now)
        now += 0.1
        if allowance.rate_beyond(bits, streams, now):
            return number
        now += pause
    return tests


@pytest.mark.parametrize("streams", [0, 1, 64])
def test_what_short_tests_move_too_much_they_owe_together(streams: int) -> None:
    most = 2 * LIMIT + 8 * MIB * min(streams, 16)
    assert in_a_row(50, most // 4, streams) <= 5
    assert in_a_row(50, most * 2, streams) == 0
    # It is paid back in time.
    assert in_a_row(50, most // 2, streams, most / 2 / LIMIT) == 50


def test_a_test_that_is_paced_may_follow_one_that_owes() -> None:
    allowance = Allowance(LIMIT, None, 100.0)
    assert not allowance.rate_beyond(2 * LIMIT, 1, 100.1)
    allowance.begin(100.2)
    for look in range(1, 41):
        assert not allowance.rate_beyond(round(LIMIT * LOOKS), 1, 100.2 + look * LOOKS)
    # Which leaves the next one nothing.
    allowance.begin(111.0)
    assert allowance.rate_beyond(5 * LIMIT, 1, 111.25)
