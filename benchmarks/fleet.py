"""What agents ask of a Manager, and what one costs its host: the figures of docs/deployment.md.

    python -m benchmarks.fleet

Takes four minutes. Agent processes of their own work for a dev Manager in this process, through a
relay that counts their connections and requests.
"""

from gevent import monkey

monkey.patch_all()

import re  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from pathlib import Path  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from gevent import socket  # noqa: E402
from gevent.server import StreamServer  # noqa: E402

from agent.dev.store import Store  # noqa: E402
from agent.loops import QUIET_AFTER  # noqa: E402
from tests.harness import AgentProcess, Bench, free_port  # noqa: E402

AGENTS = 10
SECONDS = 40
TESTS = 20
MIB = 1024**2


class Relay:
    """Stands before the Manager and counts. No request of an idle agent comes in two pieces."""

    def __init__(self, port: int) -> None:
        self.counts: Counter[str] = Counter()
        self._port = port
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _serve(self, agent: Any, _: object) -> None:
        self.counts["connections"] += 1
        with agent, socket.create_connection(("127.0.0.1", self._port)) as manager:
            answers = gevent.spawn(self._pass_on, manager, agent)
            while data := agent.recv(65536):
                for call in re.findall(rb"POST /v1/agent/(\S+)", data):
                    self.counts[call.decode()] += 1
                manager.sendall(data)
            answers.kill()

    def _pass_on(self, source: Any, target: Any) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        target.close()


def a_thousand(relay: Relay, what: str) -> None:
    """Count for SECONDS, and print what a thousand agents would do in one."""
    before = relay.counts.copy()
    gevent.sleep(SECONDS)
    rates = {
        name: (relay.counts[name] - before[name]) / SECONDS * 1000 / AGENTS
        for name in ("heartbeat", "tasks/claim", "connections")
    }
    said = ", ".join(f"{rate:.0f} {name}" for name, rate in rates.items())
    print(f"1,000 agents, {what}, in a second: {said}")


def requests(extensions: bool) -> None:
    """The requests of idle agents, with a Manager that holds claims or with one that does not."""
    with TemporaryDirectory() as directory:
        bench = Bench(Store(extensions=extensions), Path(directory))
        bench.manager.start()
        relay = Relay(bench.manager.port)
        for number in range(3, AGENTS + 1):
            bench.store.add_agent(f"a{number}", f"key-{number}")
        try:
            for number in range(1, AGENTS + 1):
                # An empty setting is one that is not made.
                bench.agent(number=number, MANAGER_URL=relay.url, CLAIM_INTERVAL="")
            for agent in bench.agents:
                agent.wait_for("registered")
            if extensions:
                a_thousand(relay, "claims held")
                return
            a_thousand(relay, "polling, a task in the last minute")
            gevent.sleep(max(0.0, QUIET_AFTER - SECONDS) + 5)
            a_thousand(relay, "polling, none")
        finally:
            bench.close()


def host_costs(**settings: str) -> None:
    """What one agent costs its host, idle and with TESTS tests that run."""
    with TemporaryDirectory() as directory:
        bench = Bench(Store(), Path(directory))
        bench.manager.start()
        try:
            agent = bench.agent(CLAIM_INTERVAL="", **settings)
            agent.wait_for("registered")
            gevent.sleep(5)
            print(f"agent with {settings or 'no status page'}, idle: {cost(agent)}")
            if not settings:
                return
            ports = [free_port() for _ in range(TESTS)]
            servers = [bench.task("iperf_server_start", port=port) for port in ports]
            bench.wait(lambda: all(task.status == "succeeded" for task in servers), 60)
            print(f"the same with {TESTS} servers: {cost(agent)}")
            for port in ports:
                bench.task(
                    "iperf_client_run",
                    server_ip="127.0.0.1",
                    port=port,
                    time=SECONDS * 3,
                    bitrate=1_000_000,
                )
            gevent.sleep(10)
            print(f"and {TESTS} clients of 1 Mbit/s beside them: {cost(agent)}")
        finally:
            bench.close()


def cost(agent: AgentProcess) -> str:
    """Memory and CPU of the agent and of its children, over half of SECONDS."""
    process = psutil.Process(agent.pid)
    children = process.children()
    began, own, theirs = time.monotonic(), busy([process]), busy(children)
    gevent.sleep(SECONDS / 2)
    passed = time.monotonic() - began
    words = f"{process.memory_info().rss / MIB:.0f} MiB, {millis(own, [process], passed)} ms CPU/s"
    if not children:
        return words
    pss = sum(child.memory_full_info().pss for child in children) / len(children) / MIB
    rss = sum(child.memory_info().rss for child in children) / len(children) / MIB
    spent = millis(theirs, children, passed)
    return f"{words}; {len(children)} children of {pss:.1f} MiB PSS ({rss:.1f} RSS), {spent} ms/s"


def busy(processes: list[psutil.Process]) -> float:
    """Seconds of CPU that these processes have had."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def millis(before: float, processes: list[psutil.Process], passed: float) -> str:
    """Milliseconds of CPU a second since `before`."""
    return f"{(busy(processes) - before) / passed * 1000:.1f}"


if __name__ == "__main__":
    host_costs()
    host_costs(STATUS_ADDRESS=f"127.0.0.1:{free_port()}")
    requests(extensions=True)
    requests(extensions=False)
