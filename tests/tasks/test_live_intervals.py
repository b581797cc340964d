"""An iperf3 that streams its intervals: they are seen live, and the result is as that of `-J`."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from agent.process.child import ChildProcess, Ending
from agent.process.watch import FLOODED, Watch
from agent.registry import INTERVALS_KEPT, TaskRegistry
from agent.tasks.client_output import StreamReader
from agent.tasks.recovery import INTERRUPTED
from tests.support.harness import PATIENCE, Bench, free_port, iperf3_server, until
from tests.support.newer_iperf3 import newer_iperf3
from tests.support.outbox import claimed
from tests.support.recorded_runs import paths, run

pytestmark = pytest.mark.process

# Debian 13's iperf3, and the newest one.
SUITES = ("trixie", "sid")


@pytest.fixture(name="iperf3", scope="module")
def fixture_iperf3() -> str:
    """The path of an iperf3 that can stream."""
    return newer_iperf3("trixie")


@pytest.fixture(name="port", scope="module")
def fixture_port() -> Iterator[int]:
    """A server of the installed iperf3."""
    port = free_port()
    with iperf3_server(port):
        yield port


@pytest.fixture(name="live", scope="module")
def fixture_live(tmp_path_factory: pytest.TempPathFactory, iperf3: str) -> Iterator[Bench]:
    """A dev Manager with agent a1 running, whose iperf3 can stream."""
    bench = Bench(Store(), tmp_path_factory.mktemp("live"))
    bench.manager.start()
    try:
        bench.agent(IPERF3_PATH=iperf3, HEARTBEAT_INTERVAL="0.2", STOP_GRACE="1")
        bench.agents[0].wait_for("registered")
        yield bench
    finally:
        bench.close()


def client(bench: Bench, port: int, **payload: Any) -> ManagedTask:
    """A client task of a minute over loopback, unless the payload says otherwise."""
    given = {"server_ip": "127.0.0.1", "time": 60, "interval": 0.2, "bitrate": 50_000_000}
    return bench.task("iperf_client_run", port=port, **{**given, **payload})


def measuring(bench: Bench, task: ManagedTask) -> float:
    """Wait until a heartbeat has the rate of a test; returns the rate."""

    def rate() -> float | None:
        rows = {row.task_id: row for row in bench.running[1]}
        return rows[task.id].bits_per_second if task.id in rows else None

    bench.wait(rate)
    return rate() or 0.0


def left(bench: Bench) -> list[str]:
    """The names of the files of children."""
    return os.listdir(bench.directory / "state-1" / "children")


def test_heartbeats_carry_the_rate_of_a_running_test(live: Bench, port: int) -> None:
    task = client(live, port)
    assert 25e6 < measuring(live, task) < 100e6
    (row,) = live.running[1]
    assert row.retransmits is not None and row.retransmits >= 0
    live.store.tasks.cancel(task.id)
    live.wait(lambda: not live.running[1])


def test_a_udp_test_has_a_rate_and_no_retransmits(live: Bench, port: int) -> None:
    task = client(live, port, udp=True)
    assert 25e6 < measuring(live, task) < 100e6
    assert [row.retransmits for row in live.running[1]] == [None]
    live.store.tasks.cancel(task.id)
    live.wait(lambda: not live.running[1])


@pytest.mark.parametrize("suite", SUITES)
def test_the_result_of_a_stream_has_the_shape_of_a_document(
    bench: Bench, port: int, suite: str
) -> None:
    """Compared with the same command line with -J, and with a document of 3.12."""
    kinds: dict[str, dict[str, Any]] = {
        "tcp": {"time": 1},
        "tcp-bytes": {"bytes": 1_000_000},
        "tcp-reverse": {"bytes": 1_000_000, "reverse": True},
        "tcp-bidir": {"bytes": 1_000_000, "bidir": True},
        "udp": {"bytes": 1_000_000, "udp": True},
        "udp-reverse": {"bytes": 1_000_000, "udp": True, "reverse": True},
    }
    bench.agent(IPERF3_PATH=newer_iperf3(suite)).wait_for("registered")
    for case, payload in kinds.items():
        task = bench.ended(client(bench, port, **payload))
        document = bench.result(task)
        assert (task.status, task.error) == ("succeeded", None), case
        argv = document.pop("agent")["argv"]
        assert list(document) == ["start", "intervals", "end"], case
        argv[argv.index("--json-stream")] = "-J"
        usual = json.loads(subprocess.check_output(argv, timeout=20))
        assert set(paths(document)) == set(paths(usual)), case
        assert set(paths(json.loads(run("3.12", case).stdout))) <= set(paths(document)), case
    assert not left(bench)


def test_a_stopped_test_fails_and_keeps_its_intervals(live: Bench, port: int) -> None:
    task = client(live, port)
    measuring(live, task)
    live.ended(live.task("kill_all"))
    document = live.result(live.ended(task))
    assert (task.status, task.error) == ("failed", "stopped by kill_all")
    assert document["agent"]["error_class"] == "killed"
    assert document["intervals"] and document["end"]["sum_sent"]["bytes"]
    assert "interrupt" in document["error"]
    assert not left(live)


def test_the_intervals_of_a_killed_client_are_reported(live: Bench, port: int) -> None:
    """With `-J` there would be none."""
    task = client(live, port)
    measuring(live, task)
    os.kill(live.agents[0].wait_for("client started", task_id=task.id)["pid"], signal.SIGKILL)
    document = live.result(live.ended(task))
    assert (task.status, task.error) == ("failed", "iperf3 was ended by SIGKILL")
    assert document["intervals"] and document["end"] == {}
    assert not left(live)


def test_a_refused_test_is_retried_until_a_server_listens(live: Bench) -> None:
    port = free_port()
    task = client(live, port, time=1, max_retries=20, retry_delay_seconds=0.1)
    line = live.agents[0].wait_for("the server is not ready", task_id=task.id)
    assert "Connection refused" in line["why"]
    with iperf3_server(port):
        assert live.ended(task).status == "succeeded", task.error
    assert live.result(task)["agent"]["attempts"] >= 2
    assert not left(live)


@pytest.mark.parametrize(
    ("payload", "error_class", "words"),
    [
        ({"max_retries": 1, "retry_delay_seconds": 0}, "refused", "Connection refused"),
        ({"server_ip": "no-such-host.invalid"}, "unknown_host", "no-such-host|Name or service"),
        ({"congestion": "no-such-one"}, "arguments", "TCP_CONGESTION"),
        ({"length": 1048576, "udp": True}, "arguments", "block size"),
    ],
)
def test_a_test_that_never_began_fails_with_the_usual_class_and_message(
    live: Bench, payload: dict[str, Any], error_class: str, words: str
) -> None:
    port = free_port()
    with iperf3_server(port if error_class != "refused" else free_port()):
        task = live.ended(client(live, port, **payload))
    assert live.result(task)["agent"]["error_class"] == error_class, task.error
    assert any(word in (task.error or "") for word in words.split("|"))
    assert not left(live)


def test_a_busy_server_is_recognized(live: Bench, port: int) -> None:
    long = client(live, port)
    measuring(live, long)
    task = live.ended(client(live, port, max_retries=1, retry_delay_seconds=0.05))
    report = live.result(task)["agent"]
    assert (report["error_class"], report["attempts"]) == ("busy", 2)
    live.store.tasks.cancel(long.id)
    live.agents[0].wait_for("client ended", task_id=long.id)


def test_a_stream_that_grows_too_large_ends_the_test(bench: Bench, iperf3: str, port: int) -> None:
    bench.agent(IPERF3_PATH=iperf3, MAX_OUTPUT_BYTES="64K").wait_for("registered")
    task = bench.ended(client(bench, port, parallel=64, bitrate=1_000_000, interval=0.1))
    assert (task.error, task.status) == (FLOODED, "failed")
    assert bench.result(task)["agent"]["error_class"] == "bad_output"
    assert not left(bench)


def in_the_stream(bench: Bench, event: str) -> Callable[[], bool]:
    """Whether a child has written that event."""
    children = bench.directory / "state-1" / "children"
    words = f'"event":"{event}"'.encode()
    return lambda: any(words in file.read_bytes() for file in children.glob("*.stream"))


@pytest.mark.parametrize("event", ["interval", "end"])
def test_the_output_of_a_client_survives_its_killed_agent(
    bench: Bench, iperf3: str, port: int, event: str
) -> None:
    """A suspended agent does not see its client end; a killed agent ends its client."""
    agent = bench.agent(IPERF3_PATH=iperf3, HEARTBEAT_INTERVAL="0.2")
    task = client(bench, port, time=3 if event == "end" else 60)
    measuring(bench, task)
    agent.signal(signal.SIGSTOP)
    until(in_the_stream(bench, event))
    agent.signal(signal.SIGKILL)
    agent.exit_code()
    assert "client ended" not in str(agent.lines)
    bench.agent(IPERF3_PATH=iperf3)
    document = bench.result(bench.ended(task))
    assert document["start"]["test_start"] and document["intervals"]
    if event == "end":
        assert task.status == "succeeded", task.error
        assert document["end"]["sum_sent"]["bytes"]
    else:
        assert (task.status, task.error) == ("failed", INTERRUPTED)
        assert document["end"] == {}
    assert not left(bench)


def test_a_disk_without_space_for_the_document_fails_the_test(
    tmp_path: Path, bench: Bench, iperf3: str, port: int
) -> None:
    """There is space for the second stream, but not for its document as well."""
    if os.geteuid():
        pytest.skip("mounting a disk needs root")
    state = bench.directory / "state-1"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", state], check=True)
    try:
        agent = bench.agent(IPERF3_PATH=iperf3)
        given = {"time": 2, "parallel": 16, "interval": 0.1, "bitrate": 1_000_000}
        first = bench.ended(client(bench, port, **given))
        assert first.status == "succeeded", first.error
        agent.wait_for("result delivered", task_id=first.id)
        bench.wait(lambda: not os.listdir(state / "outbox"))
        free = os.statvfs(state)
        room = free.f_bavail * free.f_frsize - len(first.result) * 3 // 2
        (state / "filler").write_bytes(b"x" * room)
        second = bench.ended(client(bench, port, **given))
        assert bench.result(second)["agent"]["error_class"] == "state_full", second.error
        assert "No space left on device" in (second.error or "")
        assert not left(bench)
    finally:
        bench.close()
        subprocess.run(["umount", "--lazy", state], check=True)


def test_each_interval_counts_once_and_omitted_ones_add_no_retransmits(tmp_path: Path) -> None:
    """The child runs on after its output, so that the output is read twice."""
    said = tmp_path / "said"
    said.write_bytes(
        run("3.22", "stream-tcp-omit").stdout.replace(b'"retransmits":0', b'"retransmits":7')
    )
    entry = TaskRegistry().enter(claimed(7))
    argv = ["sh", "-c", 'cat "$0"; sleep 1.2', str(said)]
    child = ChildProcess(argv, tmp_path / "7.1.stream", tmp_path / "7.1.err")
    reader = StreamReader(child.stdout, entry)
    watch = Watch(child, entry.stop.ordered, 1024**2, reader.read_new)
    assert watch.wait(PATIENCE) is Ending.ENDED
    assert (len(entry.intervals), entry.retransmits) == (2, 7)
    assert entry.bits_per_second == sum(entry.intervals) / 2


def test_an_entry_has_the_latest_intervals_of_its_latest_child() -> None:
    registry = TaskRegistry()
    entry = registry.enter(claimed(7))
    entry.record_start(1)
    for number in range(INTERVALS_KEPT):
        entry.record_rates([number, number + 0.5], 1 if number % 2 else None)
    last = INTERVALS_KEPT - 1
    assert len(entry.intervals) == INTERVALS_KEPT
    assert entry.intervals[-3:] == [last - 0.5, last, last + 0.5]
    (row,) = registry.rows()
    assert (row.bits_per_second, row.retransmits) == (last + 0.25, INTERVALS_KEPT // 2)
    entry.record_start(2)
    (row,) = registry.rows()
    assert (row.bits_per_second, row.retransmits, entry.intervals) == (None, None, [])
