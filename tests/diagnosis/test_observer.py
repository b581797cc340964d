"""What is seen of real tests of real iperf3s, over loopback."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from agent.diagnosis import host
from agent.diagnosis.host import HostSample, bytes_between, figures_between, take_sample
from agent.diagnosis.observed import ObservedTest
from agent.diagnosis.observer import RUNNING, Observer
from tests.support.command import stand_in
from tests.support.harness import free_port, iperf3_server, until
from tests.support.newer_iperf3 import newer_iperf3

NOWHERE = subprocess.DEVNULL  # type: ignore[attr-defined]
TCP_PATH = {"rtt_ms", "min_rtt_ms", "pmtu", "mss", "cwnd_bytes", "window_bytes"}


@contextmanager
def running(
    *options: str, program: str = "iperf3", wrapper: str = "", out: Any = NOWHERE
) -> Iterator[list[Observer]]:
    """Observers of the client, which prints to `out`, and of the server of a test of 5 s."""
    with iperf3_server(port := free_port(), program=program) as server:
        argv = [wrapper or program, "-c", "127.0.0.1", "-p", str(port), "-t", "5", *options]
        with subprocess.Popen(argv, stdout=out) as client:
            try:
                yield [Observer(each.pid or 0, 5, RUNNING) for each in (client, server)]
            finally:
                client.kill()


def looked(observer: Observer) -> Observer:
    """The same, after a look."""
    observer.look()
    return observer


def seen(observer: Observer, streams: int, seconds: float = 0.4) -> ObservedTest:
    """The test once it has so many streams, and was looked at some time after that."""

    until(lambda: (test := looked(observer).test) and test.streams == streams)
    time.sleep(seconds)
    observer.look()
    assert observer.test
    return observer.test


@pytest.mark.process
@pytest.mark.parametrize("options", [[], ["-R"], ["--bidir"], ["-P", "3"], ["-u"], ["-u", "-R"]])
def test_both_sides_see_the_test_its_way_and_their_host(options: list[str]) -> None:
    streams = 3 if "-P" in options else 2 if "--bidir" in options else 1
    with running("-b", "50M", *options) as sides:
        client, server = (seen(each, streams, 1.0) for each in sides)
    for each in (client, server):
        assert each.interface.interface == "lo"
        assert 0 < (each.round_trip or 0) < 1
        assert (each.moved or 0) > 0
        figures = each.host()
        assert set(figures["nic"]) == {"rx_dropped", "tx_dropped", "errors"}
        assert 0 < sum(figures["iperf3_busiest_thread"].values()) < 1.2
        assert ("socket_drops" in figures) == ("-u" in options)
        assert {"softnet_dropped", "udp_receive_buffer_errors"} <= set(figures)
    sender, receiver = (server, client) if "-R" in options else (client, server)
    if "-u" in options:
        assert set(sender.path()) == {"rtt_ms", "min_rtt_ms", "pmtu"}
    else:
        assert set(sender.path()) == TCP_PATH
        assert sender.path()["rtt_ms"] >= sender.path()["min_rtt_ms"]
    if "-u" not in options and "--bidir" not in options:
        # It knows its own window, and no congestion window that means anything.
        assert set(receiver.path()) == TCP_PATH - {"mss", "cwnd_bytes"}


@pytest.mark.process
@pytest.mark.parametrize(
    ("options", "suite"),
    [
        (["-R", "-Z"], ""),
        (["-u"], ""),
        (["-u", "-R"], ""),
        (["--bidir"], ""),
        (["--skip-rx-copy"], "sid"),
        (["-u", "--gsro"], "sid"),
        (["-u", "--gsro", "-R"], "sid"),
    ],
)
def test_what_a_test_moves_is_counted_whichever_way_it_moves(
    options: list[str], suite: str
) -> None:
    program = newer_iperf3(suite) if suite else "iperf3"
    with running("-b", "40M", *options, program=program) as (_, server):
        first = seen(server, 2 if "--bidir" in options else 1).moved or 0
        began = time.monotonic()
        later = seen(server, 2 if "--bidir" in options else 1, 1.0).moved or 0
        rate = (later - first) * 8 / (time.monotonic() - began)
    most = 10**12 if "--gsro" in options else 1.5 * 40e6 * (2 if "--bidir" in options else 1)
    # Of `--gsro` it is what the interface carries, whoever it is for.
    assert 0.5 * 40e6 < rate < most


@pytest.mark.process
def test_what_iperf3_reports_meanwhile_is_not_what_its_test_moves(tmp_path: Path) -> None:
    """Its stream of 16 reports ten times a second is more than the datagrams."""
    options = ["-u", "-b", "20K", "-l", "100", "-P", "16", "-i", "0.1", "--json-stream"]
    with (tmp_path / "out").open("wb") as out:
        with running(*options, program=newer_iperf3("sid"), out=out) as (client, _):
            first, began = seen(client, 16).moved or 0, time.monotonic()
            moved = (seen(client, 16, 2.0).moved or 0) - first
            assert (tmp_path / "out").stat().st_size > 50_000
    assert moved * 8 / (time.monotonic() - began) < 1.3 * 16 * 20e3


@pytest.mark.process
@pytest.mark.parametrize("udp", [[], ["-u"]])
def test_a_wrapper_is_seen_as_the_iperf3_that_it_has_started(
    udp: list[str], tmp_path: Path
) -> None:
    wrapper = stand_in(tmp_path / "iperf3", 'iperf3 "$@"\nexit $?')
    with running("-b", "40M", *udp, wrapper=wrapper) as (client, server):
        wrapped, plain = seen(client, 1, 1.0), seen(server, 1, 1.0)
    assert (wrapped.moved or 0) > 2_000_000
    assert wrapped.peer == plain.peer == "127.0.0.1"
    assert set(wrapped.host()) == set(plain.host())
    assert set(wrapped.path()) >= {"rtt_ms", "pmtu"}


@pytest.mark.process
@pytest.mark.parametrize("looks_between", [True, False])
def test_each_test_of_a_server_is_told_from_the_one_before(looks_between: bool) -> None:
    with iperf3_server(port := free_port()) as server:
        observer = Observer(server.pid or 0, None, RUNNING)
        observer.look()
        assert observer.test is None
        inodes: list[int] = []
        for _ in range(2):
            argv = ["iperf3", "-c", "::1", "-p", str(port), "-t", "5", "-b", "1M"]
            with subprocess.Popen(argv, stdout=NOWHERE) as client:
                if inodes and not looks_between:
                    # It has begun when it is looked at next.
                    time.sleep(1)
                inodes.append(seen(observer, 1, 0).inode)
                client.kill()
            if looks_between:
                until(lambda: looked(observer).test is None)
                assert observer.finished and observer.finished.inode == inodes[-1]
    assert len(set(inodes)) == 2


@pytest.mark.process
def test_looks_come_at_first_sight_each_second_and_just_before_the_end() -> None:
    with running("-b", "1M") as (client, server):
        assert client.wait < 0.1
        began = seen(client, 1, 0.3).began
        assert client.wait == pytest.approx(RUNNING)
        client._planned = time.monotonic() - began + 0.5
        client.look()
        assert client.wait == pytest.approx(0.42, abs=0.1)
        seen(server, 1, 0)


@pytest.mark.process
def test_looks_at_many_streams_are_rare_enough_to_take_a_quarter_per_cent() -> None:
    with running("-b", "10K", "-P", "128") as (client, _):
        seen(client, 128, 0)
        cost = time.thread_time()
        client.look()
        cost = time.thread_time() - cost
    assert client.wait >= cost * 200
    assert client.wait > RUNNING


@pytest.mark.process
def test_looks_at_a_test_with_a_limit_are_not_rare_whatever_its_streams() -> None:
    with running("-b", "10K", "-P", "128") as (client, _):
        limited = Observer(client.sockets.pid, None, 0.25)
        seen(limited, 128, 0)
        limited.look()
        assert 0.25 <= limited.wait <= 0.5


@pytest.mark.process
def test_a_host_that_tells_nothing_leaves_all_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is 0 that nobody has read."""
    nowhere = [(name, "/nowhere", pattern) for name, _, pattern in host._COUNTERS]
    monkeypatch.setattr(host, "_COUNTERS", nowhere)
    monkeypatch.setattr(host, "_DEVICES", "/nowhere")
    monkeypatch.setattr(host, "NETLINK_ROUTE", 31)
    with running("-b", "1M", "-u") as (client, _):
        test = seen(client, 1)
        assert set(test.host()) == {"iperf3_busiest_thread", "socket_drops"}
        assert test.moved is None
        monkeypatch.setattr("sys.platform", "darwin")
        other = Observer(client.sockets.pid, None, RUNNING)
        other.look()
    assert other.test is None


