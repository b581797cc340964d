"""Signals: the first drains, the second kills, the third ends the process at once."""

import signal

import pytest

from tests.support.deaf_child import with_a_deaf_child
from tests.support.harness import AgentProcess, Bench, is_running, until


def both_at_once(agent: AgentProcess) -> None:
    """Two more signals, of which the agent cannot see one before the other has arrived."""
    agent.signal(signal.SIGSTOP)
    agent.signal(signal.SIGINT)
    agent.signal(signal.SIGTERM)
    agent.signal(signal.SIGCONT)


def test_the_second_signal_kills_the_children_and_the_agent_ends_with_0(bench: Bench) -> None:
    agent, _, child = with_a_deaf_child(bench, STOP_GRACE="300", SHUTDOWN_TIMEOUT="300")
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent stops", why="SIGTERM")
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert not is_running(child)


def test_the_third_signal_ends_the_agent_at_once(bench: Bench) -> None:
    agent, _, child = with_a_deaf_child(bench, STOP_GRACE="300", SHUTDOWN_TIMEOUT="300")
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent stops")
    both_at_once(agent)
    assert agent.exit_code() in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    until(lambda: not is_running(child))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_agent_ends_with_0_on_a_signal(bench: Bench, number: signal.Signals) -> None:
    agent = bench.agent()
    agent.wait_for("registered")
    agent.signal(number)
    assert agent.wait_for("agent stops")["why"] == number.name
    assert agent.exit_code() == 0
