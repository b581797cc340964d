"""What the messages have in common."""

from datetime import UTC, datetime
from typing import get_args

from agent.dev.store.records import TaskStatus
from agent.protocol import FINAL_STATUSES, timestamp


def test_every_other_status_of_a_task_is_final() -> None:
    on_its_way = {"queued", "pending", "accepted", "running"}
    assert FINAL_STATUSES == set(get_args(TaskStatus)) - on_its_way


def test_a_timestamp_is_in_utc_with_milliseconds() -> None:
    assert timestamp(datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)) == "2026-01-02T03:04:05.678Z"
