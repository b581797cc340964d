"""Record what a real iperf3 prints, for the tests of agent.iperf3.

    python tests/support/record_iperf3.py --iperf3 /usr/bin/iperf3

writes `data/VERSION/` beside this file: `version.txt`, `help.txt`, for each case `CASE.stdout`,
and `cases.json` with each case's role, exit code and stderr. Everything runs on loopback, on
ports that the kernel finds free; three cases run in a network namespace of their own, which needs
root or unprivileged user namespaces. What would name the recording host is replaced.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

DATA = pathlib.Path(__file__).parent.parent / "iperf3" / "data"
DEADLINE = 10.0
# One reporting interval and a bit, so that an interrupted test has something to report.
ONE_INTERVAL = 1.2
# No interface is up in the new namespace, not even lo.
ISOLATED = ["unshare", "--user", "--map-root-user", "--net"]
NO_ROUTE = [*ISOLATED, "sh", "-c", 'ip route add unreachable 127.0.0.9; exec "$@"', "sh"]
MEBIBYTES_50 = "52428800"
SHORT = ("-t", "1", "-b", "50M")
TESTS: dict[str, tuple[str, ...]] = {
    "tcp": SHORT,
    "tcp-parallel": (*SHORT, "-P", "4"),
    "tcp-reverse": (*SHORT, "-R"),
    "tcp-bidir": (*SHORT, "--bidir"),
    "tcp-bytes": ("-n", MEBIBYTES_50),
    "tcp-unlimited": ("-t", "1"),
    "tcp-omit": ("-t", "1", "-O", "1", "-b", "50M"),
    "tcp-ipv6": (*SHORT, "-6", "-c", "::1"),
    "udp": (*SHORT, "-u"),
    "udp-reverse": (*SHORT, "-u", "-R"),
    "udp-large-datagrams": (*SHORT, "-u", "-l", "65507"),
}
STREAM = "--json-stream"


class Child:
    """One iperf3 whose output goes to files, so that no pipe can hold it up."""

    def __init__(self, argv: list[str]) -> None:
        self._out = tempfile.TemporaryFile()
        self._err = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to this child, if it still runs, and wait until it is gone."""
        self.process.send_signal(number)
        self.process.wait(DEADLINE)

    def wait_until_written(self) -> None:
        """Wait until a document is in stdout: a server writes it after its client has gone."""
        wait_until(lambda: os.fstat(self._out.fileno()).st_size > 0)

    def result(self) -> tuple[int, bytes, str]:
        """Wait for the end: the exit code, stdout and stderr."""
        code = self.process.wait(DEADLINE)
        self._out.seek(0)
        self._err.seek(0)
        return code, self._out.read(), self._err.read().decode()


class Recorder:
    """Runs the cases with one iperf3 and writes what it printed."""

    def __init__(self, iperf3: str) -> None:
        self.iperf3 = iperf3
        version = self._words("--version")
        self.version = version.split()[1]
        self.folder = DATA / self.version
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.cases: dict[str, dict[str, str | int]] = {}
        (self.folder / "version.txt").write_text(neutral(version))
        (self.folder / "help.txt").write_text(self._words("--help"))

    def keep(self, case: str, role: str, child: Child) -> None:
        """Wait for a child and keep what it printed."""
        code, stdout, stderr = child.result()
        (self.folder / f"{case}.stdout").write_bytes(neutral(stdout.decode()).encode())
        self.cases[case] = {"role": role, "exit_code": code, "stderr": neutral(stderr)}
        print(f"{case:28} exit code {code:3}, {len(stdout):6} bytes, {stderr[:60]!r}")

    def close(self) -> None:
        """Write the index of the cases."""
        text = json.dumps(self.cases, indent=1, sort_keys=True)
        (self.folder / "cases.json").write_text(text + "\n")

    def client(self, port: int, *options: str, within: list[str] | None = None) -> Child:
        """Start a client of a server on loopback; a later `-c` replaces the target."""
        to = ["-c", "127.0.0.1", "-p", str(port), "-J", "--connect-timeout", "1000"]
        return Child([*(within or []), self.iperf3, *to, *options])

    @contextlib.contextmanager
    def server(self, *options: str) -> Iterator[tuple[int, Child]]:
        """A server that listens; it is ended on the way out if the case did not."""
        port = free_port()
        child = Child([self.iperf3, "-s", "-p", str(port), "-J", *options])
        try:
            wait_until(lambda: sockets(port, "0A") >= 1)
            yield port, child
        finally:
            child.stop(signal.SIGKILL)

    def _words(self, option: str) -> str:
        done = subprocess.run([self.iperf3, option], capture_output=True, text=True, check=True)
        return done.stdout or done.stderr


def neutral(text: str) -> str:
    """Replace what would name the recording host."""
    text = re.sub(r"(?m)^(Linux|Darwin|FreeBSD) .*$", r"\1 host", text)
    text = re.sub(r"(?m)^/\S*/iperf3: ", "iperf3: ", text)
    text = re.sub(r'("system_info":\s*)"[^"]*"', r'\1"Linux host"', text)
    return re.sub(r'("cookie":\s*)"[^"]*"', r'\1"cookie"', text)


