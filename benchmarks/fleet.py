"""What agents ask of a Manager, and what one costs its host: the figures of docs/deployment.md.

Agent processes of their own work for a dev Manager in this process, through a relay that counts
their connections and requests. All together it takes four minutes.
"""

from gevent import monkey

monkey.patch_all()

import re  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from functools import partial  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from gevent import socket  # noqa: E402
from gevent.server import StreamServer  # noqa: E402

from agent.dev.store.store import Store  # noqa: E402
from agent.service.claims import QUIET_AFTER  # noqa: E402
from benchmarks.bench import bench_of  # noqa: E402
from benchmarks.figures import Figure, Floor, once, progress, show  # noqa: E402
from benchmarks.host import cpu_seconds, memory, rates  # noqa: E402
from tests.support.harness import AgentProcess, free_port  # noqa: E402

AGENTS = 10
TIMES = 100
SECONDS = 40
COST_SECONDS = 25
TESTS = 20
MIB = 1024**2


def main() -> Iterator[Figure]:
    """What one agent costs, and then what a thousand ask for."""
    yield from host_costs()
    yield from host_costs(f"127.0.0.1:{free_port()}")
    # Only counted, so that they do not disturb each other.
    both = [gevent.spawn(list, requests(extensions)) for extensions in (True, False)]
    gevent.joinall(both, raise_error=True)
    for figures in both:
        yield from figures.get()


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


def a_thousand(relay: Relay, what: str) -> Iterator[Figure]:
    """Count for SECONDS; what TIMES as many agents would do in one."""
    progress(f"{AGENTS} agents, {what}")
    names = ("heartbeat", "tasks/claim", "connections")
    counts = rates(SECONDS, *(partial(relay.counts.__getitem__, name) for name in names))
    for name, rate in zip(names, counts):
        of = f"{AGENTS} agents times {TIMES}, {what}"
        note = f"counted for {SECONDS} s"
        yield Figure(f"{of}: {name}", rate.times(TIMES), "a second", note=note)


def requests(extensions: bool) -> Iterator[Figure]:
    """The requests of idle agents, with a Manager that holds claims or with one that does not."""
    with bench_of(Store(extensions=extensions)) as bench:
        relay = Relay(bench.manager.port)
        for number in range(3, AGENTS + 1):
            bench.store.agents.add(f"a{number}", f"key-{number}")
        for number in range(1, AGENTS + 1):
            bench.agent(number=number, MANAGER_URL=relay.url, CLAIM_INTERVAL="")
        for agent in bench.agents:
            agent.wait_for("registered")
        if extensions:
            yield from a_thousand(relay, "claims held")
            return
        yield from a_thousand(relay, "polling each second")
        gevent.sleep(max(0.0, QUIET_AFTER - SECONDS) + 5)
        yield from a_thousand(relay, "polling each 3 s")


def host_costs(page: str = "") -> Iterator[Figure]:
    """What one agent costs its host: idle, and the one with a status page with TESTS tests too."""
    with bench_of() as bench:
        # An empty setting is one that is not made.
        agent = bench.agent(CLAIM_INTERVAL="", STATUS_ADDRESS=page)
        agent.wait_for("registered")
        gevent.sleep(5)
        yield from cost(agent, f"agent with {'a' if page else 'no'} status page, idle")
        if not page:
            return
        ports = [free_port() for _ in range(TESTS)]
        servers = [bench.task("iperf_server_start", port=port) for port in ports]
        bench.wait(lambda: all(task.status == "succeeded" for task in servers), 60)
        yield from cost(agent, f"agent with {TESTS} servers")
        for port in ports:
            bench.task(
                "iperf_client_run",
                server_ip="127.0.0.1",
                port=port,
                time=COST_SECONDS * 3,
                bitrate=1_000_000,
            )
        gevent.sleep(10)
        yield from cost(agent, f"agent with {TESTS} servers and {TESTS} clients of 1 Mbit/s")


def cost(agent: AgentProcess, what: str) -> Iterator[Figure]:
    """Memory and CPU of the agent and of its children, over COST_SECONDS."""
    progress(what)
    children = psutil.Process(agent.pid).children()
    pids = [child.pid for child in children]
    own, theirs = rates(
        COST_SECONDS, lambda: cpu_seconds(agent.pid) * 1000, lambda: busy(pids) * 1000
    )
    resident = once(memory(agent.pid, "VmRSS") / MIB)
    yield Figure(f"{what}: memory", resident, "MiB", floors=(Floor.RESIDENT,))
    yield Figure(f"{what}: CPU", own, "ms/s", floors=(Floor.CALLS,))
    if not children:
        return
    pss = sum(child.memory_full_info().pss for child in children) / len(children) / MIB
    rss = sum(memory(pid, "VmRSS") for pid in pids) / len(children) / MIB
    note = f"{len(children)} children, with what all share {rss:.1f} MiB (RSS)"
    yield Figure(f"{what}: memory of a child (PSS)", once(pss), "MiB", note=note)
    yield Figure(f"{what}: CPU of all {len(children)} children", theirs, "ms/s")


def busy(pids: list[int]) -> float:
    """Seconds of CPU that these processes have had."""
    return sum(map(cpu_seconds, pids))


if __name__ == "__main__":
    show(main())
