"""Record the state directories that a released agent leaves, for tests/state/test_upgrade.py.

`python -m tests.support.record_state CHECKOUT` runs the agent of that checkout as root, kills it in
each of the SCENES, and writes what lies on the disk then below tests/state/data/VERSION.
"""

from gevent import monkey

monkey.patch_all()

import itertools  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import zlib  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from agent.files import frame, unframe  # noqa: E402
from tests.support.faulty_manager import (  # noqa: E402
    FaultyManager,
    Request,
    raw_reply,
    reply,
    well,
)
from tests.support.harness import (  # noqa: E402
    ROOT,
    AgentProcess,
    free_port,
    iperf3_server,
    until,
)
from tests.support.newer_iperf3 import newer_iperf3  # noqa: E402

DATA = ROOT / "tests" / "state" / "data"
# A Manager's URL is part of its tasks, and the port of one in a test is not known beforehand:
# the tests' Managers are proxies for this name.
MANAGER_URL = "http://manager.example"
CREATED_AT = "2026-11-28T20:00:00.123456"
REGISTERED = {"id": 1, "name": "a1", "first_registered": CREATED_AT}
# The old agent's own code drops a result whose journal has no room for the note.
SETTLE = """
from gevent import monkey
monkey.patch_all()
import sys
from pathlib import Path
from agent.spool import Spool
from agent.state import StateDirectory
spool = Spool(StateDirectory(Path(sys.argv[1]), 1 << 30))
spool.remove(spool.load()[0], noted=False)
"""


@dataclass
class Recording:
    """A Manager that hands out `tasks`, answers results as `takes` says, and the agent of it."""

    checkout: Path
    state: Path
    tasks: list[dict[str, Any]] = field(default_factory=list)
    takes: Callable[[Request], bool] = lambda request: True
    variables: dict[str, str] = field(default_factory=dict)

    def answer(self, request: Request) -> bytes:
        """The answer to any call."""
        if request.call == "register":
            return reply(REGISTERED)
        if request.call == "claim" and self.tasks:
            return reply({"task": self.tasks.pop(0)})
        if request.call == "result" and not self.takes(request):
            return raw_reply(b"", 503)
        return well(request)

    @contextmanager
    def agent(self) -> Iterator[FaultyManager]:
        """Run the agent until the block ends, and then kill it."""
        manager = FaultyManager(self.answer)
        host = ["unshare", "--uts", "sh", "-c", 'hostname host; exec "$0" "$@"']
        agent = AgentProcess(
            program=[*host, sys.executable, "-m", "agent"],
            cwd=self.checkout,
            **{**agent_variables(manager, self.state), **self.variables},
            PYTHONPATH=str(self.checkout),
        )
        try:
            agent.wait_for("registered")
            yield manager
            agent.signal(signal.SIGKILL)
            agent.exit_code()
        finally:
            agent.close()
            manager.stop()


def agent_variables(manager: FaultyManager, state: Path) -> dict[str, str]:
    """The environment of an agent whose Manager this is, at MANAGER_URL."""
    return {
        "MANAGER_URL": MANAGER_URL,
        "HTTP_PROXY": manager.url,
        "ADVERTISE_ADDRESS": "127.0.0.1",
        "AGENT_NAME": "a1",
        "AGENT_KEY": "key-1",
        "STATE_DIR": str(state),
        "CLAIM_INTERVAL": "0.1",
    }


def task(number: int, kind: str, **payload: Any) -> dict[str, Any]:
    """A task as a Manager hands it out."""
    created = {"created_at": CREATED_AT, "status": "accepted", "agent_id": 1}
    return {"id": number, "type": kind, "payload": payload, **created}


def client(number: int, port: int, **payload: Any) -> dict[str, Any]:
    """A client task against this host."""
    given = {"server_ip": "127.0.0.1", "port": port, "bitrate": 10**6, "time": 1, **payload}
    return task(number, "iperf_client_run", **given)


def results(manager: FaultyManager) -> list[Request]:
    """The results that arrived so far."""
    return [request for request in manager.requests if request.call == "result"]


