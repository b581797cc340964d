"""Client tasks with real iperf3: what is measured, and how failures are reported."""

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from agent.dev.store.records import ManagedTask
from agent.process.spawn import capture_output
from tests.support.command import stand_in
from tests.support.harness import Bench, free_port, iperf3_server


@pytest.fixture(name="port", scope="module")
def fixture_port() -> Iterator[int]:
    """The port of an iperf3 server that serves all tests of this module."""
    port = free_port()
    with iperf3_server(port):
        yield port


def client(bench: Bench, port: int, **payload: Any) -> ManagedTask:
    """A client task of a few bytes over loopback, once it has ended."""
    given: dict[str, Any] = {"server_ip": "127.0.0.1", "time": 2, "bytes": 100_000}
    return bench.ended(bench.task("iperf_client_run", port=port, **{**given, **payload}))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"reverse": True, "parallel": 2}, ["-R", "-P", "2"]),
        ({"bidir": True, "no_delay": True, "congestion": "reno"}, ["--bidir", "-N", "-C", "reno"]),
        ({"server_ip": "::1", "ip_version": 6, "flow_label": 7}, ["-6", "-L", "7"]),
        ({"udp": True, "bitrate": 10**6, "burst": 5, "length": 1000}, ["-b", "1000000/5"]),
        ({"udp": True, "bitrate": 10**6, "udp_counters_64bit": True}, ["--udp-counters-64bit"]),
        ({"udp": True, "bitrate": 10**6, "dont_fragment": True}, ["--dont-fragment"]),
        ({"udp": True, "length": 9000}, ["-u", "-b", "0"]),
        ({"bytes": 10**6, "interval": 0.5, "window": 65536}, ["-n", "1000000", "-i", "0.5"]),
        ({"mss": 1000, "zerocopy": True, "dscp": "ef", "fq_rate": 10**9}, ["-M", "1000", "-Z"]),
        ({"tos": 16, "affinity": "0,0", "omit": 1, "ip_version": 4}, ["-S", "16", "-O", "1"]),
        ({"bind": "127.0.0.1", "bind_dev": "lo", "server_ip": "localhost"}, ["-B", "127.0.0.1"]),
    ],
)
def test_iperf3_applies_every_option(
    working: Bench, port: int, payload: dict[str, Any], words: list[str]
) -> None:
    task = client(working, port, **payload)
    result = working.result(task)
    assert task.status == "succeeded", task.error
    assert set(words) <= set(result["agent"]["argv"])
    assert result["end"]


def test_the_client_uses_the_requested_source_port(working: Bench, port: int) -> None:
    own = free_port()
    task = client(working, port, cport=own)
    assert task.status == "succeeded", task.error
    assert working.result(task)["start"]["connected"][0]["local_port"] == own


def test_a_refused_test_is_retried_and_then_fails_without_having_started(working: Bench) -> None:
    task = client(working, free_port(), max_retries=2, retry_delay_seconds=0.05)
    assert task.status == "failed"
    assert "Connection refused" in (task.error or "")
    assert working.result(task)["agent"]["error_class"] == "refused"
    assert working.result(task)["agent"]["attempts"] == 3
    assert task.started_at is None


def test_a_retry_succeeds_once_the_server_is_up(working: Bench) -> None:
    port = free_port()
    given: dict[str, Any] = {
        "server_ip": "127.0.0.1",
        "port": port,
        "time": 1,
        "retry_delay_seconds": 0.5,
    }
    task = working.task("iperf_client_run", **given, max_retries=10)
    working.agents[0].wait_for("the server is not ready", task_id=task.id)
    with iperf3_server(port):
        assert working.ended(task).status == "succeeded", task.error
    assert working.result(task)["agent"]["attempts"] >= 2


def test_a_busy_server_is_retried(working: Bench, port: int) -> None:
    long = working.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=60)
    working.wait(lambda: long.status == "running")
    busy = client(working, port, max_retries=1, retry_delay_seconds=0.05)
    assert working.result(busy)["agent"]["error_class"] == "busy"
    assert working.result(busy)["agent"]["attempts"] == 2
    assert f"; this agent's task {long.id} has used it since 20" in (busy.error or "")
    assert "another test ran on this host" in str(working.result(busy)["agent"]["warnings"])
    assert long.status == "running"
    working.store.tasks.cancel(long.id)
    working.agents[0].wait_for("client ended", task_id=long.id)


