"""Calls that fail for a long time: said once, then summed, and said once more when they are well.

A Manager that is away for a day would else leave a line every few seconds from each loop.
"""

import time
from contextvars import Context
from typing import Any

import structlog

from agent.errors import KeyRefused

# Seconds from a line to the next sum; the distance doubles up to the second figure.
FIRST_SUM = 60.0
LATEST_SUM = 600.0

log = structlog.get_logger()


class Outage:
    """The failures of one kind of call, in the log.

    The first one is said at once, with the same words its sums later on. `well` are the words for
    the first call that does not fail any more. Failures that begin again within FIRST_SUM belong
    to those before: a Manager that answers every other call leaves no more lines than one that
    is away.
    """

    def __init__(self, well: str) -> None:
        self._well = well
        self._told: set[tuple[object, str]] = set()
        self._failing: set[object] = set()
        self._unanswered = False
        self._count = 0
        self._began = self._last = self._said_at = -FIRST_SUM
        self._distance = FIRST_SUM

    def failed(self, what: str, error: Exception, of: object = None, **fields: Any) -> None:
        """One more failure; `what` are its words, and `fields` go with the first of them.

        `of` says whose call it was where several go side by side: each says its own first.
        """
        now = time.monotonic()
        if not self._failing and now - self._last >= FIRST_SUM:
            self._told.clear()
            self._count, self._began, self._distance = 0, now, FIRST_SUM
        self._last = now
        self._count += 1
        self._failing.add(of)
        say = log.error if isinstance(error, KeyRefused) else log.warning
        if (of, what) not in self._told:
            self._told.add((of, what))
            say(what, error=str(error), **fields)
        elif now - self._said_at >= self._distance:
            self._distance = min(2 * self._distance, LATEST_SUM)
            # What is said of all of them has no task of its own.
            Context().run(say, what, last=str(error), **self._sum(now))
        else:
            return
        self._said_at = now
        self._unanswered = True

    def over(self, of: object = None, since: float | None = None) -> None:
        """The call did not fail; said when the last of those that failed are well again.

        `since` is when it was made, for one whose answer comes late without any trouble.
        """
        self._failing.discard(of)
        if of is not None:
            self._told = {known for known in self._told if known[0] != of}
        if self._unanswered and not self._failing:
            self._unanswered = False
            now = time.monotonic() if since is None else since
            Context().run(log.info, self._well, **self._sum(now))

    def _sum(self, now: float) -> dict[str, Any]:
        return {"failures": self._count, "seconds": round(now - self._began, 1)}
