"""The dev Manager's refusals: an HTTP status, a code for programs, a message for people."""

from functools import partial
from typing import Any

from agent.errors import AgentError

# What to say of a program, and of a package that only the dev Manager needs.
MISSING = "{} needs {}, which is not installed: run: pip install flask"


class Refused(AgentError):
    """A call is refused. `api.http.refuse` makes its answer; without a code it is a message.

    `faults` has a message for each field of a form that is to be corrected.
    """

    def __init__(self, status: int, error: str, said: str, field: str = "", **more: Any) -> None:
        super().__init__(said)
        self.status, self.error, self.details = status, error, more
        self.faults = {field: said} if field else {}


# There is no such record, or the agent is unknown or disabled.
not_found = partial(Refused, 404, "not_found")
# A record is not as the call, or the `field` of a form, needs it.
conflict = partial(Refused, 409, "conflict")
# The body, the query or the `field` of a form does not fit the call.
misfit = partial(Refused, 422, "validation_error")


class StateUnwritable(Refused):
    """503: the change is made, but the state file could not be written."""
