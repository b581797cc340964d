"""Every error that the agent raises on purpose.

    AgentError
    ├── ConfigError             a setting is wrong; the process ends with exit code 78
    ├── StateLocked             another agent uses the state directory; exit code 73
    ├── StateUnusable           the state directory cannot be written at the moment
    ├── RecordDamaged           a line or a file in it is not as it was written
    ├── SelfTestFailed          the test that `--dev` begins with has failed; exit code 1
    ├── Crashed                 a bug ended a greenlet; the log has it; exit code 1
    ├── TaskError               one task cannot run, or has failed; its result says so
    └── ManagerError
        ├── ManagerUnavailable  no usable answer; try again later
        │   └── ManagerAway     no answer at all, 429 or 503: all calls but heartbeats wait
        ├── ManagerRefused      final for the agent
        │   ├── KeyRefused      the key or the API version; exit code 77 at registration
        │   └── AgentUnknown    the agent is unknown or disabled; exit code 67
        └── TaskRefused         final for one call about one task
            ├── ResultTooLarge  the Manager would take a smaller result
            └── TaskReplaced    the task's number is another task's at the Manager by now

Each kind is caught where it is handled. Anything else is a bug and stops the agent.
"""

from agent.error_classes import ErrorClass
from agent.files import Whose, whose


class AgentError(Exception):
    """The root of the tree."""


class ConfigError(AgentError):
    """The configuration is wrong.

    `faults` has a sentence for each wrong setting: the variable, the value (never a key's), and
    what is accepted.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class StateLocked(AgentError):
    """Another running agent uses the state directory."""


class StateUnusable(AgentError):
    """The state directory cannot be written now: full, read-only, broken, or over its quota."""


class RecordDamaged(AgentError):
    """A record in the state directory is incomplete, or its checksum is wrong."""


class SelfTestFailed(AgentError):
    """The loopback test that `agent-run --dev` begins with has failed."""


class Crashed(AgentError):
    """A bug ended a greenlet; its traceback has been logged."""


class TaskError(AgentError):
    """One task cannot run, or has failed.

    Its result has `error_class` for programs; the message tells the operator what to do.
    """

    def __init__(self, error_class: ErrorClass, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class ManagerError(AgentError):
    """A call to the Manager did not get the answer it wanted."""


class ManagerUnavailable(ManagerError):
    """No usable answer: 5xx, a proxy's page, or whatever else is not the Manager's JSON.

    `retry_after` is the number of seconds that the Manager asked the agent to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ManagerAway(ManagerUnavailable):
    """Refused, reset, too slow, 429 or 503: other calls would fare no better."""


class ManagerRefused(ManagerError):
    """The Manager refuses this agent; trying again is of no use."""


class KeyRefused(ManagerRefused):
    """401, 403 or 426 in the Manager's words: the key or the API version is not accepted."""


class AgentUnknown(ManagerRefused):
    """The Manager's own 404: the agent is unknown or has been disabled."""


class TaskRefused(ManagerError):
    """The call about this task is refused for good.

    `status` is the HTTP status, `current_status` the task's status at the Manager ("canceled",
    "succeeded", ...) if the answer names it, `answer` the answer's body.
    """

    def __init__(
        self, message: str, status: int, current_status: str | None = None, answer: bytes = b""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.current_status = current_status
        self.answer = answer


class ResultTooLarge(TaskRefused):
    """413: the body is too large for the Manager, or for a proxy before it."""


class TaskReplaced(TaskRefused):
    """The Manager took the call for another task, which has the number of this one by now."""


def class_of(error: BaseException) -> ErrorClass:
    """The class of an OSError of the disk, or of an error that was raised from one."""
    return ErrorClass.STATE_FULL if whose(error) is Whose.DISK else ErrorClass.HOST_ERROR
