"""The limits of a host's owner hold for what its servers send and receive, whoever asks them."""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from tests.support.harness import ROOT, Bench, free_port, iperf3_server
from tests.support.newer_iperf3 import newer_iperf3

NOWHERE = subprocess.DEVNULL  # type: ignore[attr-defined]


def foreign(port: int, *options: str, seconds: int = 8, program: str = "iperf3") -> float:
    """Test against a server of an agent's as anybody might; returns how many seconds it took."""
    began = time.monotonic()
    argv = [program, "-c", "127.0.0.1", "-p", str(port), "-t", str(seconds), *options]
    subprocess.run(argv, stdout=NOWHERE)
    return time.monotonic() - began


def server(bench: Bench, **payload: Any) -> tuple[Any, int]:
    """The task of a server that listens, and its port."""
    port = free_port()
    task = bench.ended(bench.task("iperf_server_start", port=port, **payload))
    assert task.status == "succeeded", task.error
    return task, port


def why_ended(bench: Bench, task: Any) -> dict[str, Any]:
    """The report of a server that has ended; it stays a success."""
    bench.wait(lambda: b'"ended"' in bytes(task.result))
    assert task.status == "succeeded"
    return dict(bench.result(task)["agent"])


@pytest.mark.parametrize("suite", ["", "sid"])
def test_a_server_that_moves_more_than_its_owner_allows_is_ended(bench: Bench, suite: str) -> None:
    program = newer_iperf3(suite) if suite else "iperf3"
    bench.agent(MAX_BITRATE="10M", IPERF3_PATH=program).wait_for("registered")
    ways = ["-R", "", "-u -b 0", "-u -b 0 -R", "--bidir -b 8M", "-b 15M -P 3"]
    ways += ["-b 50M --skip-rx-copy", "-u -b 50M --gsro -R"] if suite else ["-R -Z"]
    for way in ways:
        task, port = server(bench)
        assert foreign(port, *way.split(), program=program) < 6, way
        agent = why_ended(bench, task)
        assert agent["error_class"] == "not_allowed", way
        assert "is over this agent's MAX_BITRATE of 10000000" in agent["ended"], way
        whose = "bit/s, for whomever" if "gsro" in way else "bit/s, both ways together"
        assert whose in agent["ended"], way


def test_a_server_below_its_limits_is_left_alone_and_so_is_each_of_several(bench: Bench) -> None:
    """The limit is for each server: two at nine tenths of it are together above it."""
    bench.agent(MAX_BITRATE="10M", MAX_TEST_SECONDS="5").wait_for("registered")
    servers = [server(bench) for _ in range(4)]
    ways = ["-b 9M", "-b 9M -R -Z", "-b 4M --bidir", "-u -b 9M -R"]
    argv = ["iperf3", "-t", "4", "-c", "127.0.0.1", "-p"]
    tests = [
        subprocess.Popen([*argv, str(port), *way.split()], stdout=NOWHERE)
        for way, (_, port) in zip(ways, servers, strict=True)
    ]
    assert [test.wait() for test in tests] == [0, 0, 0, 0]
    for task, _ in servers:
        bench.wait(lambda task=task: b'"end"' in bytes(task.result))  # type: ignore[misc]
        agent = bench.result(task)["agent"]
        assert "ended" not in agent and "error_class" not in agent
        assert agent["interface"] == "lo"
        assert agent["path"]["rtt_ms"] > 0
        assert set(agent["host"]) >= {"nic", "softnet_dropped"}
    task, port = servers[0]
    # What the first test left of the limit is not the next one's.
    foreign(port, "-R", "-b", "20M", seconds=5)
    agent = why_ended(bench, task)
    assert agent["error_class"] == "not_allowed"
    bench.ended(bench.task("kill_all"))


