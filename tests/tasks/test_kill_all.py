"""`kill_all`: what it ends, when it reports that, and what it leaves alone.

The stand-in for iperf3 starts a server that ignores TERM when the payload has `bind_dev` "deaf".
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from tests.support.command import stand_in
from tests.support.harness import Bench, free_port, is_running, until

pytestmark = pytest.mark.process

# Listens on the port that follows -p. On TERM it only writes a file.
DEAF_SERVER = """
import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: open("heard." + sys.argv[1], "w").close())
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("", int(sys.argv[1])))
listener.listen()
while True:
    signal.pause()
"""
BEHAVIOUR = f"""
case "$*" in *"--bind-dev deaf"*) exec {sys.executable} -c '{DEAF_SERVER}' "$3";; esac
exec iperf3 "$@"
"""
GRACE = 0.7


@pytest.fixture(name="odd", scope="module")
def fixture_odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench whose agent needs a moment to end a deaf server, and may run three tasks."""
    bench = Bench(Store(), tmp_path_factory.mktemp("odd"))
    bench.manager.start()
    try:
        path = stand_in(bench.directory / "iperf3", BEHAVIOUR)
        bench.agent(IPERF3_PATH=path, STOP_GRACE=str(GRACE), MAX_TASKS="3").wait_for("registered")
        yield bench
    finally:
        bench.close()


def server(bench: Bench, port: int, **payload: Any) -> ManagedTask:
    """A server task that listens."""
    task = bench.ended(bench.task("iperf_server_start", port=port, **payload))
    assert task.status == "succeeded", task.error
    return task


def waiting_client(bench: Bench) -> ManagedTask:
    """A client task that waits for a delay of an hour."""
    task = bench.task("iperf_client_run", server_ip="::1", port=1, client_delay_seconds=3600)
    bench.agents[0].wait_for("task claimed", task_id=task.id)
    return task


def killed(bench: Bench, kill: ManagedTask) -> int:
    """Wait until a kill_all is reported; returns its count."""
    result = bench.result(bench.ended(kill))
    assert result["killed"] is True
    return int(result["count"])


def order(bench: Bench, *events: tuple[str, ManagedTask]) -> list[int]:
    """The places in the agent's log of these events of these tasks."""
    lines = bench.agents[0].lines
    return [lines.index(bench.agents[0].wait_for(words, task_id=t.id)) for words, t in events]


def test_kill_all_without_tasks_succeeds_at_once(odd: Bench) -> None:
    assert killed(odd, odd.task("kill_all")) == 0


def test_kill_all_is_reported_only_when_the_last_child_is_gone(odd: Bench) -> None:
    deaf = server(odd, free_port(), bind_dev="deaf")
    waiting = waiting_client(odd)
    pid = odd.result(deaf)["pid"]
    kill = odd.task("kill_all")
    assert odd.ended(waiting).error == "stopped by kill_all before the test began"
    assert kill.status not in ("succeeded", "failed"), "the deaf server is still there"
    assert is_running(pid)
    assert killed(odd, kill) == 2
    assert not is_running(pid)
    assert odd.result(deaf)["agent"]["ended"] == "stopped by kill_all"


def test_tasks_claimed_after_kill_all_are_left_alone(odd: Bench) -> None:
    deaf = server(odd, free_port(), bind_dev="deaf")
    kill = odd.task("kill_all")
    later = server(odd, free_port())
    assert killed(odd, kill) == 1
    assert not is_running(odd.result(deaf)["pid"])
    assert is_running(odd.result(later)["pid"])
    assert killed(odd, odd.task("kill_all")) == 1


def test_a_server_waits_for_a_port_that_is_being_vacated_and_the_next_one_does_not(
    odd: Bench,
) -> None:
    port = free_port()
    deaf = server(odd, port, bind_dev="deaf")
    kill = odd.task("kill_all")
    second = odd.task("iperf_server_start", port=port)
    third = odd.task("iperf_server_start", port=port)
    assert odd.ended(second).status == "succeeded", second.error
    assert odd.ended(third).status == "failed"
    assert f"port {port} is in use by this agent's own task {second.id}" in (third.error or "")
    assert killed(odd, kill) == 1
    places = order(
        odd, ("task claimed", second), ("server ended", deaf), ("server started", second)
    )
    assert places == sorted(places)
    assert killed(odd, odd.task("kill_all")) == 1


