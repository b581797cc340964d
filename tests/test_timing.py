"""When loops act: ticks keep their phase, back-off grows and is spread."""

import time
from itertools import islice

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from agent.errors import ManagerAway, ManagerUnavailable
from agent.timing import Backoff, jittered, ticks

INTERVAL = 0.3
UNAVAILABLE = ManagerUnavailable("no answer")


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


def delays(backoff: Backoff, count: int) -> list[float]:
    """What so many plain failures, one after the other, give."""
    return [backoff.next(UNAVAILABLE) for _ in range(count)]


def test_backoff_draws_from_a_range_that_doubles_up_to_its_cap() -> None:
    columns = list(zip(*(delays(Backoff(), 6) for _ in range(1000)), strict=True))
    for column, bound in zip(columns, (1, 2, 4, 8, 16, 30), strict=True):
        assert 0 <= min(column) < bound * 0.1
        assert bound * 0.9 < max(column) <= bound


def test_backoff_keeps_the_phase_that_it_drew_at_its_cap() -> None:
    assert delays(Backoff(), 9)[6:] == [30, 30, 30]


def test_backoff_begins_anew_after_a_reset() -> None:
    backoff = Backoff()
    delays(backoff, 9)
    backoff.reset()
    assert all(delay <= bound for delay, bound in zip(delays(backoff, 3), (1, 2, 4), strict=True))


def test_backoff_waits_for_as_long_as_the_manager_asks() -> None:
    backoff = Backoff()
    assert backoff.next(ManagerUnavailable("503", retry_after=17)) == 17
    assert backoff.next(ManagerUnavailable("503", retry_after=0)) <= 2
    delays(backoff, 4)
    assert backoff.next(ManagerUnavailable("503", retry_after=17)) == 30


def test_waiting_for_the_registration_does_not_use_the_callers_backoff_up() -> None:
    backoff = Backoff()
    away = ManagerAway("away", again_in=12.5, retry_after=300)
    assert [backoff.next(away) for _ in range(9)] == [12.5] * 9
    assert backoff.next(UNAVAILABLE) <= 1


def test_jitter_moves_a_delay_by_at_most_a_fifth_to_either_side() -> None:
    delays = [jittered(10) for _ in range(1000)]
    assert 8 <= min(delays) < 8.5
    assert 11.5 < max(delays) <= 12
