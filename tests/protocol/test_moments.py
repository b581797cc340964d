"""Whether two moments that a Manager wrote are the same, however its database writes them."""

import time

import pytest

from agent.protocol.moments import Moment, is_same_moment

BORN = "2026-01-02T03:04:05Z"
SECONDS = 1767323045


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05",
        "2026-01-02T03:04:05.9",
        "2026-01-02T03:04:05.123456",
        "2026-01-02 03:04:05.123456+00:00",
        "2026-01-02T05:04:05+02:00",
        "2026-01-01T21:34:05-05:30",
        "2026-01-02T03:04:04.6",
        "20260102T030405Z",
        SECONDS,
        SECONDS + 0.25,
    ],
)
def test_one_moment_is_the_same_in_any_zone_and_precision(written: Moment) -> None:
    assert is_same_moment(BORN, written)
    assert is_same_moment(written, BORN)


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-02T03:04:07",
        "2026-01-02T03:04:05+02:00",
        "2025-01-02T03:04:05Z",
        "2026-01-02",
        SECONDS + 60,
        0,
        0.0,
        10**400,
        float("nan"),
        "yesterday",
        "9999-99-99",
        str(SECONDS),
    ],
)
def test_another_moment_is_another(written: Moment) -> None:
    assert not is_same_moment(BORN, written)
    assert not is_same_moment(written, BORN)


@pytest.mark.parametrize("written", [BORN, SECONDS, 0, "yesterday", "", None])
def test_a_moment_that_is_missing_may_be_any(written: Moment) -> None:
    for missing in (None, ""):
        assert is_same_moment(missing, written)
        assert is_same_moment(written, missing)


def test_text_that_is_no_moment_is_compared_as_text() -> None:
    assert is_same_moment("yesterday", "yesterday")
    assert not is_same_moment("yesterday", "today")


def test_a_moment_without_a_zone_is_utc_wherever_the_agent_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as tokyo:
        tokyo.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert is_same_moment(BORN, "2026-01-02 03:04:05")
    time.tzset()
