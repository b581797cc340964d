"""A greenlet that fails is noticed: the first failure is kept, a bug is logged."""

import json

import gevent
import pytest
import structlog

from agent.errors import AgentError, AgentUnknown
from agent.logs.setup import configure_logging
from agent.service.supervisor import Supervisor


def fail(error: Exception) -> None:
    raise error


def test_a_greenlet_that_ends_well_is_no_failure() -> None:
    supervisor = Supervisor()
    supervisor.spawn(lambda: None).join()
    assert supervisor.failure is None
    assert not supervisor.failed.is_set()


def test_an_expected_error_is_kept_as_the_failure() -> None:
    supervisor = Supervisor()
    error = AgentUnknown("404")
    supervisor.spawn(fail, error)
    assert supervisor.failed.wait(5)
    assert supervisor.failure is error


def test_only_the_first_failure_is_kept() -> None:
    supervisor = Supervisor()
    first = AgentUnknown("first")
    gevent.joinall([supervisor.spawn(fail, first), supervisor.spawn(fail, AgentUnknown("second"))])
    assert supervisor.failure is first


def test_a_greenlet_that_was_killed_is_no_failure() -> None:
    supervisor = Supervisor()
    greenlet = supervisor.spawn(gevent.sleep, 60)
    gevent.sleep(0)
    greenlet.kill()
    assert supervisor.failure is None


def test_a_bug_is_logged_as_one_line_with_its_traceback_and_without_the_key(
    capfd: pytest.CaptureFixture[str],
) -> None:
    supervisor = Supervisor()
    writer = configure_logging("info", "json", "a1", lambda: "secret-key")
    try:
        supervisor.spawn(fail, ZeroDivisionError("with secret-key in it")).join()
    finally:
        assert writer.close()
        structlog.reset_defaults()
    assert type(supervisor.failure) is AgentError
    assert "ZeroDivisionError" in str(supervisor.failure)
    lines = [line for line in capfd.readouterr().out.splitlines() if "a bug" in line]
    (line,) = lines
    said = json.loads(line)
    assert said["level"] == "error"
    assert "Traceback" in said["exception"]
    assert "in fail" in said["exception"]
    assert "secret-key" not in line
