"""Why a task failed, with real iperf3s on hosts with quirks."""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gevent
import pytest
from gevent import subprocess

from agent.dev.store.records import ManagedTask
from tests.support.harness import AGENT, Bench, free_port, iperf3_server, is_running
from tests.support.newer_iperf3 import newer_iperf3

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


@pytest.mark.parametrize("of_client", [True, False])
def test_noise_does_not_hide_why_a_server_has_ended(
    bench: Bench, program: MakeProgram, of_client: bool
) -> None:
    """As the warning of each server on a host without IPv6."""
    noisy = program("export LD_PRELOAD=/none.so", 'exec iperf3 "$@"')
    agent = bench.agent(IPERF3_PATH=noisy)
    server = bench.task("iperf_server_start", port=(port := free_port()), one_off=True)
    listens = agent.wait_for("server listens", task_id=server.id)
    task = client(bench, port)
    bench.wait(lambda: task.status == "running")
    if of_client:
        bench.ended(bench.task("kill_all", task_ids=[task.id]))
    else:
        os.kill(listens["pid"], signal.SIGTERM)
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    why = "the client has terminated" if of_client else "the server has terminated"
    assert bench.result(server)["agent"]["ended"].endswith(why)


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
    killed = number is signal.SIGKILL
    how = (
        "was killed by signal 9, not by this agent" if killed else f"ended by itself: {task.error}"
    )
    assert bench.result(server)["agent"]["ended"] == f"iperf3 {how}"


def of(suite: str) -> str:
    """The iperf3 of a newer Debian, or the installed one."""
    return newer_iperf3(suite) if suite else "iperf3"


@pytest.mark.parametrize("suite", ["", "trixie", "sid"])
def test_a_foreign_clients_title_does_not_cost_the_document(bench: Bench, suite: str) -> None:
    agent = bench.agent(IPERF3_PATH=of(suite))
    server = bench.task("iperf_server_start", port=(port := free_port()))
    agent.wait_for("server listens", task_id=server.id)
    test = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", "1M", "--title"]
    for title in (b"clean", b"caf\xe9 \xff"):
        subprocess.run([*test, title], stdout=subprocess.PIPE, check=True)
    bench.wait(lambda: b"caf?" in bytes(server.result))
    result = bench.result(server)
    assert "caf? ?" in (result["title"], result["start"].get("title", ""))
    assert result["end"]["sum_received"]
    agent.wait_for("a server's JSON was mended", task_id=server.id)


@pytest.mark.parametrize("suite", ["", "trixie", "sid"])
def test_what_a_server_says_of_a_test_that_failed_is_told(bench: Bench, suite: str) -> None:
    agent = bench.agent(IPERF3_PATH=of(suite), TMPDIR="/none")
    server = bench.task("iperf_server_start", port=(port := free_port()))
    agent.wait_for("server listens", task_id=server.id)
    socket.create_connection(("127.0.0.1", port)).close()
    for _ in range(2):
        test = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", "1M", "-J"]
        done = subprocess.run(test, stdout=subprocess.PIPE, check=False)
        assert b'"error"' in done.stdout
    line = agent.wait_for("a test failed on this server", task_id=server.id)
    assert line["error_class"] == "host_error" and "TMPDIR" in line["error"]
    assert bench.result(server)["started"] is True
    bench.ended(bench.task("kill_all"))
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    (warning,) = bench.result(server)["agent"]["warnings"]
    assert warning.startswith("a test failed here at 2") and line["error"] in warning
    told = [each for each in agent.lines if each["message"] == line["message"]]
    assert len(told) == 2, "each test once, and not the probe"


LAY_OUT = (
    "import json, sys; text = sys.stdin.read(); start = 0; dumps = json.JSONEncoder({}).encode\n"
    "while text[start:].strip():\n"
    "    found, start = json.JSONDecoder().raw_decode(text, start)\n"
    "    print(dumps(found)); start += len(text[start:]) - len(text[start:].lstrip())"
)


@pytest.mark.parametrize("suite", ["", "trixie"])
@pytest.mark.parametrize("layout", ["indent=2", "separators=(',', ':')"])
def test_a_wrapper_may_lay_out_what_a_client_writes(
    bench: Bench, program: MakeProgram, suite: str, layout: str
) -> None:
    """A stream of events as well."""
    script = bench.directory / "lay_out.py"
    script.write_text(LAY_OUT.format(layout))
    wrapper = program(
        f'case "$*" in *-c*) {of(suite)} "$@" | {sys.executable} {script};;',
        f'*) exec {of(suite)} "$@";; esac',
    )
    bench.agent(IPERF3_PATH=wrapper).wait_for("registered")
    with iperf3_server(port := free_port()):
        task = client(bench, port, time=1)
        assert class_of(bench, task) is None
    assert bench.result(task)["end"]["sum_received"]["bytes"] and bench.result(task)["intervals"]


