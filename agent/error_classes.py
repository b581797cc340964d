"""The classes of error that a result may carry, each with what a person can do about it."""

from enum import StrEnum


class ErrorClass(StrEnum):
    """A machine-readable class of error. Its `advice` tells a person what to do.

    A reader takes a value that is not listed here, from an older or newer agent, as `other`.
    """

    advice: str

    REFUSED = "refused", (
        "No server listens at that address and port, or a firewall refuses: see the server's task."
    )
    BUSY = "busy", (
        "An iperf3 server serves one client at a time: wait for the other test, or choose another"
        " port."
    )
    UNREACHABLE = "unreachable", (
        "Nothing that the client sends reaches the server: check its address, routes and firewalls."
    )
    UNKNOWN_HOST = "unknown_host", (
        "The client's host cannot look up the server's name: check the name, or give an address."
    )
    PORT_IN_USE = "port_in_use", "Choose another port, or stop what listens on this one."
    ARGUMENTS = "arguments", (
        "The host's iperf3 or its kernel does not take one of the test's options: change it, or"
        " leave it out."
    )
    PEER_LOST = "peer_lost", (
        "The other side went away during the test: check its task, and the network between the two."
    )
    TIMED_OUT = "timed_out", (
        "The test hung: its server froze, the network stopped passing packets, or the agent went"
        " away. Try again when both agents are online."
    )
    KILLED = "killed", (
        "The message says who stopped the test. If it names a signal, look in the host's log: it"
        " may have run out of memory."
    )
    INTERRUPTED = "interrupted", (
        "The agent was told to stop the test, or was stopped itself: start the test again."
    )
    BAD_OUTPUT = "bad_output", (
        "iperf3 wrote no result that can be used: check its installation and the agent's disk."
    )
    BAD_PAYLOAD = "bad_payload", "The message names the parameter that is wrong: change it."
    UNSUPPORTED = "unsupported", (
        "The host's iperf3 is too old for the test: install a newer one, or leave the option out."
    )
    NOT_ALLOWED = "not_allowed", (
        "The server wants a login, or the agent's owner does not allow the test: see the message."
    )
    TOO_MANY = "too_many", (
        "The agent runs as many tasks as it may: wait for some to end, or raise its MAX_TASKS."
    )
    STATE_FULL = "state_full", (
        "Free space on the disk of the agent's state directory; the agent then recovers by itself."
    )
    IPERF3_MISSING = "iperf3_missing", (
        "Install iperf3 on the agent's host, or set IPERF3_PATH; the next task looks again."
    )
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
