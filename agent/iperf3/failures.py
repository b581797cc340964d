"""What the error messages of iperf3 mean."""

import re
from typing import NamedTuple

from agent.error_classes import ErrorClass


class _Meaning(NamedTuple):
    """The error class of messages with a pattern; a remark explains a misleading message."""

    pattern: str
    error_class: ErrorClass
    remark: str = ""


# Only the text tells one error of iperf3 from another: the exit code is 0 or 1. These are the texts
# of 3.9 to 3.22 (recorded in tests/iperf3/data); the first that matches counts.
_CONNECT = "unable to connect to server"
_BEFORE_3_10 = "unable to send control message"
_MEANINGS = (
    _Meaning("Address already in use", ErrorClass.PORT_IN_USE),
    _Meaning("server is busy", ErrorClass.BUSY),
    _Meaning(
        f"{_BEFORE_3_10}: (Connection reset by peer|Broken pipe)",
        ErrorClass.BUSY,
        "the server hung up",
    ),
    _Meaning(f"{_CONNECT}.*Connection refused", ErrorClass.REFUSED),
    _Meaning(
        f"{_BEFORE_3_10}: Bad file descriptor",
        ErrorClass.REFUSED,
        "no connection; this iperf3 does not say whether it was refused, the host is unknown"
        " or cannot be reached",
    ),
    _Meaning(
        f"{_CONNECT}.*(Name or service not known|name resolution|Address family for hostname)",
        ErrorClass.UNKNOWN_HOST,
    ),
    _Meaning(
        f"{_CONNECT}.*(Resource temporarily unavailable|Message too long)",
        ErrorClass.UNKNOWN_HOST,
        "the host name could not be looked up",
    ),
    _Meaning(
        f"{_CONNECT}.*(assign requested address|No such device|by protocol)", ErrorClass.ARGUMENTS
    ),
    _Meaning(_CONNECT, ErrorClass.UNREACHABLE),
    _Meaning("interrupt - the (client|server) has terminated", ErrorClass.KILLED),
    _Meaning(
        "authorization failed", ErrorClass.NOT_ALLOWED, "the server wants a user name and password"
    ),
    _Meaning(
        "parameter error|(un|not )recognized option|requires an argument"
        "|unable to set |socket buffer size not set|unable to start listener",
        ErrorClass.ARGUMENTS,
    ),
    _Meaning(
        "the (server|client) has (terminated|unexpectedly)|control socket has closed"
        "|unable to (receive|send|read|write|connect)|Connection reset by peer|Broken pipe",
        ErrorClass.PEER_LOST,
    ),
)
_NOISE = re.compile(r"\A(?:\S*iperf3\S*: )?(?:parameter )?(?:error - )?")


def classify(words: str) -> tuple[ErrorClass, str]:
    """The error class of an error message, and the message to show."""
    message = _NOISE.sub("", words)
    for known in _MEANINGS:
        if re.search(known.pattern, words):
            return known.error_class, f"{message} ({known.remark})" if known.remark else message
    return ErrorClass.OTHER, message


def error_line(stderr: str) -> str:
    """The line of stderr that has the error message: no warning and no usage."""
    lines = [line.strip() for line in stderr.splitlines()]
    told = [line for line in lines if line and not line.lower().startswith("warning")]
    return next((line for line in told if "error - " in line), told[0] if told else "")
