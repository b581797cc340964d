"""The dev Manager's refusals: an HTTP status, a code for programs, a message for people."""

from typing import Any, ClassVar

from agent.errors import AgentError


class Refused(AgentError):
    """400, and the root of the others. `details` become the body's `details`."""

    status: ClassVar[int] = 400

    def __init__(self, error: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.error = error
        self.details = details

    def body(self) -> dict[str, Any]:
        """The answer's JSON, in the Manager's form."""
        return {"detail": {"error": self.error, "message": str(self), "details": self.details}}


class NotAuthorized(Refused):
    """401: the key, the token or the headers that carry them are wrong or missing."""

    status = 401


class NotFound(Refused):
    """404: no such record, or an agent that is unknown or disabled."""

    status = 404

    def __init__(self, message: str) -> None:
        super().__init__("not_found", message)

    def body(self) -> dict[str, Any]:
        """The answer's JSON, which has no `detail` around it here."""
        return {"error": self.error, "message": str(self)}


class Conflict(Refused):
    """409: the call contradicts what is already there."""

    status = 409


class Misfit(Refused):
    """422: the body, the query or the `field` of a form does not fit the call."""

    status = 422

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__("validation_error", message)
        self.field = field

    def body(self) -> dict[str, Any]:
        """The answer's JSON: a list of faults, always of one here."""
        return {"detail": [{"loc": ["body"], "msg": str(self), "type": self.error}]}


class VersionRefused(Refused):
    """426: the agent speaks another version of the API."""

    status = 426


class StateUnwritable(Refused):
    """503: the change is made, but the state file could not be written."""

    status = 503
