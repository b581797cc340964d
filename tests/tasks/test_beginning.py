"""The two deadlines of a client: until its test begins, which the Manager hears of, and after."""

import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest

from agent.dev.store.records import ManagedTask
from tests.support.command import stand_in
from tests.support.harness import Bench, free_port, iperf3_server
from tests.support.newer_iperf3 import newer_iperf3

# What an iperf3 server says on its control connection (iperf_api.h), after a cookie of 37 bytes.
PARAM_EXCHANGE, CREATE_STREAMS = b"\x09", b"\x0a"
COOKIE = 37
EITHER = pytest.mark.parametrize("suite", ["", "sid"])


def client(bench: Bench, port: int, suite: str = "", **payload: int) -> ManagedTask:
    """A client task of a second; a server that is away would be late after 6 s."""
    if not bench.agents:
        bench.agent(IPERF3_PATH=newer_iperf3(suite) if suite else "iperf3")
    given = {"time": 1, "connect_timeout_ms": 1000, **payload}
    return bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, **given)


@contextmanager
def server_without_streams() -> Iterator[int]:
    """A server that agrees to a test, and whose port takes no connection from then on."""

    def serve() -> None:
        control, _ = listener.accept()
        control.recv(COOKIE, socket.MSG_WAITALL)
        control.sendall(PARAM_EXCHANGE)
        (length,) = struct.unpack("!I", control.recv(4, socket.MSG_WAITALL))
        control.recv(length, socket.MSG_WAITALL)
        # The queue has room for one that nobody accepts.
        kept.append(socket.create_connection(listener.getsockname()))
        control.sendall(CREATE_STREAMS)
        kept.append(control)

    kept: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        serving = gevent.spawn(serve)
        yield listener.getsockname()[1]
        serving.get()
        for each in kept:
            each.close()


@EITHER
def test_a_test_whose_server_is_frozen_from_the_start_ends_before_it_began(
    bench: Bench, suite: str
) -> None:
    port = free_port()
    with iperf3_server(port) as server:
        os.kill(server.pid or 0, signal.SIGSTOP)
        try:
            task = bench.ended(client(bench, port, suite))
        finally:
            os.kill(server.pid or 0, signal.SIGCONT)
    assert task.error == "timed out after 6 s: the test had not begun by then"
    assert bench.result(task)["agent"]["error_class"] == "timed_out"
    assert task.started_at is None


@EITHER
def test_a_test_whose_server_freezes_ends_at_its_deadline(bench: Bench, suite: str) -> None:
    """Promise 10: the deadline is the time, the omit and 5 s after the test began."""
    port = free_port()
    with iperf3_server(port) as server:
        task = client(bench, port, suite, time=2, omit=1)
        bench.wait(lambda: task.status == "running")
        os.kill(server.pid or 0, signal.SIGSTOP)
        try:
            bench.ended(task)
        finally:
            os.kill(server.pid or 0, signal.SIGCONT)
    assert task.error == "timed out after 8 s: iperf3 had not ended by then"
    assert bench.result(task)["agent"]["error_class"] == "timed_out"


@EITHER
def test_a_test_whose_data_sockets_never_connect_ends_before_it_began(
    bench: Bench, suite: str
) -> None:
    with server_without_streams() as port:
        task = bench.ended(client(bench, port, suite, parallel=3))
    assert task.error == "timed out after 6 s: the test had not begun by then"
    assert task.started_at is None


@EITHER
@pytest.mark.parametrize("direction", ["reverse", "bidir", "udp"])
def test_the_manager_hears_of_a_test_when_it_begins(
    bench: Bench, suite: str, direction: str
) -> None:
    port = free_port()
    with iperf3_server(port):
        task = client(bench, port, suite, time=60, parallel=2, **{direction: True})
        bench.wait(lambda: task.status == "running")
        bench.store.tasks.cancel(task.id)
        bench.agents[0].wait_for("client ended", task_id=task.id)


ORPHAN = """
( (iperf3 "$@"; echo $? >"$0.code") & )
until [ -s "$0.code" ]; do sleep 0.1; done
exit $(cat "$0.code")
"""


def test_a_test_that_cannot_be_seen_is_taken_to_run_in_the_end(bench: Bench) -> None:
    """The sockets of an iperf3 that is nobody's child are not those of the agent's."""
    script = stand_in(bench.directory / "iperf3", ORPHAN)
    bench.agent(IPERF3_PATH=script)
    port = free_port()
    with iperf3_server(port):
        task = client(bench, port, time=17)
        bench.wait(lambda: task.started_at is not None)
        assert task.status == "running"
        assert bench.ended(task).status == "succeeded", task.error


SAYS_BUSY_LATE = """
printf '{"event":"start","data":{"test_start":{"protocol":"TCP"}}}\\n'
sleep 1
printf '{"event":"error","data":"the server is busy running a test. try again later"}\\n'
printf '{"event":"end","data":{}}\\n'
exit 1
"""


def test_a_server_that_is_busy_after_the_test_began_gets_no_second_one(bench: Bench) -> None:
    """It could have the whole test as often as the task may be attempted."""
    script = bench.directory / "iperf3"
    newest = newer_iperf3("sid")
    script.write_text(
        f"""#!/bin/sh\ncase "$1" in --version|--help) exec {newest} "$1";; esac\n{SAYS_BUSY_LATE}"""
    )
    script.chmod(0o755)
    bench.agent(IPERF3_PATH=str(script))
    task = bench.ended(client(bench, 1, max_retries=3, retry_delay_seconds=0))
    report = bench.result(task)["agent"]
    assert (report["error_class"], report["attempts"]) == ("busy", 1)


@EITHER
def test_a_number_of_bytes_gets_no_time_beyond_its_own(bench: Bench, suite: str) -> None:
    """iperf3 would go on for as long as it takes, and MAX_TEST_SECONDS holds for all that moves."""
    port = free_port()
    with iperf3_server(port):
        task = client(bench, port, suite, time=2, bytes=2**50, bitrate=1_000_000)
        bench.ended(task)
    assert task.error == "timed out after 2 s: iperf3 had not ended by then"
