"""Each option of a payload, and what iperf3 reports of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.protocol import ClientPayload
from agent.protocol.payloads import LOGINS
from tests.support.harness import Bench, free_port, iperf3_server
from tests.support.newer_iperf3 import newer_iperf3

Document = dict[str, Any]
OWN_PORT = free_port()


@pytest.fixture(name="port", scope="module")
def fixture_port() -> Iterator[int]:
    """The port of an iperf3 server that serves all tests of this module."""
    port = free_port()
    with iperf3_server(port):
        yield port


def asked(document: Document, name: str) -> Any:
    """One value of the test that iperf3 reports."""
    return document["start"]["test_start"][name]


def stream(document: Document, name: str) -> Any:
    """One value of the first stream's connection."""
    return document["start"]["connected"][0][name]


def words(document: Document) -> str:
    """The command line, with a space at either end."""
    return f" {' '.join(document['agent']['argv'])} "


def timed(document: Document) -> bool:
    """Whether it was a test of one second in quarters, after an omitted one."""
    times = asked(document, "duration"), asked(document, "omit")
    return times == (1, 1) and len(document["intervals"]) >= 6


CASES: list[tuple[dict[str, Any], Callable[[Document], object]]] = [
    ({"bytes": 50_000}, lambda d: asked(d, "bytes") == 50_000),
    ({"bytes": None, "time": 1, "omit": 1, "interval": 0.25}, timed),
    ({"parallel": 3}, lambda d: asked(d, "num_streams") == 3 == len(d["end"]["streams"])),
    ({"reverse": True}, lambda d: asked(d, "reverse") == 1),
    ({"bidir": True}, lambda d: d["end"]["sum_sent_bidir_reverse"]["bytes"] > 0),
    ({"udp": True}, lambda d: asked(d, "protocol") == "UDP" and " -b 0 " in words(d)),
    ({"udp": True, "bitrate": 10**7}, lambda d: " -b 10000000 " in words(d)),
    ({"bitrate": 10**8, "burst": 3}, lambda d: " -b 100000000/3 " in words(d)),
    ({"fq_rate": 10**9}, lambda d: " --fq-rate 1000000000 " in words(d)),
    ({"length": 4096}, lambda d: asked(d, "blksize") == 4096),
    ({"window": 65536}, lambda d: d["start"]["sock_bufsize"] == 65536),
    ({"mss": 1000}, lambda d: d["start"]["tcp_mss"] == 1000),
    ({"congestion": "reno"}, lambda d: d["end"]["sender_tcp_congestion"] == "reno"),
    ({"tos": 16}, lambda d: asked(d, "tos") == 16),
    ({"dscp": "ef"}, lambda d: asked(d, "tos") == 46 << 2),
    ({"dscp": 10}, lambda d: asked(d, "tos") == 10 << 2),
    ({"no_delay": True, "zerocopy": True}, lambda d: " -N -Z " in words(d)),
    ({"server_ip": "::1"}, lambda d: stream(d, "remote_host") == "::1"),
    ({"server_ip": "::1", "flow_label": 7}, lambda d: " -L 7 " in words(d)),
    ({"server_ip": "localhost", "ip_version": 4}, lambda d: stream(d, "remote_host")[:4] == "127."),
    ({"bind": "127.0.0.3"}, lambda d: stream(d, "local_host") == "127.0.0.3"),
    ({"bind_dev": "lo"}, lambda d: " --bind-dev lo " in words(d)),
    ({"cport": OWN_PORT}, lambda d: stream(d, "local_port") == OWN_PORT),
    ({"affinity": 0}, lambda d: " -A 0 " in words(d)),
    ({"affinity": "0,0"}, lambda d: " -A 0,0 " in words(d)),
    ({"connect_timeout_ms": 700}, lambda d: " --connect-timeout 700 " in words(d)),
    ({"udp": True, "dont_fragment": True}, lambda d: " --dont-fragment " in words(d)),
    ({"udp": True, "udp_counters_64bit": True}, lambda d: " --udp-counters-64bit " in words(d)),
    ({"reverse": True, "rcv_timeout_ms": 900}, lambda d: " --rcv-timeout 900 " in words(d)),
    ({"snd_timeout_ms": 900}, lambda d: " --snd-timeout 900 " in words(d)),
]
# Options that are newer than the oldest iperf3, and what its own command line has of them.
NEWER: list[tuple[dict[str, Any], str]] = [
    ({"cntl_ka": "20/5/3", "skip_rx_copy": True}, " --cntl-ka=20/5/3 --skip-rx-copy "),
    ({"mptcp": True, "cntl_ka": True}, " --cntl-ka -m "),
    ({"udp": True, "gsro": True}, " --gsro "),
]


