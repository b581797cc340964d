"""Every error that the agent raises on purpose, and the classes of error of results.

Each kind is caught where it is handled. Anything else is a bug and stops the agent.
"""

import os
from enum import StrEnum

from agent.files import Whose, whose


class ErrorClass(StrEnum):
    """A machine-readable class of error. Its `advice` tells a person what to do.

    A reader takes a value that is not listed here, from an older or newer agent, as `other`.
    """

    advice: str

    REFUSED = "refused", "No server listens there, or a firewall refuses: see the server's task."
    BUSY = "busy", "An iperf3 server serves one client at a time: wait, or choose another port."
    UNREACHABLE = "unreachable", "No way to the server: check its address, routes and firewalls."
    UNKNOWN_HOST = "unknown_host", "The server's name was not found: check it, or give an address."
    PORT_IN_USE = "port_in_use", "Choose another port, or stop what listens on this one."
    ARGUMENTS = "arguments", "iperf3 or the kernel rejects an option: change it, or leave it out."
    PEER_LOST = "peer_lost", "The other side went away: check its task, and the network between."
    TIMED_OUT = "timed_out", "The server or the network froze, or an agent left: try again."
    KILLED = "killed", "See the message. If it names a signal, the host's log may say more."
    CRASHED = "crashed", "iperf3 has a bug, or does not fit the host: try another version of it."
    INTERRUPTED = "interrupted", "The agent was stopped, or told to stop the test: start it again."
    BAD_OUTPUT = "bad_output", "iperf3 wrote no usable result: check it, and the agent's disk."
    BAD_PAYLOAD = "bad_payload", "The message names the parameter that is wrong: change it."
    UNSUPPORTED = (
        "unsupported",
        "The host's iperf3 or kernel lacks an option: upgrade it, or omit it.",
    )
    NOT_ALLOWED = "not_allowed", "The server wants a login, or its owner or the agent's forbids it."
    TOO_MANY = "too_many", "The agent runs as many tasks as it may: wait, or raise its MAX_TASKS."
    STATE_FULL = "state_full", "Free space in the state directory; the agent then recovers."
    HOST_ERROR = "host_error", "The agent's host or its disk failed: see the message, and its log."
    IPERF3_MISSING = "iperf3_missing", "Install iperf3 on the agent's host, or set IPERF3_PATH."
    OTHER = "other", "The agent's log has the whole story of the task: look for its task_id."

    def __new__(cls, value: str, advice: str) -> "ErrorClass":
        """Make a member of its value and its advice."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.advice = advice
        return member

    @classmethod
    def _missing_(cls, value: object) -> "ErrorClass":
        return cls.OTHER


class AgentError(Exception):
    """The root of the tree; by itself a bug that is in the log, or a failed test of `--dev`.

    `exit_code` is that of an agent that it ends, and `advice` what to do, if its message does not
    say so. The numbers are those of sysexits.h.
    """

    exit_code = 1
    advice: str | None = None


class ConfigError(AgentError):
    """The configuration is wrong.

    `faults` has a sentence for each wrong setting: the variable, the value (never a key's), and
    what is accepted.
    """

    exit_code = os.EX_CONFIG

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class StateLocked(AgentError):
    """Another running agent uses the state directory."""

    exit_code = os.EX_CANTCREAT


class StateUnusable(AgentError):
    """The state directory cannot be written now: full, read-only, broken, or over its quota."""


class TaskError(AgentError):
    """One task cannot run, has failed, or was stopped, which `is_wanted` if a person did that.

    Its result has `error_class` for programs; the message tells the operator what to do.
    """

    def __init__(self, error_class: ErrorClass, message: str, is_wanted: bool = False) -> None:
        super().__init__(message)
        self.error_class, self.is_wanted = error_class, is_wanted


class ManagerError(AgentError):
    """A call to the Manager did not get the answer it wanted."""


class ManagerUnavailable(ManagerError):
    """No usable answer: 5xx, a proxy's page, or whatever else is not the Manager's JSON.

    `retry_after` is the number of seconds that the Manager asked the agent to wait, if it did.
    """

    exit_code = os.EX_UNAVAILABLE
    advice = "agent-run --check tests the way to MANAGER_URL"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ManagerAway(ManagerUnavailable):
    """Refused, reset, too slow, 429 or 503: all calls but heartbeats wait."""


class ManagerRefused(ManagerError):
    """The Manager refuses this agent; trying again is of no use."""


class KeyRefused(ManagerRefused):
    """401, 403 or 426 in the Manager's words: it does not accept the key or the API version."""

    exit_code = os.EX_NOPERM
    advice = "compare AGENT_NAME, the key and API_VERSION with the Manager's"


class AgentUnknown(ManagerRefused):
    """The Manager's own 404: the agent is unknown or has been disabled."""

    exit_code = os.EX_NOUSER
    advice = "create AGENT_NAME at the Manager, or enable it there"


class TaskRefused(ManagerError):
    """The call about this task is refused for good.

    `current_status` is the task's status at the Manager ("canceled", "succeeded", ...) if the
    answer names it, `answer` the answer's body.
    """

    def __init__(self, message: str, status: str | None = None, answer: bytes = b"") -> None:
        super().__init__(message)
        self.current_status = status
        self.answer = answer


class ResultTooLarge(TaskRefused):
    """413: the body is too large for the Manager, or for a proxy before it."""


class TaskReplaced(TaskRefused):
    """The task's number is another task's at the Manager by now, or the Manager is another one."""


def class_of(error: BaseException) -> ErrorClass:
    """The class of an OSError of the disk, or of an error that was raised from one."""
    return ErrorClass.STATE_FULL if whose(error) is Whose.DISK else ErrorClass.HOST_ERROR
