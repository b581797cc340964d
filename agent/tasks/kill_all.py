"""A `kill_all` task: the end of every task that was claimed before it."""

from collections.abc import Iterator

import structlog

from agent.error_classes import ErrorClass
from agent.protocol import Outcome
from agent.registry import Entry
from agent.tasks.context import TaskContext

log = structlog.get_logger()


def kill_all(context: TaskContext, entry: Entry) -> Iterator[Outcome]:
    """Stop the earlier tasks; yield once they are gone and their outcomes are in the outbox."""
    others = context.registry.claimed_before(entry)
    for other in others:
        other.stop.order(ErrorClass.KILLED, "stopped by kill_all")
    for other in others:
        other.gone.wait()
    log.info("all killed", count=len(others))
    answer = {"killed": True, "count": len(others)}
    yield Outcome("succeeded", context.new_report(), answer=answer)
