"""Who uses a server that was busy, as far as the agent's own tasks tell."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.iperf3.verdict import judge_client
from agent.process.child import Ending
from agent.registry import Entry, TaskRegistry
from agent.tasks import attempt
from agent.tasks.attempt import Attempt, user_of_server
from tests.support.outbox import claimed
from tests.support.recorded_runs import run

SINCE = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
# An address for documentation (RFC 5737): no host has it.
ELSEWHERE = "192.0.2.7"


def entered(
    registry: TaskRegistry, task_type: str, number: int, peer: str = "", **payload: Any
) -> Entry:
    """A task on port 5201 that runs."""
    given = claimed(number, task_type)
    raw = msgspec.Raw(msgspec.json.encode({"port": 5201, **payload}))
    task = msgspec.structs.replace(given.task, payload=raw)
    entry = registry.enter(msgspec.structs.replace(given, task=task))
    entry.port, entry.pid, entry.has_begun = 5201, 1, True
    entry.peer = (peer, SINCE) if peer else None
    return entry


def words(target: str, *tasks: tuple[str, str]) -> str:
    """What a client of `target` is told, beside tasks of a type whose test is with a peer."""
    registry = TaskRegistry()
    for number, (task_type, peer) in enumerate(tasks, 1):
        entered(registry, task_type, number, peer)
    return user_of_server(registry, entered(registry, "iperf_client_run", 99), target)


def test_a_client_that_the_server_has_not_taken_yet_does_not_use_it() -> None:
    registry = TaskRegistry()
    entered(registry, "iperf_client_run", 1, ELSEWHERE).has_begun = False
    last = entered(registry, "iperf_client_run", 2)
    assert user_of_server(registry, last, ELSEWHERE) == ""


@pytest.mark.parametrize(
    ("payload", "target", "serves"),
    [
        ({}, "127.0.0.1", True),
        ({}, "::1", True),
        ({"bind": "127.0.0.1"}, "127.0.0.1", True),
        ({"bind": "127.0.0.2"}, "127.0.0.1", False),
        ({"ip_version": 4}, "127.0.0.1", True),
        ({"ip_version": 6}, "127.0.0.1", False),
        ({"bind_dev": "eth0"}, "127.0.0.1", False),
    ],
)
def test_only_the_server_that_listens_on_the_address_is_named(
    payload: dict[str, Any], target: str, serves: bool
) -> None:
    """Another program's may have the same port there."""
    registry = TaskRegistry()
    entered(registry, "iperf_server_start", 1, ELSEWHERE, **payload)
    told = user_of_server(registry, entered(registry, "iperf_client_run", 2), target)
    assert bool(told) == serves


def test_the_bitrate_of_a_document_without_it_is_that_of_the_command_line() -> None:
    """Of UDP, iperf3 3.9 does not say it."""
    for case in ("udp", "tcp"):
        judged = judge_client(0, run("3.9", case).stdout, "")
        done = Attempt(Ending.ENDED, 0, judged, Path("none"))
        done.complete("iperf3 -c h -p 1 -b 50000000".split(), has_begun=True)
        assert done.verdict.figures and done.verdict.figures.asked == 50_000_000


def test_how_often_3_16_looked_is_what_the_command_line_says() -> None:
    edited = msgspec.json.decode(run("3.18", "tcp-bytes").stdout)
    edited["start"] |= {"version": "iperf 3.16"}
    del edited["start"]["test_start"]["interval"]
    for sums in ("sum_sent", "sum_received"):
        edited["end"][sums] |= {"seconds": 5, "bits_per_second": edited["end"][sums]["bytes"] * 1.6}
    judged = judge_client(0, msgspec.json.encode(edited), "")
    assert judged.figures and judged.figures.overtime == 1
    for interval, late in (("0.1", 0.1), ("10", 5)):
        done = Attempt(Ending.ENDED, 0, judged, Path("none"))
        done.complete(["iperf3", "-c", "h", "-n", "1000000", "-i", interval], has_begun=True)
        assert done.verdict.figures
        assert done.verdict.figures.overtime == pytest.approx(late, rel=0.01)


@pytest.mark.parametrize("version", ["3.18", "3.22"])
def test_a_core_that_iperf3_may_not_use_is_named_where_it_says_nothing(version: str) -> None:
    """As in a container that has other cores; recorded with a core that no host has."""
    found = run(version, "arguments-affinity")
    judged = judge_client(found.exit_code, found.stdout, found.stderr)
    assert judged.error_class == "other"
    done = Attempt(Ending.ENDED, found.exit_code, judged, Path("none"))
    done.complete(["iperf3", "-c", "h", "-A", "5"], has_begun=False)
    assert done.verdict.error_class == "arguments"
    assert done.verdict.message.endswith("it may not be allowed to use core 5")


def test_a_client_of_the_same_server_uses_it() -> None:
    told = words(ELSEWHERE, ("iperf_client_run", "127.0.0.1"), ("iperf_client_run", ELSEWHERE))
    assert told == "this agent's task 2 has used it since 2026-03-04T05:06:07.000Z"


def test_a_server_of_this_host_names_its_client() -> None:
    told = words("127.0.0.1", ("iperf_server_start", ELSEWHERE))
    assert told == f"this agent's task 1 has served {ELSEWHERE} since 2026-03-04T05:06:07.000Z"


@pytest.mark.parametrize("target", [ELSEWHERE, "localhost"])
def test_a_server_of_the_same_port_on_another_host_is_another_one(target: str) -> None:
    assert words(target, ("iperf_server_start", "127.0.0.1")) == ""


def test_nobody_is_named_where_nobody_is_seen() -> None:
    assert words("127.0.0.1", ("iperf_server_start", ""), ("iperf_client_run", "")) == ""


def test_a_host_that_cannot_tell_its_addresses_costs_no_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: str) -> None:
        raise OSError("no descriptor is free")

    monkeypatch.setattr(attempt, "interface_of", fails)
    assert words("127.0.0.1", ("iperf_server_start", ELSEWHERE)) == ""
