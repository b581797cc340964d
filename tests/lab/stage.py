"""Two real agents and a Manager that stay while scenes change the path between them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from agent.dev.server import DevManager
from agent.dev.store.records import ManagedTask
from agent.dev.store.store import Store
from agent.protocol import Report
from agent.protocol.results import read_report
from tests.lab.hosts import ENDS, MANAGER, Hosts, lab_hosts
from tests.lab.making import Place
from tests.lab.scenes import Scene
from tests.support.harness import Bench, until
from tests.support.newer_iperf3 import newer_iperf3

# The number of each end's agent.
_NUMBERS = {"client": 1, "server": 2}
# Seconds that a scene may take beyond its test: a long queue drains, a black hole is waited out.
_PATIENCE = 60.0
# Seconds after which a server whose client has ended waits in vain.
_LEFT_ALONE = 3.0
_FIRST_PORT = 5201


class Stage:
    """Plays scenes, one after the other.

    `programs` are links to the iperf3 of each end, which lead elsewhere where a scene says so.
    """

    def __init__(self, hosts: Hosts, bench: Bench, programs: dict[str, Path]) -> None:
        self._hosts, self._bench, self._programs = hosts, bench, programs
        self._port = _FIRST_PORT

    def play(self, scene: Scene) -> tuple[Report, Report]:
        """Run a scene's test; returns what the client's agent reports of it, and the server's."""
        self._port += 1
        port = self._port
        place = Place(
            self._hosts,
            scene.senders,
            scene.is_far,
            lambda end: self._pid(end, port),
            scene.version,
        )
        for end in ENDS:
            install(self._programs[end], scene.suite)
        with ExitStack() as stack:
            for maker in scene.makers:
                stack.enter_context(maker(place))
            server = self._bench.task("iperf_server_start", 2, port=port, one_off=True)
            self._bench.wait(lambda: server.status == "succeeded")
            payload = {
                "server_ip": place.addresses["server"],
                "port": port,
                "time": scene.seconds,
                "bitrate": None,
                "max_retries": 0,
                **scene.payload,
            }
            client = self._bench.task("iperf_client_run", 1, **payload)
            self._bench.ended(client, _PATIENCE)
            self._end(server)
        return _report(client), _report(server)

    def _end(self, server: ManagedTask) -> None:
        """Wait until a server has ended; one that nobody told of the end is stopped."""

        def has_ended() -> bool:
            return bool(_report(server).ended)

        if not self._bench.comes_about(has_ended, _LEFT_ALONE):
            self._bench.task("kill_all", 2, task_ids=[server.id])
            self._bench.wait(has_ended, _PATIENCE)

    def _pid(self, end: str, port: int) -> int:
        """The iperf3 of an end with that port in its command, as soon as it is there."""
        agent = self._bench.agents[_NUMBERS[end] - 1].pid
        found: list[int] = []

        def look() -> bool:
            found.extend(pid for pid in _children(agent) if f"\0-p\0{port}\0" in _command(pid))
            return bool(found)

        until(look)
        return found[0]


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """A stage with its hosts, its Manager and its agents, taken down with the block."""
    with lab_hosts() as hosts:
        bench = Bench(Store(), directory)
        bench.manager = DevManager(bench.store, MANAGER, 0)
        with hosts.inside("manager"):
            bench.manager.start()
        programs = {end: directory / f"iperf3-{end}" for end in ENDS}
        try:
            for end, number in _NUMBERS.items():
                install(programs[end], "")
                with hosts.inside(end):
                    agent = bench.agent(number=number, IPERF3_PATH=str(programs[end]))
                agent.wait_for("registered")
            yield Stage(hosts, bench, programs)
        finally:
            bench.close()


def install(link: Path, suite: str) -> None:
    """Let a link lead to that Debian's iperf3, or to this host's, as an upgrade does."""
    program = newer_iperf3(suite) if suite else shutil.which("iperf3")
    assert program
    if os.path.realpath(link) != os.path.realpath(program):
        link.unlink(missing_ok=True)
        link.symlink_to(program)


def _report(task: ManagedTask) -> Report:
    return read_report(task.result)


def _children(pid: int) -> list[int]:
    """The children that any thread of a process has started."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
            found += [int(word) for word in text.split()]
    return found


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    return ""
