"""An agent that the kernel ends, as when memory is short: none of its children outlives it."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.support.command import stand_in
from tests.support.harness import AgentProcess, Bench, free_port, is_running, until

PAIRS = 10
ROUNDS = 20
# The promise is one second.
GONE_WITHIN = 3.0
DEADLY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT)
UNWILLING = r"""
case "$*" in
*"-c deaf "*) trap '' TERM; while :; do sleep 0.05; done;;
*"-c stands-still "*) kill -STOP $$;;
esac
exec iperf3 "$@"
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_child_outlives_a_killed_agent(bench: Bench) -> None:
    """Promise 5, 20 times with 10 servers and 10 clients at work.

    The slowest was gone 24 ms after the kill.
    """
    slowest = 0.0
    for _ in range(ROUNDS):
        agent = bench.agent()
        agent.wait_for("registered")
        servers, clients = give_work(bench)
        bench.wait(lambda: all(task.status == "succeeded" for task in servers))
        bench.wait(lambda: all(task.status == "running" for task in clients))
        assert len(at_work(bench)) == 2 * PAIRS + 1
        slowest = max(slowest, seconds_until_all_are_gone(bench, agent, signal.SIGKILL))
    print(f"all gone after {slowest * 1000:.0f} ms at most")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_no_child_outlives_an_agent_that_dies_while_it_starts_them(bench: Bench, seed: int) -> None:
    """Between the fork and the request to die with the agent, too; by other signals as well."""
    moment = random.Random(seed)
    agent = bench.agent()
    agent.wait_for("registered")
    give_work(bench)
    agent.wait_for("server started")
    gevent.sleep(moment.uniform(0, 0.5))
    seconds_until_all_are_gone(bench, agent, moment.choice(DEADLY))


def test_neither_deaf_nor_stopped_children_outlive_a_killed_agent(bench: Bench) -> None:
    path = stand_in(bench.directory / "iperf3", UNWILLING)
    agent = bench.agent(IPERF3_PATH=path)
    for name in ("deaf", "stands-still"):
        bench.task("iperf_client_run", server_ip=name, port=1, time=60, max_retries=0)
    until(lambda: sorted(map(state_of, at_work(bench)))[-1:] == ["T"])
    seconds_until_all_are_gone(bench, agent, signal.SIGKILL)


def give_work(bench: Bench) -> tuple[list[Any], list[Any]]:
    """Tasks for as many servers as clients, each client for a server of its own."""
    ports = [free_port() for _ in range(PAIRS)]
    servers = [bench.task("iperf_server_start", port=port) for port in ports]
    clients = [
        bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=60, bitrate=1_000_000)
        for port in ports
    ]
    return servers, clients


def seconds_until_all_are_gone(bench: Bench, agent: AgentProcess, number: signal.Signals) -> float:
    """End the agent with a signal; returns how long anything that it started went on."""
    began = time.monotonic()
    agent.signal(number)
    until(lambda: not at_work(bench), timeout=GONE_WITHIN)
    seconds = time.monotonic() - began
    assert agent.exit_code() == -number
    return seconds


def at_work(bench: Bench) -> list[int]:
    """The agent and all that came of it, by the directory that they are in."""
    found = []
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            inside = os.readlink(f"/proc/{pid}/cwd") == str(bench.directory)
        except OSError:  # it has ended, or is nobody's business
            continue
        if inside and is_running(pid):
            found.append(pid)
    return found


def state_of(pid: int) -> str:
    """The state of a process, as one letter; none of one that has just ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