def test_a_server_waits_for_one_that_reached_its_time_limit(odd: Bench) -> None:
    port = free_port()
    first = server(odd, port, bind_dev="deaf", max_seconds=0.1)
    until((odd.directory / f"heard.{port}").exists)
    second = odd.ended(odd.task("iperf_server_start", port=port))
    assert second.status == "succeeded", second.error
    ended = odd.agents[0].wait_for("server ended", task_id=first.id)
    assert ended["why"] == "stopped after its 0.1 s"
    assert killed(odd, odd.task("kill_all")) == 1


def test_a_server_waiting_for_a_port_can_be_stopped(odd: Bench) -> None:
    port = free_port()
    server(odd, port, bind_dev="deaf")
    first = odd.task("kill_all")
    waiting = odd.task("iperf_server_start", port=port)
    second = odd.task("kill_all")
    assert odd.ended(waiting).error == "stopped by kill_all"
    assert killed(odd, first) == 1
    assert killed(odd, second) == 2


def test_a_full_agent_refuses_start_tasks_and_still_runs_kill_all(odd: Bench) -> None:
    server(odd, free_port(), bind_dev="deaf")
    server(odd, free_port(), bind_dev="deaf")
    server(odd, free_port())
    over = odd.ended(odd.task("iperf_server_start", port=free_port()))
    assert over.error == "this agent runs 3 tasks already (MAX_TASKS)"
    assert odd.result(over)["agent"]["error_class"] == "too_many"
    kill = odd.task("kill_all")
    assert killed(odd, kill) == 3


def test_killed_tasks_count_until_they_are_gone(bench: Bench) -> None:
    path = stand_in(bench.directory / "iperf3", BEHAVIOUR)
    bench.agent(IPERF3_PATH=path, STOP_GRACE=str(GRACE), MAX_TASKS="1").wait_for("registered")
    server(bench, free_port(), bind_dev="deaf")
    kill = bench.task("kill_all")
    over = bench.ended(bench.task("iperf_server_start", port=free_port()))
    assert bench.result(over)["agent"]["error_class"] == "too_many"
    assert killed(bench, kill) == 1
    assert over.finished_at and kill.finished_at and over.finished_at < kill.finished_at
    assert server(bench, free_port()).status == "succeeded"


def test_a_scoped_kill_all_ends_the_tasks_that_it_names_and_no_other(odd: Bench) -> None:
    named, other = server(odd, free_port()), server(odd, free_port())
    waiting = waiting_client(odd)
    kill = odd.task("kill_all", task_ids=[named.id, waiting.id, 999_999, 10**30, -1])
    assert killed(odd, kill) == 2, "an unknown number counts for nothing"
    assert odd.ended(waiting).error == "stopped by kill_all before the test began"
    until(lambda: odd.result(named)["agent"].get("ended") == "stopped by kill_all")
    assert is_running(odd.result(other)["pid"])
    assert killed(odd, odd.task("kill_all")) == 1


def test_a_scoped_kill_all_names_nothing_that_is_claimed_after_it(odd: Bench) -> None:
    deaf = server(odd, free_port(), bind_dev="deaf")
    following = deaf.id + 2
    kill = odd.task("kill_all", task_ids=[deaf.id, kill_id := deaf.id + 1, following])
    later = server(odd, free_port())
    assert (kill.id, later.id) == (kill_id, following)
    assert killed(odd, kill) == 1
    assert is_running(odd.result(later)["pid"])
    assert killed(odd, odd.task("kill_all", task_ids=[later.id])) == 1


def test_an_empty_scope_ends_nothing(odd: Bench) -> None:
    left = server(odd, free_port())
    assert killed(odd, odd.task("kill_all", task_ids=[])) == 0
    assert is_running(odd.result(left)["pid"])
    assert killed(odd, odd.task("kill_all")) == 1


@pytest.mark.parametrize(
    "scope", [None, 0, "all", {}, True, ["1"], [True], [None], [[1]], [1.5], [1, "2"], [1, {}]]
)
def test_a_scope_that_is_no_list_of_numbers_ends_nothing(odd: Bench, scope: Any) -> None:
    left = server(odd, free_port())
    kill = odd.ended(odd.task("kill_all", task_ids=scope))
    assert kill.status == "failed"
    words = "payload: task_ids must be a list of task numbers, not "
    assert kill.error == words + json.dumps(scope, separators=(",", ":"))
    assert odd.result(kill)["agent"]["error_class"] == "bad_payload"
    assert is_running(odd.result(left)["pid"])
    assert killed(odd, odd.task("kill_all")) == 1


def test_a_key_that_the_agent_does_not_know_is_logged(odd: Bench) -> None:
    kill = odd.task("kill_all", task_id=7)
    assert killed(odd, kill) == 0
    words = "payload keys that this agent does not know are ignored"
    odd.agents[0].wait_for(words, task_id=kill.id, keys=["task_id"])
