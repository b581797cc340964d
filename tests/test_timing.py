"""When loops act: ticks keep their phase, back-off grows and is spread."""

import time
from itertools import islice

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from agent.timing import backoff, jittered, ticks

INTERVAL = 0.3


def off_phase(moment: float, began: float) -> float:
    """How far a moment is from the nearest tick, in seconds."""
    return abs((moment - began + INTERVAL / 2) % INTERVAL - INTERVAL / 2)


def test_the_first_tick_is_now_and_the_others_keep_a_random_phase() -> None:
    waits = []
    for _ in range(40):
        began = time.monotonic()
        first, _ = islice(ticks(0.06, Event()), 2)
        assert first == 0
        waits.append(time.monotonic() - began)
    assert min(waits) < 0.02 < 0.04 < max(waits)
    moments = []
    for _ in islice(ticks(INTERVAL, Event()), 5):
        moments.append(time.monotonic())
        gevent.sleep(0.05)
    second = moments[1]
    assert [round((moment - second) / INTERVAL) for moment in moments[1:]] == [0, 1, 2, 3]
    assert all(off_phase(moment, second) < INTERVAL / 4 for moment in moments[1:])


def test_a_tick_that_is_missed_is_skipped_and_the_phase_stays() -> None:
    moments = []
    for _ in islice(ticks(INTERVAL, Event()), 4):
        moments.append(time.monotonic())
        if len(moments) == 2:
            gevent.sleep(INTERVAL * 2.5)
    second = moments[1]
    assert [round((moment - second) / INTERVAL) for moment in moments[1:]] == [0, 3, 4]
    assert all(off_phase(moment, second) < INTERVAL / 4 for moment in moments[1:])


def test_a_tick_says_how_late_it_came() -> None:
    blocking = get_original("time", "sleep")
    loop = ticks(INTERVAL, Event())
    next(loop)
    next(loop)
    gevent.spawn_later(INTERVAL * 0.9, blocking, INTERVAL * 0.6)
    assert INTERVAL * 0.3 < next(loop) < INTERVAL * 3


def test_ticks_end_at_once_when_they_are_told_to() -> None:
    stop = Event()
    gevent.spawn_later(0.05, stop.set)
    with gevent.Timeout(5):
        assert len(list(ticks(60, stop))) == 1
        assert not list(ticks(60, stop))


def test_backoff_draws_from_a_range_that_doubles_up_to_its_cap() -> None:
    columns = list(zip(*(islice(backoff(), 6) for _ in range(1000)), strict=True))
    for delays, bound in zip(columns, (1, 2, 4, 8, 16, 30), strict=True):
        assert 0 <= min(delays) < bound * 0.1
        assert bound * 0.9 < max(delays) <= bound


def test_backoff_keeps_the_phase_that_it_drew_at_its_cap() -> None:
    assert list(islice(backoff(), 6, 9)) == [30, 30, 30]


def test_jitter_moves_a_delay_by_at_most_a_fifth_to_either_side() -> None:
    delays = [jittered(10) for _ in range(1000)]
    assert 8 <= min(delays) < 8.5
    assert 11.5 < max(delays) <= 12
