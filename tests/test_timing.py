"""When to act: ticks keep their phase, a back-off grows, and both are spread at random."""

import time
from itertools import islice

import gevent
import pytest
from gevent.event import Event

from agent import timing
from agent.errors import KeyRefused, ManagerUnavailable
from agent.timing import KEY_REFUSED_PAUSE, Backoff, jittered, pauses, ticks
from tests.support.clock import Clock

INTERVAL = 5.0
UNAVAILABLE = ManagerUnavailable("no answer")


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_the_first_tick_is_now_and_the_second_after_a_random_part_of_the_interval(
    clock: Clock,
) -> None:
    for count in range(100):
        loop = ticks(INTERVAL, clock.event())
        assert next(loop) == 0
        assert len(clock.pauses) == count, "it comes without a wait"
        assert next(loop) == pytest.approx(0)
    assert 0 <= min(clock.pauses) < INTERVAL * 0.2
    assert INTERVAL * 0.8 < max(clock.pauses) <= INTERVAL


def test_all_later_ticks_keep_the_phase_of_the_second(clock: Clock) -> None:
    moments: list[float] = []
    for late in islice(ticks(INTERVAL, clock.event()), 6):
        assert late == pytest.approx(0)
        if moments:
            clock.now += 0.8
        moments.append(clock.now)
    gaps = [later - earlier for earlier, later in zip(moments[1:], moments[2:], strict=False)]
    assert gaps == pytest.approx([INTERVAL] * 4)


def test_a_tick_that_is_missed_is_skipped_and_the_phase_stays(clock: Clock) -> None:
    moments = []
    for _ in islice(ticks(INTERVAL, clock.event()), 4):
        moments.append(clock.now)
        if len(moments) == 2:
            clock.now += INTERVAL * 2.5
    second = moments[1]
    assert [(moment - second) / INTERVAL for moment in moments[1:]] == pytest.approx([0, 3, 4])


def test_a_tick_says_how_late_it_came_and_the_next_is_on_time(clock: Clock) -> None:
    stop = clock.event()
    loop = ticks(INTERVAL, stop)
    next(loop)
    next(loop)
    stop.late = 0.7
    assert next(loop) == pytest.approx(0.7)
    stop.late = 0
    assert next(loop) == pytest.approx(0)
    assert clock.pauses[-2:] == pytest.approx([INTERVAL, INTERVAL - 0.7])


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


def test_waiting_for_the_key_does_not_use_the_callers_backoff_up() -> None:
    backoff = Backoff()
    assert [backoff.next(KeyRefused("401")) for _ in range(9)] == [KEY_REFUSED_PAUSE] * 9
    assert backoff.next(UNAVAILABLE) <= 1


def test_jitter_moves_a_delay_by_at_most_a_fifth_to_either_side() -> None:
    delays = [jittered(10) for _ in range(1000)]
    assert 8 <= min(delays) < 8.5
    assert 11.5 < max(delays) <= 12


@pytest.mark.parametrize(("first", "most"), [(2, 60), (0.001, 60), (100, 100), (60, 60)])
def test_pauses_double_up_to_a_limit_that_none_of_them_exceeds(first: float, most: float) -> None:
    found = list(islice(pauses(first, most, time.monotonic() + 3600), 100))
    for number, pause in enumerate(found):
        bound = min(most, first * 2**number)
        assert 0.8 * bound <= pause <= min(most, 1.2 * bound)
    assert len(set(found)) > 10, "many that were refused together do not come back together"


def test_pauses_of_no_seconds_stay_so() -> None:
    assert list(islice(pauses(0, 60, time.monotonic() + 3600), 3)) == [0, 0, 0]


@pytest.mark.parametrize(("first", "most"), [(2, 60), (3600, 3600)])
def test_pauses_end_with_their_time(clock: Clock, first: float, most: float) -> None:
    began = clock.now
    found = pauses(first, most, began + 3600)
    for pause in found:
        clock.sleep(pause)
        assert clock.now <= began + 3600
    assert clock.now == began + 3600, "the last attempt comes at the end"
    assert list(found) == []
    clock.now += 1
    assert list(pauses(first, most, clock.now - 1)) == []
