"""Hosts that do not tell what a diagnosis needs: tests run as ever, and it says what is missing."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from gevent import subprocess

from agent.dev.store.records import ManagedTask
from tests.support.harness import AgentProcess, Bench, free_port
from tests.support.poor_hosts import stand_in, with_proc, without_sock_diag

pytestmark = [pytest.mark.process, pytest.mark.slow]
# By protocol and task, what is missing where it is not the same for all.
Missing = dict[tuple[str, str], list[str]]
NOTHING: Missing = {}
SOCKETS: Missing = {
    (protocol, kind): ["sockets"] for protocol in ("tcp", "udp") for kind in ("client", "server")
}
ONLY_PROCESSES: Missing = {
    ("tcp", "client"): ["softnet_dropped", "tcp_wmem_max"],
    ("tcp", "server"): ["softnet_dropped", "tcp_rmem_max"],
    ("udp", "client"): ["softnet_dropped"],
    ("udp", "server"): ["softnet_dropped"],
}
OLD_KERNEL: Missing = {
    ("tcp", "client"): [
        *("in_flight_to_window", "window_bytes", "window_floor", "needless", "reordered")
    ],
    ("tcp", "server"): ["rcv_wnd", "out_of_order"],
}
# A struct tcp_info of Linux 4.10 has so many bytes.
CUT = """
from agent.diagnosis import sockets
whole = sockets.attributes
sockets.attributes = lambda content: {
    kind: value[:192] if kind == 2 else value for kind, value in whole(content).items()
}
"""
MAC = """
import agent.cli.command, psutil, sys
sys.platform = "darwin"
"""
HIDING = with_proc("-t", "proc", "-o", "hidepid=2", nobody=True)
HOSTS = [
    pytest.param(HIDING, False, NOTHING, id="hidepid=2"),
    pytest.param(HIDING, True, SOCKETS, id="hidepid=2, iperf3 with capabilities"),
    pytest.param(with_proc("-t", "proc", nobody=True), True, SOCKETS, id="capabilities alone"),
    pytest.param(with_proc("-t", "proc", "-o", "subset=pid"), False, ONLY_PROCESSES, id="subset"),
    pytest.param(with_proc("-t", "tmpfs"), False, SOCKETS, id="no /proc"),
    pytest.param(without_sock_diag(), False, SOCKETS, id="no sock_diag"),
    pytest.param(stand_in(CUT), False, OLD_KERNEL, id="an old kernel"),
    pytest.param(stand_in(MAC), False, SOCKETS, id="macOS"),
]


@pytest.fixture(name="directory")
def fixture_directory() -> Iterator[Path]:
    """A directory with a copy of iperf3 and a `state`, which nobody may use."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        shutil.copy(shutil.which("iperf3") or "", Path(name) / "iperf3")
        (Path(name) / "state").mkdir()
        os.chown(Path(name) / "state", 65534, 65534)
        yield Path(name)


def reports(bench: Bench) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """What clients and servers report of a test of each protocol, both of which must succeed."""
    tasks: dict[tuple[str, str], ManagedTask] = {}
    # Long enough for a second look at a server's host where that is busy.
    asked: dict[str, Any] = {"server_ip": "127.0.0.1", "time": 4, "bitrate": 10**7}
    for protocol in ("tcp", "udp"):
        asked |= {"port": free_port(), "udp": protocol == "udp"}
        server = bench.ended(bench.task("iperf_server_start", port=asked["port"]))
        assert server.status == "succeeded", server.error
        tasks[protocol, "server"] = server
        tasks[protocol, "client"] = bench.task("iperf_client_run", **asked)
    for task in tasks.values():
        bench.wait(lambda: task.status == "failed" or b'"end"' in bytes(task.result))
        assert task.status == "succeeded", task.error
    yield from ((key, bench.result(task)["agent"]) for key, task in tasks.items())


def without_a_bug(agent: AgentProcess) -> bool:
    """Whether its log has no error."""
    return all(isinstance(line, dict) and line["level"] != "error" for line in agent.lines)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts and becomes another user")
@pytest.mark.skipif(not shutil.which("setcap"), reason="setcap is not installed")
@pytest.mark.parametrize(("host", "has_capabilities", "missing"), HOSTS)
def test_a_test_succeeds_on_any_host_and_its_result_says_what_is_missing(
    bench: Bench,
    directory: Path,
    host: Sequence[str],
    has_capabilities: bool,
    missing: Missing,
) -> None:
    program = str(directory / "iperf3")
    if has_capabilities:
        subprocess.run(["setcap", "cap_net_raw+ep", program], check=True)
    agent = bench.agent(program=host, IPERF3_PATH=program, STATE_DIR=str(directory / "state"))
    for key, report in reports(bench):
        diagnosis, lacks = report["diagnosis"], missing.get(key, [])
        assert diagnosis["evidence"]["missing"] == lacks, key
        # What was asked for and carried the document says.
        assert (diagnosis["limited_by"], diagnosis["sure"]) == ("target_rate", True)
        is_seen = lacks != ["sockets"]
        assert [bool(report.get(name)) for name in ("path", "host")] == [is_seen, is_seen]
        assert report.get("interface") == ("lo" if is_seen or "client" in key else None)
        assert report["figures"]["received"] > 0.9e7
    assert bench.ended(bench.task("kill_all")).status == "succeeded"
    bench.ends_well(agent)
    assert without_a_bug(agent), agent.lines
