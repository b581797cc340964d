"""Tasks whose iperf3 floods, stays deaf, stands still, talks nonsense or is watched too late.

The stand-in does as the target's name, or a server's device name, tells it.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from tests.support.command import stand_in
from tests.support.harness import Bench, free_port, iperf3_server, is_running, until

BEHAVIOURS = r"""
case "$*" in
*"-c floods "*|*"--bind-dev floods"*)
    trap '' TERM
    while :; do head -c 50000 /dev/zero; echo '{"{"'; sleep 0.05; done;;
*"-c complains "*|*"--bind-dev complains"*)
    while :; do head -c 50000 /dev/zero | tr '\0' x >&2; sleep 0.05; done;;
*"-c mutters "*)
    head -c 1000000 /dev/zero | tr '\0' '\n' >&2
    shift 2
    exec iperf3 -c 127.0.0.1 "$@";;
*"--bind-dev mutters"*)
    (sleep 0.5; head -c 1100000 /dev/zero >&2) &
    exec iperf3 -s -p "$3" -J;;
*"-c deaf "*)
    trap '' TERM
    echo deaf >&2
    while :; do sleep 0.05; done;;
*"-c stands-still "*)
    kill -STOP $$;;
*"-c leaves-a-child "*)
    sleep 60 & echo $! >grandchild;;
*"-c shows-its-environment "*)
    env >environment;;
*"-c talks "*)
    echo 'WARNING: stray text { "a": '
    shift 2
    exec iperf3 -c 127.0.0.1 "$@";;
*"--bind-dev slow"*)
    sleep 0.5
    exec iperf3 -s -p "$3" -J;;
*"--bind-dev mute"*)
    exec sleep 60;;
*)
    exec iperf3 "$@";;
esac
"""


@pytest.fixture(name="odd", scope="module")
def fixture_odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench whose agent has the stand-in for iperf3."""
    bench = Bench(Store(), tmp_path_factory.mktemp("odd"))
    bench.manager.start()
    try:
        bench.agent(
            IPERF3_PATH=stand_in(bench.directory / "iperf3", BEHAVIOURS),
            MAX_OUTPUT_BYTES="65536",
            STOP_GRACE="0.3",
            HEARTBEAT_INTERVAL="0.2",
        ).wait_for("registered")
        yield bench
    finally:
        bench.close()


def run(bench: Bench, behaviour: str, port: int = 1) -> ManagedTask:
    """A client task of one second against a target that is a behaviour."""
    return bench.task("iperf_client_run", server_ip=behaviour, port=port, time=1, max_retries=0)


def pid_of(bench: Bench, task: ManagedTask) -> int:
    """The process id of the task's child, once it runs."""
    return int(bench.agents[0].wait_for("client started", task_id=task.id)["pid"])


def end_all(bench: Bench) -> None:
    """Have everything stopped by a kill_all."""
    assert bench.ended(bench.task("kill_all")).status == "succeeded"


def error_class(bench: Bench, task: ManagedTask) -> str:
    """The error class of an ended task."""
    return str(bench.result(bench.ended(task))["agent"].get("error_class", ""))


def test_a_client_that_floods_its_output_is_killed_and_the_agent_lives_on(odd: Bench) -> None:
    task = run(odd, "floods")
    assert error_class(odd, task) == "bad_output"
    assert task.error == "iperf3 wrote more than MAX_OUTPUT_BYTES and was stopped"
    assert not is_running(pid_of(odd, task))
    seen = odd.store.agents.get(1).last_heartbeat
    odd.wait(lambda: odd.store.agents.get(1).last_heartbeat != seen)


STDERR_FLOODED = "iperf3 wrote more than 1 MiB to stderr and was stopped"


def test_a_client_that_floods_its_stderr_is_stopped(odd: Bench) -> None:
    task = run(odd, "complains")
    assert error_class(odd, task) == "bad_output"
    assert task.error == STDERR_FLOODED
    assert not is_running(pid_of(odd, task))


def test_a_server_that_floods_its_stderr_before_it_listens_fails_as_bad_output(odd: Bench) -> None:
    task = odd.task("iperf_server_start", port=free_port(), bind_dev="complains")
    assert error_class(odd, task) == "bad_output"
    assert task.error == STDERR_FLOODED


def test_a_server_that_floods_its_stderr_is_stopped(odd: Bench) -> None:
    task = odd.ended(odd.task("iperf_server_start", port=free_port(), bind_dev="mutters"))
    odd.wait(lambda: b'"ended"' in bytes(task.result))
    assert odd.result(task)["agent"]["ended"] == STDERR_FLOODED
    assert not is_running(odd.result(task)["pid"])


def test_a_megabyte_on_stderr_costs_no_test_its_result(odd: Bench) -> None:
    port = free_port()
    with iperf3_server(port):
        task = odd.ended(run(odd, "mutters", port))
    assert task.status == "succeeded", task.error