@pytest.mark.parametrize(("payload", "holds"), CASES, ids=[str(payload) for payload, _ in CASES])
def test_iperf3_runs_the_test_that_the_payload_asks_for(
    working: Bench, port: int, payload: dict[str, Any], holds: Callable[[Document], object]
) -> None:
    task = working.task("iperf_client_run", **{**usual(port), **payload})
    assert working.ended(task).status == "succeeded", task.error
    document = working.result(task)
    assert holds(document), document["start"]


@pytest.mark.parametrize(
    ("payload", "error_class", "words_of_iperf3"),
    [
        ({"flow_label": 7}, "arguments", "unable to set IPv6 flow label"),
        ({"congestion": "nonesuch"}, "arguments", "unable to set TCP_CONGESTION"),
        ({"bind_dev": "nonesuch0"}, "arguments", "No such device"),
        ({"udp": True, "zerocopy": True, "length": 65536}, "arguments", "block size"),
    ],
)
def test_a_refusal_by_iperf3_is_reported_in_its_own_words(
    working: Bench, port: int, payload: dict[str, Any], error_class: str, words_of_iperf3: str
) -> None:
    task = working.task("iperf_client_run", **{**usual(port), **payload})
    assert working.ended(task).status == "failed"
    assert words_of_iperf3 in (task.error or "")
    assert working.result(task)["agent"]["error_class"] == error_class


@pytest.mark.parametrize("keys", [{}, {"reverse": True}, {"bidir": True}])
def test_a_core_that_the_servers_host_may_lack_is_named(
    working: Bench, port: int, keys: dict[str, Any]
) -> None:
    """A server without it hangs up, and only a newer one says why. At UDP, a client may hang."""
    payload = {**usual(port), **keys, "affinity": "0,999"}
    task = working.ended(working.task("iperf_client_run", **payload))
    assert (task.status, working.result(task)["agent"]["error_class"]) == ("failed", "peer_lost")
    assert "the server's host may have no core 999" in (task.error or "")


def test_a_newer_iperf3_runs_what_only_it_has(bench: Bench) -> None:
    bench.agent(IPERF3_PATH=newer_iperf3("sid"))
    port = free_port()
    keys: dict[str, Any] = {
        "cntl_ka": "20/5/3",
        "mptcp": True,
        "idle_timeout": 60,
        "rcv_timeout_ms": 5000,
    }
    server = bench.ended(bench.task("iperf_server_start", port=port, **keys))
    assert server.status == "succeeded", server.error
    argv = " ".join(bench.result(server)["agent"]["argv"])
    assert " --idle-timeout 60 --rcv-timeout 5000 --cntl-ka=20/5/3 -m" in argv
    for payload, expected in NEWER:
        task = bench.ended(bench.task("iperf_client_run", **{**usual(port), **payload}))
        assert task.status == "succeeded", task.error
        assert expected in words(bench.result(task))


def test_every_key_of_a_client_payload_is_tested_here() -> None:
    tried = {key for payload, _ in [*CASES, *NEWER] for key in payload} | set(usual(1))
    elsewhere = {"client_delay_seconds", *LOGINS[0], "use_pkcs1_padding"}
    assert set(ClientPayload.__struct_fields__) == tried | elsewhere


def usual(port: int) -> dict[str, Any]:
    """A short test over loopback, which waits for the one before it to be over."""
    return {
        "server_ip": "127.0.0.1",
        "port": port,
        "time": 5,
        "bytes": 100_000,
        "max_retries": 5,
        "retry_delay_seconds": 0.05,
    }
