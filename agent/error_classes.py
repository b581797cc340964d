"""The classes of error that a result may carry, each with what a person can do about it."""

from enum import StrEnum


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
