"""The dev Manager's refusals: an HTTP status, a code for programs, a message for people."""

from typing import Any

from agent.errors import AgentError


class Refused(AgentError):
    """A call is refused, with a status of HTTP. `details` become the body's `details`."""

    def __init__(self, status: int, error: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.details = details

    def body(self) -> dict[str, Any]:
        """The answer's JSON, in the Manager's form."""
        return {"detail": {"error": self.error, "message": str(self), "details": self.details}}


class NotFound(Refused):
    """404: no such record, or an agent that is unknown or disabled."""

    def __init__(self, message: str) -> None:
        super().__init__(404, "not_found", message)

    def body(self) -> dict[str, Any]:
        """The answer's JSON, which has no `detail` around it here."""
        return {"error": self.error, "message": str(self)}


class Misfit(Refused):
    """422: the body, the query or the `field` of a form does not fit the call."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(422, "validation_error", message)
        self.field = field

    def body(self) -> dict[str, Any]:
        """The answer's JSON: a list of faults, always of one here."""
        return {"detail": [{"loc": ["body"], "msg": str(self), "type": self.error}]}


class StateUnwritable(Refused):
    """503: the change is made, but the state file could not be written."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "state_unwritable", message)
