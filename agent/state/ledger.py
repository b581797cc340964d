"""The journal and the spool of one state directory, which together say what is still owed."""

from agent.state.directory import StateDirectory
from agent.state.journal import Journal
from agent.state.spool import Spool


class Ledger:
    """What an agent keeps in its state directory: which tasks it has, and which results wait."""

    def __init__(self, state: StateDirectory) -> None:
        """Read what the previous run left."""
        self.state = state
        self.journal = Journal(state)
        self.spool = Spool(state)

    def mend(self) -> None:
        """Write what the journal could not note, then remove the files that noted it instead.

        Raises StateUnusable.
        """
        self.journal.mend()
        self.spool.forget_settled()
