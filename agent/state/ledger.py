"""The journal and the spool of one state directory, which together say what is still owed."""

from contextlib import suppress

from agent.errors import StateUnusable
from agent.state.directory import StateDirectory
from agent.state.journal import Journal
from agent.state.spool import Parcel, Spool


class Ledger:
    """What an agent keeps in its state directory: which tasks it has, and which results wait."""

    def __init__(self, state: StateDirectory) -> None:
        """Read what the previous run left."""
        self.state = state
        self.journal = Journal(state)
        self.spool = Spool(state)

    def load_waiting(self) -> list[Parcel]:
        """The results of the previous run that are still to be delivered, the oldest first."""
        for parcel in self.spool.load_settled():
            # The disk was too full to note that; if it still is, only the memory has it.
            mark = self.journal.mark_settled if parcel.outcome.final else self.journal.mark_reported
            with suppress(StateUnusable):
                mark(parcel.claimed)
        waiting = []
        for parcel in self.spool.load():
            if parcel.claimed.key not in self.journal.settled_before:
                waiting.append(parcel)
                continue
            # The agent was killed after it settled the result and before it removed the file.
            with suppress(StateUnusable):
                self.spool.remove(parcel)
        return waiting

    def mend(self) -> None:
        """Write what the journal could not note, then remove the files that noted it instead.

        Raises StateUnusable.
        """
        self.journal.mend()
        self.spool.forget_settled()