def test_a_server_that_floods_before_it_listens_fails_as_bad_output(odd: Bench) -> None:
    task = odd.task("iperf_server_start", port=free_port(), bind_dev="floods")
    assert error_class(odd, task) == "bad_output"
    assert task.error == "iperf3 wrote more than MAX_OUTPUT_BYTES and was stopped"


def test_stray_text_in_front_of_the_document_is_skipped(odd: Bench) -> None:
    port = free_port()
    with iperf3_server(port):
        task = odd.ended(run(odd, "talks", port))
    assert task.status == "succeeded", task.error
    assert odd.result(task)["end"]["sum_sent"]["bytes"] > 0


def test_a_client_that_ignores_term_is_killed_after_the_grace(odd: Bench) -> None:
    task = run(odd, "deaf")
    pid = pid_of(odd, task)
    until(lambda: b"deaf" in written_by(odd, task))
    end_all(odd)
    assert error_class(odd, task) == "killed"
    assert task.error == "stopped by kill_all"
    assert odd.agents[0].wait_for("client ended", task_id=task.id)["exit_code"] == -signal.SIGKILL
    assert not is_running(pid)


def test_a_client_that_ignores_the_end_of_its_time_as_well_is_killed(odd: Bench) -> None:
    """Promise 10: its time of one second, 5 more, and the grace."""
    task = run(odd, "deaf")
    assert error_class(odd, task) == "timed_out"
    assert task.error == "timed out after 6 s: iperf3 had not ended by then"
    assert odd.agents[0].wait_for("client ended", task_id=task.id)["exit_code"] == -signal.SIGKILL


def test_a_client_that_stands_still_is_ended_by_term(odd: Bench) -> None:
    task = run(odd, "stands-still")
    pid = pid_of(odd, task)
    until(lambda: state_of(pid) == "T")
    end_all(odd)
    assert odd.agents[0].wait_for("client ended", task_id=task.id)["exit_code"] == -signal.SIGTERM
    assert not is_running(pid)


def test_a_grandchild_that_holds_the_output_ends_with_the_task(odd: Bench) -> None:
    task = run(odd, "leaves-a-child")
    assert error_class(odd, task) == "bad_output"
    grandchild = int((odd.directory / "grandchild").read_text())
    until(lambda: not is_running(grandchild))


def test_the_key_is_not_in_the_environment_of_a_child(odd: Bench) -> None:
    odd.ended(run(odd, "shows-its-environment"))
    shown = (odd.directory / "environment").read_text()
    assert "PATH=" in shown
    assert "key-1" not in shown and "AGENT" not in shown


def test_a_server_is_no_success_before_it_listens(odd: Bench) -> None:
    task = odd.task("iperf_server_start", port=free_port(), bind_dev="slow")
    started = odd.agents[0].wait_for("server started", task_id=task.id)
    assert odd.ended(task).status == "succeeded", task.error
    lines = [line for line in odd.agents[0].lines if line.get("task_id") == task.id]
    listens = odd.agents[0].wait_for("server listens", task_id=task.id)
    assert listens["timestamp"] > started["timestamp"]
    assert sum(line["message"] == "server listens" for line in lines) == 1
    end_all(odd)


def test_a_server_that_is_stopped_before_it_listens_has_failed(odd: Bench) -> None:
    task = odd.task("iperf_server_start", port=free_port(), bind_dev="mute")
    odd.agents[0].wait_for("server started", task_id=task.id)
    end_all(odd)
    assert error_class(odd, task) == "killed"
    assert task.error == "stopped by kill_all"


def test_no_file_of_a_child_outlives_its_task(odd: Bench) -> None:
    end_all(odd)
    children = odd.directory / "state-1" / "children"
    until(lambda: not list(children.iterdir()))


def test_a_server_that_dies_is_noticed_within_a_second(odd: Bench) -> None:
    """Seen at the Manager within 10 ms in 20 runs."""
    task = odd.ended(odd.task("iperf_server_start", port=free_port()))
    assert task.status == "succeeded", task.error
    odd.wait(lambda: [row for row in odd.running[1] if row.task_id == task.id])
    began = time.monotonic()
    os.kill(odd.result(task)["pid"], signal.SIGKILL)
    odd.wait(lambda: b'"ended"' in bytes(task.result))
    seconds = time.monotonic() - began
    print(f"noticed after {seconds:.3f} s")
    why = "iperf3 was killed by signal 9, not by this agent"
    assert odd.result(task)["agent"]["ended"] == why
    assert task.status == "succeeded"
    odd.wait(
        lambda: not [row for row in odd.running[1] if row.task_id == task.id],
    )


def state_of(pid: int) -> str:
    """The state of a process, as one letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def written_by(bench: Bench, task: ManagedTask) -> bytes:
    """What the task's first child has written to stderr."""
    children = bench.directory / "state-1" / "children"
    return b"".join(path.read_bytes() for path in children.glob(f"{task.id}.1.*.err"))