def free_port() -> int:
    """A port that nothing uses, on either family."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        port: int = probe.getsockname()[1]
        return port


def sockets(port: int, state: str) -> int:
    """How many TCP sockets have this local port and this state (0A listens, 01 is connected)."""
    rows = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in pathlib.Path(table).read_text().splitlines()[1:]
    ]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == state for row in rows)


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition until it holds; raises TimeoutError after the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.005)


def wait_until_idle(port: int) -> None:
    """Wait until nobody is connected to a server (08: its client has closed, it has not)."""
    wait_until(lambda: sockets(port, "01") + sockets(port, "08") == 0)


def record_tests(to: Recorder) -> None:
    """Tests that end well, each against a fresh server, and what the servers print."""
    for case, options in TESTS.items():
        with to.server() as (port, server):
            to.keep(case, "client", to.client(port, *options))
            server.wait_until_written()
            server.stop()
            to.keep(f"server-{case}", "server", server)


def record_refusals(to: Recorder) -> None:
    """Clients that never get a test."""
    to.keep("refused", "client", to.client(free_port()))
    to.keep("unknown-host", "client", to.client(free_port(), "-c", "256.256.256.256"))
    to.keep("wrong-family", "client", to.client(free_port(), "-6"))
    to.keep("no-network", "client", to.client(free_port(), within=ISOLATED))
    to.keep("no-route", "client", to.client(free_port(), "-c", "127.0.0.9", within=NO_ROUTE))
    to.keep("no-resolver", "client", to.client(free_port(), "-c", "a.invalid", within=ISOLATED))
    with full_backlog() as port:
        to.keep("connect-timeout", "client", to.client(port))
    with to.server() as (port, _), running(to, port):
        to.keep("busy", "client", to.client(port, "-t", "1"))


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """A listening port that answers no further connection."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def running(to: Recorder, port: int, *options: str) -> Iterator[Child]:
    """A client in mid-test: control and stream are connected and an interval has passed."""
    child = to.client(port, "-t", "30", "-b", "50M", *options)
    try:
        wait_until(lambda: sockets(port, "01") >= 2)
        time.sleep(ONE_INTERVAL)
        yield child
    finally:
        child.stop(signal.SIGKILL)


def record_interruptions(to: Recorder) -> None:
    """Either side stopped or killed in mid-test, and an idle server stopped."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        name = number.name.removeprefix("SIG").lower()
        with to.server() as (port, server), running(to, port) as client:
            client.stop(number)
            to.keep(f"client-{name}", "client", client)
            wait_until_idle(port)
            server.stop()
            to.keep(f"server-of-client-{name}", "server", server)
        with to.server() as (port, server), running(to, port) as client:
            server.stop(number)
            to.keep(f"server-{name}", "server", server)
            to.keep(f"client-of-server-{name}", "client", client)
    with to.server() as (_, server):
        server.stop()
        to.keep("server-idle-term", "server", server)


def record_stray(to: Recorder) -> None:
    """A server that is probed by a connection before its test, and two tests in a row."""
    with to.server() as (port, server):
        with socket.create_connection(("127.0.0.1", port)):
            pass
        wait_until_idle(port)
        to.client(port, "-t", "1", "-b", "50M").result()
        to.client(port, "-t", "1", "-b", "50M", "-P", "2").result()
        server.stop()
        to.keep("server-probed-two-tests", "server", server)


def record_arguments(to: Recorder) -> None:
    """Options and values that iperf3 or the kernel refuses."""
    refused: dict[str, tuple[str, ...]] = {
        "length": ("-l", "1048577"),
        "parallel": ("-P", "129"),
        "dscp": ("--dscp", "nosuch"),
        "reverse-bidir": ("-R", "--bidir"),
        "time-and-bytes": ("-t", "1", "-n", "1"),
        "affinity": ("-A", "1023"),
        "congestion": ("-C", "nosuch"),
        "bind": ("-B", "203.0.113.7"),
        "bind-family": ("-B", "::1"),
        "window": ("-w", "536870912"),
        "flow-label": ("-L", "1"),
        "unknown-option": ("--nosuch",),
    }
    with to.server() as (port, _):
        for case, options in refused.items():
            to.keep(f"arguments-{case}", "client", to.client(port, *options))
    to.keep("server-arguments-udp", "server", Child([to.iperf3, "-s", "-J", "-u"]))
    bind = ["-s", "-J", "-p", str(free_port()), "-B", "203.0.113.7"]
    to.keep("server-arguments-bind", "server", Child([to.iperf3, *bind]))
    with to.server() as (port, _):
        argv = [to.iperf3, "-s", "-J", "-p", str(port)]
        to.keep("server-port-in-use", "server", Child(argv))
    with to.server() as (port, _), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.bind(("::", port))
        to.keep("udp-port-in-use", "client", to.client(port, "-u", "-t", "1"))


def record_streams(to: Recorder) -> None:
    """What clients of the cases above print line by line, from 3.17 on."""
    with to.server() as (port, _):
        for case, options in TESTS.items():
            to.keep(f"stream-{case}", "stream", to.client(port, STREAM, *options))
            wait_until_idle(port)
        with running(to, port):
            to.keep("stream-busy", "stream", to.client(port, STREAM, "-t", "1"))
    to.keep("stream-refused", "stream", to.client(free_port(), STREAM))
    to.keep(
        "stream-unknown-host", "stream", to.client(free_port(), STREAM, "-c", "256.256.256.256")
    )
    for number in (signal.SIGTERM, signal.SIGKILL):
        name = number.name.removeprefix("SIG").lower()
        with to.server() as (port, server), running(to, port, STREAM) as client:
            client.stop(number)
            to.keep(f"stream-client-{name}", "stream", client)
        with to.server() as (port, server), running(to, port, STREAM) as client:
            server.stop(number)
            to.keep(f"stream-client-of-server-{name}", "stream", client)


def main() -> None:
    """Record everything with the iperf3 that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iperf3", default="iperf3", help="the iperf3 to record")
    recorder = Recorder(parser.parse_args().iperf3)
    record_tests(recorder)
    record_refusals(recorder)
    record_interruptions(recorder)
    record_stray(recorder)
    record_arguments(recorder)
    if STREAM in (recorder.folder / "help.txt").read_text():
        record_streams(recorder)
    recorder.close()


if __name__ == "__main__":
    main()