@pytest.mark.parametrize("way", ["-n 60M -P 64", "-u -b 0 -n 20M", "-n 3M -R"])
def test_many_short_tests_are_held_to_the_limit_together(bench: Bench, way: str) -> None:
    """Each is over before it is looked at twice."""
    bench.agent(MAX_BITRATE="10M").wait_for("registered")
    task, port = server(bench)
    argv = ["iperf3", "-c", "127.0.0.1", "-p", str(port), *way.split()]
    # No test moves less than 3 MB: these are some hundred seconds' worth.
    for _ in range(50):
        subprocess.run(argv, stdout=NOWHERE, stderr=NOWHERE)
        if b'"ended"' in bytes(task.result):
            break
    agent = why_ended(bench, task)
    assert agent["error_class"] == "not_allowed"
    assert "this agent's MAX_BITRATE of 10000000" in agent["ended"]


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_the_first_blocks_of_many_streams_are_no_excess(bench: Bench, reverse: bool) -> None:
    """Each stream sends its block of a MiB at once, and the next one seven seconds later."""
    bench.agent(MAX_BITRATE="10M").wait_for("registered")
    task, port = server(bench)
    given: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "time": 9, "parallel": 8}
    given |= {"length": 2**20, "reverse": reverse, "bitrate": 1_250_000}
    client = bench.ended(bench.task("iperf_client_run", **given))
    assert client.status == "succeeded", client.error
    bench.wait(lambda: b'"end"' in bytes(task.result))
    assert "ended" not in bench.result(task)["agent"]


def test_a_served_test_has_what_was_seen_of_itself_or_nothing(bench: Bench) -> None:
    """Of a test that is over after 10 ms nothing is seen, as a rule."""
    bench.agent().wait_for("registered")
    task, port = server(bench)
    ports = {0}
    for options in ["-M 500 -t 2", *["-n 8K"] * 8]:
        argv = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-R", *options.split()]
        subprocess.run(argv, stdout=NOWHERE, check=True)
        bench.wait(lambda: client_port(bench, task) not in ports)
        ports.add(client_port(bench, task))
        agent = bench.result(task)["agent"]
        assert ("interface" in agent) == ("mtu" in agent) == ("path" in agent) == ("host" in agent)
        if "-n" in options:
            assert agent.get("path", {}).get("mss", 1000) > 500
        else:
            assert agent["path"]["mss"] < 500


def client_port(bench: Bench, task: Any) -> int:
    """The port of the client of the test that a server has reported; 0 for none."""
    start = bench.result(task).get("start", {})
    return int(start.get("accepted_connection", {}).get("port", 0))


@pytest.mark.slow
def test_a_test_that_takes_longer_than_the_owner_allows_is_ended(bench: Bench) -> None:
    """Tests in a row are each allowed the time."""
    bench.agent(MAX_TEST_SECONDS="1").wait_for("registered")
    task, port = server(bench)
    for _ in range(2):
        assert 4 <= foreign(port, "-b", "1M", seconds=4) < 6
    bench.wait(lambda: b'"end"' in bytes(task.result))
    assert foreign(port, "-b", "10M", "-l", "1K", seconds=20) < 12
    agent = why_ended(bench, task)
    assert agent["error_class"] == "not_allowed"
    assert agent["ended"] == "the test took longer than this agent's MAX_TEST_SECONDS of 1"


def test_a_client_is_held_to_the_bitrate_as_well(bench: Bench) -> None:
    """A server need not keep to the bitrate that a client asks it for."""
    bench.agent(number=2).wait_for("registered")
    task, port = server_of_second(bench)
    hasty = bench.directory / "iperf3"
    # Stands for an iperf3 that takes no heed of it; it is not the agent's own child either.
    hasty.write_text('#!/bin/sh\nfor word; do [ "$word" = 10000000 ] && set -- "$@" -b 0; done\n')
    hasty.write_text(hasty.read_text() + 'iperf3 "$@"\nexit $?\n')
    hasty.chmod(0o755)
    bench.agent(MAX_BITRATE="10M", IPERF3_PATH=str(hasty)).wait_for("registered")
    given: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "time": 8}
    client = bench.ended(bench.task("iperf_client_run", **given, bitrate=10**7, reverse=True))
    assert client.status == "failed"
    assert bench.result(client)["agent"]["error_class"] == "not_allowed"
    assert "MAX_BITRATE of 10000000" in (client.error or "")
    assert task.status == "succeeded"