@pytest.mark.parametrize(
    ("payload", "error_class", "words"),
    [
        ({"server_ip": "no-such-host.invalid"}, "unknown_host", "no-such-host"),
        ({"bind": "192.0.2.1"}, "arguments", "assign requested address"),
        ({"congestion": "no-such-one"}, "arguments", "congestion"),
        ({"bitrate": -1}, "bad_payload", "bitrate must be a whole number from 0"),
        ({"server_ip": "--help"}, "bad_payload", "a host name or an IP address"),
        ({"server_ip": "a..b"}, "bad_payload", 'host name or an IP address, not "a..b"'),
        ({"burst": 3, "bitrate": None}, "bad_payload", "burst"),
        ({"reverse": True, "bidir": True}, "bad_payload", "not both"),
    ],
)
def test_an_impossible_test_fails_at_once_and_says_why(
    working: Bench, port: int, payload: dict[str, Any], error_class: str, words: str
) -> None:
    task = client(working, port, **payload)
    agent = working.result(task)["agent"]
    assert task.status == "failed"
    assert agent["error_class"] == error_class, task.error
    assert agent.get("attempts", 0) <= 1
    assert words in f"{task.error} {agent.get('argv')}"


def test_an_unknown_task_type_fails_and_the_agent_continues(working: Bench, port: int) -> None:
    odd = working.ended(working.task("format_disk"))
    assert odd.status == "failed"
    assert "unknown task type 'format_disk'" in (odd.error or "")
    assert client(working, port).status == "succeeded"


def test_a_task_of_an_endless_type_fails_with_a_short_message(working: Bench) -> None:
    """The agent keeps the messages of its latest results, and its page shows them."""
    odd = working.ended(working.task("é" * 300_000))
    assert odd.error == (
        f"unknown task type '{'é' * 80}... (300000 characters)': "
        "this agent runs iperf_server_start, iperf_client_run, kill_all"
    )
    said = working.agents[0].wait_for("task claimed", task_id=odd.id)["type"]
    assert len(said) < 120


def test_an_unknown_payload_key_is_named_in_the_log(working: Bench, port: int) -> None:
    task = client(working, port, shiny=True)
    assert task.status == "succeeded"
    words = "payload keys that this agent does not know are ignored"
    assert working.agents[0].wait_for(words, task_id=task.id)["keys"] == ["shiny"]


def test_keys_that_nobody_knows_are_a_warning_in_each_result(working: Bench, port: int) -> None:
    def warnings(task: ManagedTask) -> list[str]:
        found: list[str] = working.result(working.ended(task))["agent"]["warnings"]
        # A test of so few bytes may have others.
        return [each for each in found if each.startswith("payload keys")]

    words = "payload keys that this agent does not know had no effect: "
    assert warnings(client(working, port, bitrat=5, paralel=2)) == [words + "bitrat, paralel"]
    (long,) = warnings(client(working, port, **{"x" * 1000: 1}))
    assert len(long) < 300
    server = working.ended(working.task("iperf_server_start", port=free_port(), one_of=True))
    assert warnings(server) == [words + "one_of"]
    assert warnings(working.task("kill_all", reason="end")) == [words + "reason"]
    working.wait(lambda: b'"ended"' in bytes(server.result))
    assert warnings(server) == [words + "one_of"]


def test_a_key_for_another_protocol_fails_the_test(working: Bench, port: int) -> None:
    task = client(working, port, sctp=True)
    assert task.status == "failed" and "does not know sctp" in (task.error or "")
    assert working.result(task)["agent"]["error_class"] == "unsupported"


def test_kill_all_ends_a_running_client_and_a_waiting_one(working: Bench, port: int) -> None:
    given: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "time": 60, "interval": 0.1}
    running = working.task("iperf_client_run", **given)
    working.wait(lambda: running.status == "running")
    gevent.sleep(0.5)
    waiting = working.task("iperf_client_run", **given, client_delay_seconds=60)
    retrying = working.task("iperf_client_run", **given, retry_delay_seconds=60)
    working.agents[0].wait_for("the server is not ready", task_id=retrying.id)
    kill = working.ended(working.task("kill_all"))
    assert working.result(kill)["count"] == 3
    for task in (running, waiting, retrying):
        assert working.ended(task).status == "failed"
        assert working.result(task)["agent"]["error_class"] == "killed"
        assert "stopped by kill_all" in (task.error or "")
    assert working.result(running)["intervals"], "the partial document is kept"


