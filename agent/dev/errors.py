"""The dev Manager's refusals: an HTTP status, a code for programs, a message for people."""

from typing import Any

from agent.errors import AgentError


class Refused(AgentError):
    """A call is refused. `api.http.refuse` makes its answer; without a code it is a message."""

    def __init__(self, status: int, error: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status, self.error, self.details = status, error, details


class NotFound(Refused):
    """404: no such record, or an agent that is unknown or disabled."""

    def __init__(self, message: str) -> None:
        super().__init__(404, "not_found", message)


class Conflict(Refused):
    """409: a record is not as the call needs it."""

    def __init__(self, message: str) -> None:
        super().__init__(409, "conflict", message)


class Misfit(Refused):
    """422: the body, the query or the `field` of a form does not fit the call."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(422, "validation_error", message)
        self.field = field


class StateUnwritable(Refused):
    """503: the change is made, but the state file could not be written."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "state_unwritable", message)
