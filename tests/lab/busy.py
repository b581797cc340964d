"""What else happens on the hosts: an iperf3 gets little of a core, is stopped, or is not alone."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import gevent
from gevent import subprocess

from tests.lab.making import Maker, Place
from tests.support.harness import iperf3_server

_CONTROL = Path("/sys/fs/cgroup")
_PERIOD = 100_000
_OTHERS_PORT = 5200
_SPIN = ["sh", "-c", "while :; do :; done"]


def quota(share: float, of: str = "senders") -> Maker:
    """Give the iperf3 of the senders, or of the `receivers`, that share of a core."""

    @contextmanager
    def make(place: Place) -> Iterator[None]:
        with ExitStack() as stack:
            for end in _ends(place, of):
                group = stack.enter_context(control_group(f"lab-{os.getpid()}-{end}", share))
                stack.enter_context(_meanwhile(place, end, _joins(group)))
            yield

    return make


def neighbours(count: int, of: str = "senders") -> Maker:
    """Let so many busy processes share the core of an iperf3, to which all of them are pinned."""

    def pin(pid: int) -> None:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {0})

    @contextmanager
    def make(place: Place) -> Iterator[None]:
        with ExitStack() as stack:
            for _ in range(count):
                # The kernel shares a core among sessions first, and then among their processes.
                spinning = subprocess.Popen(_SPIN, start_new_session=True)
                stack.callback(spinning.wait)
                stack.callback(spinning.kill)
                pin(spinning.pid or 0)
            for end in _ends(place, of):
                stack.enter_context(_meanwhile(place, end, pin))
            yield

    return make


def others_traffic() -> Maker:
    """Let another TCP flow take the same path."""

    @contextmanager
    def make(place: Place) -> Iterator[None]:
        (sender,), (receiver,) = place.senders, place.receivers
        with ExitStack() as stack:
            with place.hosts.inside(receiver):
                stack.enter_context(iperf3_server(_OTHERS_PORT))
            target = ["-c", place.addresses[receiver], "-p", str(_OTHERS_PORT), "-t", "600"]
            with place.hosts.inside(sender):
                flow = subprocess.Popen(["iperf3", *target, "--logfile", os.devnull])
            stack.callback(flow.wait)
            stack.callback(flow.kill)
            yield

    return make


def stopped(of: str, stop: float = 0.3, run: float = 0.3) -> Maker:
    """Stop the iperf3 of the `senders` or `receivers` for so many seconds, and let it run again."""

    def stop_and_go(pid: int) -> None:
        with suppress(ProcessLookupError):
            try:
                while True:
                    gevent.sleep(run)
                    os.kill(pid, signal.SIGSTOP)
                    gevent.sleep(stop)
                    os.kill(pid, signal.SIGCONT)
            finally:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def make(place: Place) -> Iterator[None]:
        with ExitStack() as stack:
            for end in _ends(place, of):
                stack.enter_context(_meanwhile(place, end, stop_and_go))
            yield

    return make


def _ends(place: Place, of: str) -> list[str]:
    return list(place.senders) if of == "senders" else place.receivers


@contextmanager
def _meanwhile(place: Place, end: str, act: Callable[[int], None]) -> Iterator[None]:
    """Do something to the iperf3 of an end as soon as it is there."""
    acting = gevent.spawn(lambda: act(place.pid(end)))
    try:
        yield
    finally:
        acting.kill()


def _joins(group: Path) -> Callable[[int], None]:
    def join(pid: int) -> None:
        (group / "cgroup.procs").write_text(str(pid), encoding="ascii")

    return join


@contextmanager
def control_group(name: str, share: float) -> Iterator[Path]:
    """A control group with that share of a core, of either version, removed with the block."""
    microseconds = round(share * _PERIOD)
    if (old := _CONTROL / "cpu").is_dir():
        group = old / name
        limits = {"cpu.cfs_period_us": f"{_PERIOD}", "cpu.cfs_quota_us": f"{microseconds}"}
    else:
        (_CONTROL / "cgroup.subtree_control").write_text("+cpu", encoding="ascii")
        group, limits = _CONTROL / name, {"cpu.max": f"{microseconds} {_PERIOD}"}
    group.mkdir()
    try:
        for file, value in limits.items():
            (group / file).write_text(value, encoding="ascii")
        yield group
    finally:
        group.rmdir()