def claimed(recording: Recording) -> None:
    """A task was claimed, and its test has not begun."""
    recording.tasks = [client(1, 5201, client_delay_seconds=3600)]
    with recording.agent() as manager:
        manager.wait_for(lambda: manager.calls().count("claim") >= 2)


def running(recording: Recording) -> None:
    """A test is under way."""
    port = free_port()
    recording.tasks = [client(1, port, time=60)]
    with iperf3_server(port), recording.agent() as manager:
        manager.wait_for(lambda: "started" in manager.calls())


def streaming(recording: Recording) -> None:
    """A test is under way, and its iperf3 writes down each interval."""
    recording.variables["IPERF3_PATH"] = newer_iperf3("trixie")
    port = free_port()
    recording.tasks = [client(1, port, time=60)]
    with iperf3_server(port), recording.agent() as manager:
        manager.wait_for(lambda: "started" in manager.calls())
        gevent.sleep(2)


def reported(recording: Recording) -> None:
    """A server listens, which the Manager knows."""
    recording.tasks = [task(1, "iperf_server_start", port=free_port())]
    with recording.agent() as manager:
        manager.wait_for(lambda: results(manager))
        until(lambda: not list((recording.state / "outbox").iterdir()))


def served(recording: Recording) -> None:
    """A server has served a test, whose document waits."""
    port, numbers = free_port(), itertools.count()
    recording.tasks = [task(1, "iperf_server_start", port=port)]
    recording.takes = lambda request: next(numbers) == 0
    with recording.agent() as manager:
        manager.wait_for(lambda: results(manager))
        argv = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", "1", "-b", "1M"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        manager.wait_for(lambda: len(results(manager)) >= 2)


def waiting(recording: Recording) -> None:
    """Two results wait: one with a document, one of a test that was refused."""
    port = free_port()
    recording.tasks = [client(1, port), client(2, free_port(), max_retries=0)]
    recording.takes = lambda request: False
    with iperf3_server(port), recording.agent() as manager:
        manager.wait_for(lambda: len({request.path for request in results(manager)}) == 2)
        until(lambda: len(list((recording.state / "outbox").glob("*.result"))) == 2)


def settled(recording: Recording) -> None:
    """The same, but the Manager has the first, which the journal had no room to note."""
    waiting(recording)
    subprocess.run(
        [sys.executable, "-c", SETTLE, str(recording.state)], cwd=recording.checkout, check=True
    )


SCENES = (claimed, running, streaming, reported, served, waiting, settled)


def make_anonymous(state: Path) -> None:
    """Replace the release of this host's kernel, and the checksums of what it stood in."""
    own = os.uname().release.encode()
    other = b"6.1.0".ljust(len(own), b"0")[: len(own)]
    sums = {}
    for path in state.rglob("*.*"):
        content = path.read_bytes()
        if path.suffix in (".result", ".settled"):
            continue
        path.write_bytes(content.replace(own, other))
        sums[b'"checksum":%d' % zlib.crc32(content)] = b'"checksum":%d' % zlib.crc32(
            path.read_bytes()
        )
    for path in (state / "journal", *(state / "outbox").glob("*.[rs]e*")):
        lines = [unframe(line).replace(own, other) for line in path.read_bytes().splitlines()]
        for before, after in sums.items():
            lines = [line.replace(before, after) for line in lines]
        path.write_bytes(b"".join(map(frame, lines)))


def main() -> None:
    """Record every scene with the agent of the checkout that the command line names."""
    checkout = Path(sys.argv[1]).resolve()
    version = subprocess.run(
        [sys.executable, "-m", "agent", "--version"],
        cwd=checkout,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()[-1]
    for scene in SCENES:
        target = DATA / version / scene.__name__
        with TemporaryDirectory() as directory:
            state = Path(directory) / "state"
            scene(Recording(checkout, state))
            make_anonymous(state)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(state, target, ignore=shutil.ignore_patterns("lock"))
        print(target.name, *sorted(str(f.relative_to(target)) for f in target.rglob("*.*")))


if __name__ == "__main__":
    main()
