"""The way to the Manager where only the kernel can tell: by a proxy's route, or by a zone."""

import os
import shutil
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent.server import DatagramServer

from agent.dev.server import DevManager
from agent.dev.store.store import Store
from tests.support.command import run
from tests.support.harness import Bench
from tests.support.needs import need
from tests.support.network import MANAGER, Network, network, run_ip
from tests.support.proxy import Proxy

need(
    sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip"),
    "network namespaces need Linux, root and iproute2",
)

OURS = "10.99.1.2"
NAME_SERVER = "127.0.0.53"
LINK_LOCAL = "fe80::99"


@pytest.fixture(name="cables")
def fixture_cables() -> Iterator[Network]:
    """Three hosts."""
    with network() as cables:
        yield cables


class NameServer(DatagramServer):
    """Knows `proxy.example` alone; `asked` are the names that it was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        super().__init__((NAME_SERVER, 53))  # type: ignore[no-untyped-call]

    def handle(self, data: bytes, address: tuple[str, int]) -> None:
        """Answer a question for an address."""
        end = data.index(b"\0", 12)
        name, kind, at = "", data[end + 1 : end + 3], 12
        while at < end:
            name += data[at + 1 : at + 1 + data[at]].decode() + "."
            at += 1 + data[at]
        self.asked.add(name.rstrip("."))
        known = name == "proxy.example."
        answer = known and kind == b"\0\1"
        head = data[:2] + struct.pack("!5H", 0x8180 if known else 0x8183, 1, answer, 0, 0)
        record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(MANAGER) if answer else b""
        self.socket.sendto(head + data[12 : end + 5] + record, address)


def test_only_the_proxys_name_is_looked_up_and_its_route_has_the_address(
    bench: Bench, cables: Network, tmp_path: Path
) -> None:
    configuration = tmp_path / "resolv.conf"
    configuration.write_text(f"nameserver {NAME_SERVER}\n")
    shell = f"mount --bind {configuration} /etc/resolv.conf && exec {sys.executable} -m agent $0"
    program = ("unshare", "--mount", "sh", "-c", shell, "--exit-after-idle=1")
    with cables.inside("agent"):
        names = NameServer()
        names.start()  # type: ignore[no-untyped-call]
    with cables.inside("manager"):
        way = Proxy(bench.manager.url, here=MANAGER)
    given = {
        "HTTP_PROXY": way.url.replace(MANAGER, "proxy.example"),
        "MANAGER_URL": "http://manager.example:8000",
        "HEARTBEAT_INTERVAL": "0.2",
    }
    with cables.inside("agent"):
        agent = bench.agent(program=program, **given)  # type: ignore[arg-type]
    assert agent.exit_code() == 0, agent.lines
    names.stop()  # type: ignore[no-untyped-call]
    way.stop()
    agent.wait_for("registered", address=OURS)
    assert way.asked and set(way.asked) == {"manager.example:8000"}
    assert names.asked == {"proxy.example"}


@pytest.mark.parametrize("percent", ["%25", "%"])
def test_a_link_local_url_works_with_its_zone(
    cables: Network, tmp_path: Path, percent: str
) -> None:
    bench = Bench(Store(), tmp_path)
    with cables.inside("manager"):
        run_ip("address", "add", f"{LINK_LOCAL}/64", "dev", "agent", "nodad")
        bench.manager = DevManager(bench.store, "::", 0)
        bench.manager.start()
    try:
        url = f"http://[{LINK_LOCAL}{percent}manager]:{bench.manager.port}"
        with cables.inside("agent"):
            agent = bench.agent("--exit-after-idle=0.5", MANAGER_URL=url, HEARTBEAT_INTERVAL="0.2")
            agent.wait_for("registered", timeout=10)
            assert agent.exit_code() == 0
            ended = run("--check", cwd=tmp_path, MANAGER_URL=url, AGENT_KEY="key-1")
        address = agent.wait_for("registered")["address"]
        assert address.startswith("fe80::")
        agent.wait_for("other hosts cannot reach this address", address=address)
        assert address in ended.output and f"{url} answers" in ended.output
        assert bench.store.agents.get(1).last_heartbeat
    finally:
        bench.close()
