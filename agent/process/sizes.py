"""How much the running children have written: one look each half second finds it for all of them.

A native thread looks, as the disk may stand still. A call of its own for each of 300 idle servers
took a tenth of a core, and one for all takes a hundredth.
"""

from contextlib import suppress

import gevent
import structlog

from agent.process.child import ChildProcess
from agent.process.output import in_thread, size_of

# Seconds between two looks. A served test must be reported within a second.
LOOK = 0.5

log = structlog.get_logger()


def sizes_of(*children: ChildProcess) -> list[tuple[int, int]]:
    """How many bytes each has written to stdout and to stderr."""
    return in_thread(lambda: [(size_of(each.stdout), size_of(each.stderr)) for each in children])


class Sizes:
    """Wakes those that wait for a child's `has_grown`, until what it wrote has been `seen`."""

    def __init__(self) -> None:
        self._children = set[ChildProcess]()

    def add(self, child: ChildProcess) -> None:
        """Look at a child until it ends."""
        if not self._children:
            gevent.spawn(self._run)
        self._children.add(child)

    def _run(self) -> None:
        while self._children:
            gevent.sleep(LOOK)
            try:
                # There may be no room for a thread at the moment.
                with suppress(OSError):
                    self._look()
            except Exception:
                log.exception("a bug in the look at what children write: it is taken again")
            self._children = {each for each in self._children if not each.ended.is_set()}

    def _look(self) -> None:
        children = list(self._children)
        for child, sizes in zip(children, sizes_of(*children)):
            child.sizes = sizes
            if sizes != child.seen:
                child.has_grown.set()
