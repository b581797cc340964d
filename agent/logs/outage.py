"""Calls that fail for a long time: logged once, then as sums, and once more when they recover.

Otherwise each loop would log a line every few seconds while the Manager is away.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any

import structlog

from agent.errors import KeyRefused
from agent.files import Whose, whose

# Seconds from a line to the next sum. The interval doubles up to the second figure.
FIRST_SUM = 60.0
LATEST_SUM = 600.0

log = structlog.get_logger()


@contextmanager
def lost(words: str) -> Iterator[None]:
    """Go on after an OSError, and log the words with it; raise it if only the host is short now."""
    try:
        yield
    except OSError as error:
        if whose(error) is Whose.HOST:
            raise
        log.error(words, error=str(error))


class Outage:
    """The failures of one kind of call, in the log.

    The first failure is logged at once, and the sums repeat its words. The first success after
    it is logged as `recovered`. Failures that begin again within FIRST_SUM continue the outage:
    a Manager that answers every other call causes no more lines than one that is away.
    """

    def __init__(self, recovered: str) -> None:
        self._recovered = recovered
        self._logged: set[tuple[object, str]] = set()
        self._failing: set[object] = set()
        self._is_open = False
        self._count = 0
        self._began = self._last = self._logged_at = -FIRST_SUM
        self._interval = FIRST_SUM

    def record_failure(self, what: str, error: Exception, of: object = None, **fields: Any) -> None:
        """Count a failure and log it if it is new or a sum is due.

        `what` is the message, and `fields` go with its first line. Where several callers share
        an outage, `of` says which one failed: the first failure of each is logged.
        """
        now = time.monotonic()
        if not self._failing and now - self._last >= FIRST_SUM:
            self._logged.clear()
            self._count, self._began, self._interval = 0, now, FIRST_SUM
        self._last = now
        self._count += 1
        self._failing.add(of)
        write = log.error if isinstance(error, KeyRefused) else log.warning
        if (of, what) not in self._logged:
            self._logged.add((of, what))
            write(what, error=str(error), **fields)
        elif now - self._logged_at >= self._interval:
            self._interval = min(2 * self._interval, LATEST_SUM)
            # A sum belongs to no single task: it is logged without the task's id.
            Context().run(write, what, last=str(error), **self._sum(now))
        else:
            return
        self._logged_at = now
        self._is_open = True

    def record_success(self, of: object = None, since: float | None = None) -> None:
        """Log the recovery once none of the callers fails any more.

        `since` is when the call was made, if its answer comes late although all is well.
        """
        self._failing.discard(of)
        if of is not None:
            self._logged = {known for known in self._logged if known[0] != of}
        if self._is_open and not self._failing:
            self._is_open = False
            now = time.monotonic() if since is None else since
            Context().run(log.info, self._recovered, **self._sum(now))

    def _sum(self, now: float) -> dict[str, Any]:
        return {"failures": self._count, "seconds": round(now - self._began, 1)}