def test_a_test_has_begun_when_all_is_connected_though_its_stream_is_held_back(
    bench: Bench, program: MakeProgram
) -> None:
    script = bench.directory / "lay_out.py"
    script.write_text(LAY_OUT.format(""))
    wrapper = program(
        f'case "$*" in *-c*) {of("trixie")} "$@" | {sys.executable} {script};;',
        f'*) exec {of("trixie")} "$@";; esac',
    )
    bench.agent(IPERF3_PATH=wrapper).wait_for("registered")
    with iperf3_server(port := free_port()):
        # It is given up after 6 s if nothing tells that it has begun.
        task = client(bench, port, time=9, connect_timeout_ms=100)
        assert class_of(bench, task) is None, task.error


def test_json_that_cannot_be_read_is_told_with_its_beginning(
    bench: Bench, program: MakeProgram
) -> None:
    broken = program('case "$*" in *-c*) echo \'{"start": }\';;', '*) exec iperf3 "$@";; esac')
    agent = bench.agent(IPERF3_PATH=broken)
    task = client(bench, free_port())
    assert class_of(bench, task) == "bad_output"
    assert task.error == 'iperf3 wrote JSON that cannot be read: {"start": }'
    agent.wait_for("iperf3 wrote JSON that cannot be read", task_id=task.id)


def processes(*arguments: str) -> list[int]:
    """The processes that run with these arguments among theirs, in this order."""
    marker = "\0".join(arguments)
    return [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if marker.encode() in read_quietly(path / "cmdline") and is_running(int(path.name))
    ]


def read_quietly(path: Path) -> bytes:
    """What a file of /proc holds; nothing when its process has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_wrappers_iperf3_ends_with_the_test(bench: Bench, program: MakeProgram) -> None:
    """The wrapper waits for it, and dies of TERM at once."""
    agent = bench.agent(IPERF3_PATH=program('iperf3 "$@"', "exit $?"))
    with iperf3_server(port := free_port()):
        task = client(bench, port, interval=0.1)
        bench.wait(lambda: task.status == "running")
        gevent.sleep(0.5)
        assert len(processes("-c", "127.0.0.1", "-p", str(port))) == 2
        bench.ended(bench.task("kill_all"))
        assert class_of(bench, task) == "killed"
        assert not processes("-c", "127.0.0.1", "-p", str(port))
        assert bench.result(task)["intervals"], "its partial document was waited for"
        assert class_of(bench, client(bench, port, time=1)) is None
        last = client(bench, port)
        bench.wait(lambda: last.status == "running")
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
        assert not processes("-c", "127.0.0.1", "-p", str(port))


def test_a_wrappers_server_listens_and_ends(bench: Bench, program: MakeProgram) -> None:
    agent = bench.agent(IPERF3_PATH=program('iperf3 "$@"', "exit $?"))
    server = bench.task("iperf_server_start", port=(port := free_port()))
    assert bench.ended(server).status == "succeeded", server.error
    assert class_of(bench, client(bench, port, time=1)) is None
    bench.wait(lambda: b'"end"' in bytes(server.result))
    bench.ended(bench.task("kill_all"))
    again = bench.ended(bench.task("iperf_server_start", port=port))
    assert again.status == "succeeded", again.error
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert not processes("-s", "-p", str(port))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file capabilities")
@pytest.mark.skipif(not shutil.which("setcap"), reason="setcap is not installed")
def test_a_server_that_cannot_be_looked_at_serves(bench: Bench) -> None:
    """Its file has capabilities, and the agent is not root."""
    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        program, state = Path(directory) / "iperf3", Path(directory) / "state"
        shutil.copy(shutil.which("iperf3") or "", program)
        subprocess.run(["setcap", "cap_net_raw+ep", str(program)], check=True)
        state.mkdir()
        os.chown(state, 65534, 65534)
        # It may read the interpreter, wherever that is.
        kept = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *kept, *AGENT)
        agent = bench.agent(program=nobody, IPERF3_PATH=str(program), STATE_DIR=str(state))
        server = bench.ended(bench.task("iperf_server_start", port=(port := free_port())))
        assert server.status == "succeeded", server.error
        said = "iperf3 hides its sockets: somebody listens on its port, so it does"
        agent.wait_for(said, task_id=server.id)
        assert class_of(bench, client(bench, port, time=1)) is None
        bench.ended(bench.task("kill_all"))
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0