def test_a_process_that_has_ended_has_no_counters_of_its_own() -> None:
    sample = take_sample(2**22 + 1, "no-such-nic")
    assert not sample.threads
    assert set(sample.counters) <= {"softnet_dropped"}


def sample(at: float, threads: dict[str, tuple[float, float]], **counters: int) -> HostSample:
    """A sample of these threads and counters."""
    return HostSample(at, threads, counters)


def test_the_busiest_thread_is_the_one_that_ran_or_waited_most() -> None:
    first = sample(10, {"1": (5, 5), "2": (0, 0)})
    last = sample(20, {"1": (6, 5), "2": (3, 6), "3": (4, 1)})
    found = figures_between(first, last)
    assert found == {"iperf3_busiest_thread": {"run": 0.3, "waited": 0.6}}
    assert figures_between(first, sample(10.1, {"1": (6, 5)})) == {}


def test_what_rose_is_told_and_what_only_one_sample_has_is_not() -> None:
    first = sample(1, {}, rx_dropped=7, errors=1, softnet_dropped=3, io=1)
    last = sample(2, {}, rx_dropped=9, errors=1, udp_receive_buffer_errors=5, io=2)
    assert figures_between(first, last) == {"nic": {"rx_dropped": 2, "errors": 0}}


@pytest.mark.parametrize(
    ("seconds", "ran", "counters", "moved"),
    [
        (1, 0.5, {"io": 100, "rx_bytes": 9, "tx_bytes": 9}, 100),
        (1, 0.5, {"io": 0, "rx_bytes": 9, "tx_bytes": 7}, 9),
        (1, 0.0001, {"io": 0, "rx_bytes": 9, "tx_bytes": 7}, 0),
        # Two datagrams of a slow test are further apart than this.
        (0.1, 0.05, {"io": 0, "rx_bytes": 9, "tx_bytes": 7}, 0),
        (1, 0.5, {"rx_bytes": 9}, None),
    ],
)
def test_the_interface_counts_for_a_process_that_works_and_neither_reads_nor_writes(
    seconds: float, ran: float, counters: dict[str, int], moved: int | None
) -> None:
    first = sample(1, {"1": (1, 0)}, **dict.fromkeys(counters, 0))
    last = sample(1 + seconds, {"1": (1 + ran, 0)}, **counters)
    assert bytes_between(first, last, has_gsro=True) == (moved, moved == 9)
    # Without that option it waits for its next datagram.
    assert bytes_between(first, last, has_gsro=False) == (counters.get("io"), False)