@pytest.mark.slow
def test_a_test_that_makes_up_for_a_pause_is_within_its_bitrate(bench: Bench) -> None:
    """Also when the pause has left the 30 s that count, and what was made up for it has not."""
    bench.agent(MAX_BITRATE="10M").wait_for("registered")
    with iperf3_server(port := free_port()) as other:
        given: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "bitrate": 10**7}
        client = bench.task("iperf_client_run", **given, time=45)
        bench.wait(lambda: client.status == "running")
        time.sleep(3)
        os.kill(other.pid or 0, signal.SIGSTOP)
        time.sleep(6)
        os.kill(other.pid or 0, signal.SIGCONT)
        bench.ended(client, timeout=70)
    assert client.status == "succeeded", client.error


def server_of_second(bench: Bench) -> tuple[Any, int]:
    """The task of a server of agent a2, and its port."""
    port = free_port()
    task = bench.ended(bench.task("iperf_server_start", number=2, port=port))
    assert task.status == "succeeded", task.error
    return task, port


def names(figures: dict[str, Any], prefix: str) -> Iterator[str]:
    """The names of figures, those of inner objects with the outer ones before them."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from names(value, f"{prefix}{name}.")
        else:
            assert isinstance(value, int | float), name
            yield f"{prefix}{name}"


def test_every_figure_of_a_result_is_documented_and_there_are_no_others(bench: Bench) -> None:
    text = (ROOT / "docs" / "diagnosis.md").read_text()
    tables = [text.partition(f"| `agent.{name}` |")[2] for name in ("path", "host")]
    rows = "".join(table.partition("\n\n")[0] for table in tables)
    documented = re.findall(r"^\| `([a-z0-9_.]+)` \|", rows, re.MULTILINE)
    bench.agent().wait_for("registered")
    task, port = server(bench)
    seen: set[str] = set()
    for udp in (False, True):
        given: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "time": 2, "udp": udp}
        client = bench.ended(bench.task("iperf_client_run", **given, bitrate=10**7))
        assert client.status == "succeeded", client.error
        bench.wait(lambda: b'"end"' in bytes(task.result))
        for each in (client, task):
            agent = bench.result(each)["agent"]
            assert agent["interface"] == "lo"
            seen |= {*names(agent["path"], "path."), *names(agent["host"], "host.")}
    assert sorted(seen) == sorted(documented)


def test_a_connection_that_a_wrapper_has_of_its_own_is_not_the_tests(
    bench: Bench, tmp_path: Path
) -> None:
    """It has one to a log host, for as long as its iperf3 runs."""
    with socket.create_server(("127.0.0.1", 0)) as log_host:
        wrapper = tmp_path / "wrapper"
        wrapper.write_text(
            f"#!{sys.executable}\nimport socket, subprocess, sys\n"
            f"log = socket.create_connection({log_host.getsockname()})\n"
            "sys.exit(subprocess.call(['iperf3', *sys.argv[1:]]))\n"
        )
        wrapper.chmod(0o755)
        bench.agent(MAX_BITRATE="10M", IPERF3_PATH=str(wrapper)).wait_for("registered")
        task, port = server(bench)
        assert foreign(port, "-b", "50M") < 6
        assert why_ended(bench, task)["error_class"] == "not_allowed"
        with iperf3_server(port := free_port()):
            given: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "time": 2}
            run = bench.ended(bench.task("iperf_client_run", bitrate=5_000_000, **given))
        assert run.status == "succeeded", run.error
        assert bench.result(run)["agent"]["path"]["rtt_ms"] > 0
