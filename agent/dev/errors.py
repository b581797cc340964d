"""The dev Manager's refusals: an HTTP status, a code for programs, a message for people."""

from typing import Any

from agent.errors import AgentError


class Refused(AgentError):
    """A call is refused. `body` is the answer's JSON, in the Manager's form."""

    def __init__(self, status: int, error: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        said = {"error": error, "message": message, "details": details}
        self.body: dict[str, Any] = {"detail": said}


class NotFound(Refused):
    """404: no such record, or an agent that is unknown or disabled. The JSON has no `detail`."""

    def __init__(self, message: str) -> None:
        super().__init__(404, "not_found", message)
        self.body = {"error": "not_found", "message": message}


class Misfit(Refused):
    """422: the body, the query or the `field` of a form does not fit the call.

    The JSON has a list of faults, always of one here.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(422, "validation_error", message)
        self.field = field
        self.body = {"detail": [{"loc": ["body"], "msg": message, "type": "validation_error"}]}


class StateUnwritable(Refused):
    """503: the change is made, but the state file could not be written."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "state_unwritable", message)
