"""`agent-run --dev`: a dev Manager in this process, and one test over loopback."""

import errno
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import click
from gevent import Timeout
from gevent.event import Event
from msgspec import Raw

from agent.config.settings import Config, Texts, check_settings, read_settings
from agent.dev.errors import MISSING
from agent.diagnosis.halves import together
from agent.errors import AgentError, ConfigError
from agent.iperf3.figures import figures_in
from agent.iperf3.summary import Cpu, Summary, read_summary
from agent.logs.writer import STDOUT
from agent.protocol import FINAL_STATUSES, read_report
from agent.quantities import rate
from agent.service.signals import StopSignals

FIRST_PORT = 8000
PORTS_TRIED = 100
STATUS_ADDRESS = "127.0.0.1:9201"
TEST_SECONDS = 5
# The self-test fails if its tasks take this many seconds longer than the test itself.
PATIENCE = 30.0
BAR_STEP = 0.1
# The flags that would have no effect.
IGNORED = "manager_url manager_ca_file manager_cert_file manager_cert_key_file state_dir".split()


class Demo:
    """A running dev Manager that has one agent registered."""

    def __init__(self, agent_name: str) -> None:
        """Start it on the first free port from 8000 on. Raises ConfigError if Flask is missing."""
        try:
            from agent.dev.server import DevManager
            from agent.dev.store.store import Store
        except ModuleNotFoundError as error:
            raise ConfigError(MISSING.format("--dev", error.name)) from error
        self.key, self._password = secrets.token_urlsafe(16), secrets.token_urlsafe(8)
        self.store = Store()
        self.agent_id = self.store.agents.add(agent_name, self.key).id
        for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
            self.manager = DevManager(self.store, "127.0.0.1", port, self._password, True)
            try:
                self.manager.start()
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        else:
            last = FIRST_PORT + PORTS_TRIED - 1
            raise ConfigError(f"--dev found no free port from {FIRST_PORT} to {last}")

    def self_test(self, signals: StopSignals) -> None:
        """Run one TCP test as ordinary tasks, with a progress bar, and print a summary.

        An agent that stops gets none. It is stopped if nobody reads the output, as in `| head`.
        Raises AgentError.
        """
        try:
            self._test(signals.drain)
        except BrokenPipeError:
            signals.name = "SIGPIPE"
            signals.drain.set()

    def _test(self, stopping: Event) -> None:
        exercise = self.store.exercises.create("self-test", TEST_SECONDS)
        ends = self.agent_id, self.agent_id
        test = self.store.exercises.add_test(exercise.id, *ends, _free_port())
        self.store.exercises.start(exercise.id)
        self._show_progress(test.client_task.id, stopping)
        if stopping.is_set():
            return
        client = self.store.tasks.get(test.client_task.id)
        if client.status != "succeeded":
            raise AgentError(f"the test on loopback failed: {client.error or client.status}")
        with Timeout(5, False):
            while b'"end"' not in self._result(test.server_task.id) and not stopping.is_set():
                stopping.wait(BAR_STEP)
        click.echo(_summary(self._result(client.id), self._result(test.server_task.id)))
        where = f"  The dev Manager is at {self.manager.url} (admin, {self._password})."
        click.echo(f"{where} Ctrl-C stops it.\n")

    def _result(self, task_id: int) -> bytes:
        return bytes(self.store.tasks.get(task_id).result)

    def _show_progress(self, task_id: int, stopping: Event) -> None:
        """Wait for the end of the client task or for `stopping`, with a bar on a terminal."""
        began = time.monotonic()
        label = f"Self-test: TCP over loopback, {TEST_SECONDS} s"
        steps = int(TEST_SECONDS / BAR_STEP)
        with click.progressbar(length=steps, label=label, show_eta=False, file=sys.stdout) as bar:
            while self.store.tasks.get(task_id).status not in FINAL_STATUSES:
                elapsed = time.monotonic() - began
                if elapsed > TEST_SECONDS + PATIENCE:
                    raise AgentError("the test on loopback did not end in time")
                bar.update(max(0, min(steps - 1, int(elapsed / BAR_STEP)) - bar.pos))
                if stopping.wait(BAR_STEP):
                    return
            bar.update(steps - bar.pos)


@contextmanager
def demo_settings(flags: Texts, *places: Texts) -> Iterator[tuple[Demo, Config]]:
    """A demo, and the settings for its agent, whose state directory is removed afterwards.

    Raises ConfigError.
    """
    if ignored := [f"--{name.replace('_', '-')}" for name in IGNORED if name in flags]:
        words = "--dev has a Manager and a state directory of its own: leave out"
        raise ConfigError(f"{words} {', '.join(ignored)}")
    demo = Demo(check_settings(flags, *places)[0].agent_name)
    try:
        if demo.manager.port != FIRST_PORT:
            taken = f"Port {FIRST_PORT} is taken: the dev Manager uses {demo.manager.port}."
            click.echo(taken, err=True)
        with TemporaryDirectory(prefix="iperf-agent-") as state:
            own = {**flags, "manager_url": demo.manager.url, "state_dir": state}
            defaults = {"STATUS_ADDRESS": STATUS_ADDRESS}
            if os.isatty(STDOUT):
                defaults["LOG_FORMAT"] = "console"
            yield demo, read_settings(own, {"AGENT_KEY": demo.key}, *places, defaults)
    finally:
        demo.manager.stop()


def _free_port() -> int:
    """A TCP port that is free at the moment, for IPv4 and IPv6."""
    # `has_ipv6` is of Python, and not of the host.
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _summary(client: bytes, server: bytes) -> str:
    """The figures of the test in words, from the two results that the Manager has."""
    end, report = (read_summary(client) or Summary()).end, read_report(client)
    figures, seen = figures_in(Raw(client)), figures_in(Raw(server)).received
    cpu = end.cpu_utilization_percent or Cpu()
    again = "" if figures.retransmits is None else f", {figures.retransmits:.0f} retransmits"
    lines = [
        f"\nTCP over loopback, one stream, {TEST_SECONDS} s, iperf3 {report.iperf3_version}",
        f"  client   sent {rate(figures.sent or 0)}{again}, CPU {cpu.host_total or 0:.0f} %",
        f"  server   received {rate(figures.received or 0)}, CPU {cpu.remote_total or 0:.0f} %",
    ]
    if seen is not None:
        lines.append(f"  server's own report: {rate(seen)}")
    lines += [f"  note: {warning}" for warning in report.warnings]
    if found := together(report, read_report(server)):
        lines.append(f"  {found.words}")
    return "\n".join(lines)
