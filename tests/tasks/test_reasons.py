"""Why a task failed, with real iperf3s on hosts with quirks."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.dev.store.records import ManagedTask
from tests.support.harness import Bench, free_port, iperf3_server

MakeProgram = Callable[..., str]


@pytest.fixture(name="program")
def fixture_program(tmp_path: Path) -> MakeProgram:
    """Makes a shell script to be run as iperf3."""

    def make(*lines: str) -> str:
        path = tmp_path / "program"
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)
        return str(path)

    return make


def client(bench: Bench, port: int, **payload: Any) -> ManagedTask:
    """A client task over loopback, of a minute unless the payload says otherwise."""
    given: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "time": 60, "max_retries": 0}
    return bench.task("iperf_client_run", **{**given, **payload})


def class_of(bench: Bench, task: ManagedTask) -> object:
    """The error class of a task that has ended; None for none."""
    return bench.result(bench.ended(task))["agent"].get("error_class")


def test_noise_of_the_loader_makes_no_iperf3_missing(bench: Bench, program: MakeProgram) -> None:
    noisy = program("export LD_PRELOAD=/none.so", 'exec iperf3 "$@"')
    bench.agent(IPERF3_PATH=noisy).wait_for("registered")
    with iperf3_server(port := free_port()):
        assert class_of(bench, client(bench, port, time=1)) is None
    assert class_of(bench, client(bench, free_port())) == "refused"


@pytest.mark.parametrize(
    ("number", "error_class"), [(signal.SIGSEGV, "crashed"), (signal.SIGKILL, "killed")]
)
def test_a_signal_counts_more_than_noise(
    bench: Bench, program: MakeProgram, number: signal.Signals, error_class: str
) -> None:
    agent = bench.agent(IPERF3_PATH=program("echo noise >&2", 'exec iperf3 "$@"'))
    server = bench.task("iperf_server_start", port=(port := free_port()))
    listens = agent.wait_for("server listens", task_id=server.id)
    task = client(bench, port)
    started = agent.wait_for("client started", task_id=task.id)
    bench.wait(lambda: task.status == "running")
    os.kill(started["pid"], number)
    assert class_of(bench, task) == error_class
    assert task.error == f"iperf3 was ended by {number.name}; before that it wrote: noise"
    os.kill(listens["pid"], number)
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    ended = bench.result(server)["agent"]["ended"]
    assert ended == (
        "iperf3 was killed by signal 9, not by this agent"
        if number is signal.SIGKILL
        else f"iperf3 ended by itself: {task.error}"
    )