def test_a_test_canceled_at_the_manager_is_stopped(working: Bench, port: int) -> None:
    task = working.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=60)
    working.wait(lambda: task.status == "running")
    working.store.tasks.cancel(task.id)
    ended = working.agents[0].wait_for("client ended", task_id=task.id)
    assert ended["ending"] == "the agent stopped it"
    assert task.status == "canceled"


def test_a_test_canceled_before_it_runs_is_stopped_by_the_answer_to_started(
    todays_bench: Bench, port: int
) -> None:
    """Today's Manager has no cancel list: the agent learns it from the 400 to `started`."""
    agent = todays_bench.agent()
    given: dict[str, Any] = {
        "server_ip": "127.0.0.1",
        "port": port,
        "time": 60,
        "client_delay_seconds": 0.5,
    }
    task = todays_bench.task("iperf_client_run", **given)
    agent.wait_for("task claimed", task_id=task.id)
    todays_bench.store.tasks.cancel(task.id)
    ended = agent.wait_for("client ended", task_id=task.id)
    assert ended["ending"] == "the agent stopped it"


def test_tasks_fail_until_a_missing_iperf3_is_installed(bench: Bench, port: int) -> None:
    later = bench.directory / "iperf3"
    bench.agent(IPERF3_PATH=str(later)).wait_for("registered")
    task = client(bench, port)
    assert bench.result(task)["agent"]["error_class"] == "iperf3_missing"
    assert "install iperf3, or set IPERF3_PATH" in (task.error or "")
    later.write_text('#!/bin/sh\nexec iperf3 "$@"\n')
    later.chmod(0o755)
    assert client(bench, port).status == "succeeded"


def test_a_replaced_iperf3_is_asked_for_its_features(bench: Bench, port: int) -> None:
    """As in an upgrade; the iperf3 before says that it is 3.99 and can stream."""
    path = bench.directory / "iperf3"
    path.write_text("""#!/bin/sh
case "$1" in
--version) echo "iperf 3.99";;
--help) iperf3 --help; echo "  --json-stream  one object a line";;
esac
""")
    path.chmod(0o755)
    agent = bench.agent(IPERF3_PATH=str(path))
    assert agent.wait_for("agent starts")["iperf3"] == "3.99"
    stand_in(path, 'exec iperf3 "$@"')
    task = client(bench, port)
    assert task.status == "succeeded", task.error
    installed = capture_output(["iperf3", "--version"], 10).split()[1]
    assert bench.result(task)["agent"]["iperf3_version"] == installed
    assert agent.wait_for("iperf3 found")["version"] == installed


def test_the_limits_of_the_host_hold(bench: Bench, port: int) -> None:
    settings: dict[str, Any] = {
        "MAX_TEST_SECONDS": "2",
        "MAX_PARALLEL": "2",
        "MAX_BITRATE": "10M",
        "ALLOWED_TARGETS": "127.0.0.0/8",
        "MAX_TASKS": "1",
    }
    bench.agent(**settings).wait_for("registered")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"time": 3}, "MAX_TEST_SECONDS"),
        ({"parallel": 3}, "MAX_PARALLEL"),
        ({"parallel": 2, "bitrate": 6 * 10**6}, "MAX_BITRATE"),
        ({"server_ip": "::1", "bitrate": None}, "ALLOWED_TARGETS"),
    ]
    for payload, variable in refused:
        task = client(bench, port, **payload)
        assert bench.result(task)["agent"]["error_class"] == "not_allowed"
        assert variable in (task.error or "")
    plain: dict[str, Any] = {"ip_version": 4, "bitrate": None}
    allowed = client(bench, port, server_ip="localhost", parallel=2, **plain)
    argv = bench.result(allowed)["agent"]["argv"]
    assert allowed.status == "succeeded", allowed.error
    assert argv[argv.index("-b") + 1] == "5000000"
    assert argv[argv.index("-c") + 1] == "127.0.0.1"
    unknown = client(bench, port, server_ip="no-such-host.invalid", **plain)
    assert bench.result(unknown)["agent"]["error_class"] == "unknown_host"
    server = bench.ended(bench.task("iperf_server_start", port=free_port()))
    assert server.status == "succeeded"
    assert bench.result(client(bench, port, **plain))["agent"]["error_class"] == "too_many"
    assert bench.result(bench.ended(bench.task("kill_all")))["count"] == 1
