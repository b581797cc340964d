"""What `make bench` says about a figure and the committed one."""

import pytest

from benchmarks.comparison import Verdict, compare, judge, report
from benchmarks.figures import Figure, Floor, Range, once, p99, spread, written
from benchmarks.results import Results, Run, find_floors


def figure(
    value: float, low: float, high: float, floor: float | None = None, least: float | None = None
) -> Figure:
    """A figure with a spread, and with a floor of exactly so much if there is one."""
    return Figure(
        "pending to execve",
        Range(value, low, high),
        "ms",
        least=least,
        floors=(Floor.CHILD,) if floor else (),
        floor=once(floor) if floor else None,
    )


def results(*figures: Figure) -> Results:
    """The figures of one script."""
    return {"latency": Run("2026-11-28", "a machine", list(figures))}


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (figure(14, 13, 15), Verdict.WORSE),
        (figure(7, 6, 8), Verdict.BETTER),
        (figure(10, 9, 11), Verdict.SAME),
        # Beyond the committed spread, but not with all of its own.
        (figure(12, 10.9, 13), Verdict.SAME),
        (figure(8, 7, 9.1), Verdict.SAME),
    ],
)
def test_a_figure_is_worse_only_when_its_spread_lies_wholly_above_the_committed_one(
    now: Figure, verdict: Verdict
) -> None:
    assert judge(now, figure(10, 9, 11)) == verdict


def test_a_figure_with_a_lower_limit_is_worse_when_it_is_lower() -> None:
    committed = figure(1, 0.98, 1.02, least=0.99)
    assert judge(figure(0.8, 0.7, 0.9, least=0.99), committed) == Verdict.WORSE
    assert judge(figure(1.2, 1.1, 1.3, least=0.99), committed) == Verdict.BETTER


def test_a_host_of_half_the_speed_makes_nothing_worse() -> None:
    committed = figure(10, 9, 11, floor=5)
    assert judge(figure(20, 18, 22, floor=10), committed) == Verdict.SAME
    assert judge(figure(20, 18, 22, floor=5), committed) == Verdict.WORSE
    assert judge(figure(10, 9, 11, floor=10), committed) == Verdict.BETTER


def test_the_spread_of_the_floor_counts_as_well() -> None:
    now, committed = figure(12, 12, 12, floor=5), figure(10, 10, 10, floor=5)
    assert judge(now, committed) == Verdict.WORSE
    now.floor = Range(5, 4, 6)
    assert judge(now, committed) == Verdict.SAME


def test_less_than_a_hundredth_is_not_noticed() -> None:
    committed = figure(42, 42, 42)
    assert judge(figure(42.4, 42.4, 42.4), committed) == Verdict.SAME
    assert judge(figure(42.5, 42.5, 42.5), committed) == Verdict.WORSE


def test_one_error_after_none_is_worse() -> None:
    assert judge(figure(1, 1, 1), figure(0, 0, 0)) == Verdict.WORSE


def test_a_figure_that_is_missing_on_one_side_is_named() -> None:
    other = figure(1, 1, 1)
    other.what = "idle"
    rows = compare(results(figure(10, 9, 11)), results(other), ["latency"])
    assert [(row.what, row.verdict) for row in rows] == [
        ("pending to execve", Verdict.NEW),
        ("idle", Verdict.GONE),
    ]


def test_figures_without_a_common_floor_are_not_compared() -> None:
    with_floor, without = figure(10, 9, 11, floor=5), figure(10, 9, 11)
    assert judge(without, with_floor) == Verdict.NO_FLOOR
    not_measured = figure(10, 9, 11, floor=5)
    not_measured.floor = None
    assert judge(not_measured, with_floor) == Verdict.NO_FLOOR


def test_a_figure_that_follows_from_others_is_not_compared() -> None:
    on_paper = Figure("a hundred times as many", once(1), "", compared=False)
    assert not compare(results(on_paper), results(on_paper), ["latency"])


def test_the_report_shows_ratios_and_repeats_what_is_worse() -> None:
    rows = compare(
        results(figure(20, 18, 22, floor=5)), results(figure(10, 9, 11, floor=5)), ["latency"]
    )
    lines = list(report(rows))
    assert lines[1].split("  ") == [
        "pending to execve",
        "4 x floor (3.6 to 4.4)",
        "2 x floor (1.8 to 2.2)",
        "worse",
    ]
    assert lines[-1] == "worse by more than the spread: pending to execve"


def test_a_floor_of_several_parts_is_their_sum() -> None:
    child = Figure(Floor.CHILD, Range(6, 5, 7), "ms")
    request = Figure(Floor.REQUEST, Range(1, 0.5, 2), "ms")
    whole = Figure("pending", once(14), "ms", floors=(Floor.CHILD, Floor.REQUEST))
    find_floors([whole], [child, request])
    assert whole.floor == Range(7, 5.5, 9)
    assert whole.ratio and whole.ratio.value == 2
    find_floors([whole], [child])
    assert whole.floor is None


def test_the_spread_goes_from_the_lowest_fifth_of_a_run_to_the_highest() -> None:
    values = [1, 2, 3, 11, 12, 13, 21, 22, 23, 31, 32, 33, 41, 42, 43]
    assert spread(values) == Range(22, 2, 42)
    assert spread(values, p99) == Range(43, 3, 43)
    assert spread([5, 4, 6]) == Range(5, 4, 6)


def test_large_numbers_are_written_out() -> None:
    numbers = (0.05678, 12.345, 9999.9, 38280)
    assert [written(number) for number in numbers] == ["0.05678", "12.35", "10000", "38280"]
    assert written(2000, 3) == "2000"
