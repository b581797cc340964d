"""Quantities and durations are shown in few digits."""

import pytest

from agent.quantities import duration, prefix, quantity, rate


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 bit/s"),
        (999.4, "999 bit/s"),
        (999.6, "1.00 kbit/s"),
        (12_345, "12.3 kbit/s"),
        (9_996_000, "10.0 Mbit/s"),
        (99_960_000, "100 Mbit/s"),
        (19.5e9, "19.5 Gbit/s"),
        (1.5e15, "1500 Tbit/s"),
    ],
)
def test_a_rate_has_three_digits(value: float, words: str) -> None:
    assert rate(value) == words


def test_a_quantity_has_its_unit_behind_the_prefix() -> None:
    assert quantity(112.4e6, "B") == "112 MB"
    assert quantity(0.5, "B") == "0.50 B"


def test_an_axis_shares_the_prefix_of_a_quantity() -> None:
    assert [prefix(value) for value in (0, 999.4, 999.6, 2e10)] == [
        ("", 1.0),
        ("", 1.0),
        ("k", 1e3),
        ("G", 1e9),
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (100_000, "1 d 3 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words
