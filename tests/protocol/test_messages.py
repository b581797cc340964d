"""What the messages have in common, and which of them are about one task."""

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest

from agent.dev.store.records import TaskStatus
from agent.protocol import (
    FINAL_STATUSES,
    Acknowledged,
    AgentRecord,
    Moment,
    Origin,
    Task,
    timestamp,
)


def test_every_other_status_of_a_task_is_final() -> None:
    on_its_way = {"queued", "pending", "accepted", "running"}
    assert FINAL_STATUSES == set(get_args(TaskStatus)) - on_its_way


def test_a_timestamp_is_in_utc_with_milliseconds() -> None:
    assert timestamp(datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)) == "2026-01-02T03:04:05.678Z"


BORN = "2026-01-02T03:04:05Z"
LATER = "2026-01-02T03:04:09Z"
CLIENT = "iperf_client_run"
TASK = Task(7, CLIENT, created_at=BORN)


@pytest.mark.parametrize(
    "same",
    [
        Task(7, CLIENT, created_at="2026-01-02 03:04:05.123456+00:00"),
        Task(7, CLIENT, msgspec.Raw(b'{"port": 1}'), "running", BORN, "no payload"),
        Task(7, CLIENT),
        Acknowledged(7),
        Acknowledged(7, CLIENT, BORN),
        Acknowledged(7, created_at=1767323045),
    ],
)
def test_a_task_is_known_by_its_number_its_type_and_its_moment(same: Task | Acknowledged) -> None:
    assert TASK.is_same(same)


@pytest.mark.parametrize(
    "other",
    [
        Task(8, CLIENT, created_at=BORN),
        Task(7, "kill_all", created_at=BORN),
        Task(7, CLIENT, created_at=LATER),
        Acknowledged(8),
        Acknowledged(7, "kill_all"),
        Acknowledged(7, CLIENT, LATER),
        Acknowledged(7, created_at="yesterday"),
    ],
)
def test_another_number_type_or_moment_is_another_task(other: Task | Acknowledged) -> None:
    assert not TASK.is_same(other)


def test_a_task_without_a_moment_is_taken_at_its_numbers_word() -> None:
    unknown = Task(7, CLIENT)
    assert unknown.is_same(TASK) and unknown.is_same(Acknowledged(7, CLIENT, LATER))
    assert not unknown.is_same(Task(7, "kill_all"))


def origin(url: str = "http://manager", agent_id: int = 1, moment: Moment = BORN) -> Origin:
    return Origin.of(url, AgentRecord(agent_id, moment))


@pytest.mark.parametrize(
    "same",
    [
        origin("http://manager/"),
        origin("http://Manager:80"),
        origin("HTTP://MANAGER/"),
        origin(moment="2026-01-02 03:04:05.123456+00:00"),
        origin(moment="2026-01-02T05:04:05+02:00"),
        origin(moment=1767323045),
        origin(moment=None),
        # As version 0.1.0 wrote it.
        Origin("http://manager", 1, "2026-01-02T03:04:05"),
        Origin("http://manager", 1, ""),
    ],
)
def test_an_origin_is_the_same_however_its_url_and_moment_are_written(same: Origin) -> None:
    assert origin().is_same(same)
    assert same.is_same(origin())


@pytest.mark.parametrize(
    "other",
    [
        origin("http://manager:8000"),
        origin("https://manager"),
        origin("http://other"),
        origin("http://manager/iperf"),
        origin(agent_id=2),
        origin(moment=LATER),
        origin(moment=1767323099.5),
        origin(moment="yesterday"),
        Origin("http://manager", 1, "2026-01-02T03:04:09"),
    ],
)
def test_another_server_record_or_moment_is_another_origin(other: Origin) -> None:
    assert not origin().is_same(other)
    assert not other.is_same(origin())


def test_the_port_of_a_scheme_need_not_be_written() -> None:
    assert origin("https://manager").is_same(origin("https://manager:443/"))
    assert not origin("https://manager").is_same(origin("https://manager:80"))


def test_a_moment_with_a_zone_is_known_by_what_version_0_1_0_wrote_of_it() -> None:
    """It kept no zone, so its text is compared with the text."""
    written = "2026-01-02T05:04:05+02:00"
    assert origin(moment=written).is_same(Origin("http://manager", 1, "2026-01-02T05:04:05"))


@pytest.mark.parametrize("kind", [AgentRecord, Task])
def test_a_moment_has_few_characters(kind: type[AgentRecord] | type[Task]) -> None:
    """It is kept with each task."""
    name = "first_registered" if kind is AgentRecord else "created_at"
    for length, fits in ((30, True), (1000, False)):
        text = msgspec.json.encode({"id": 1, "type": "kill_all", name: "2" * length})
        with nullcontext() if fits else pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text, type=kind)
