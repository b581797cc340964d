"""What the error messages of iperf3 mean."""

import re

from agent.error_classes import ErrorClass

# Only the text tells one error of iperf3 from another: the exit code is 0 or 1. These are the texts
# of 3.9 to 3.22 (recorded in tests/iperf3/data); the first that matches counts.
# Each pattern has its error class, and a remark that explains a misleading message.
_CONNECT = "unable to connect to server"
_BEFORE_3_10 = "unable to send control message"
_MEANINGS = (
    ("Address already in use", ErrorClass.PORT_IN_USE, ""),
    ("server is busy", ErrorClass.BUSY, ""),
    (f"{_BEFORE_3_10}: (Connection reset|Broken pipe)", ErrorClass.BUSY, "the server hung up"),
    (f"{_CONNECT}.*Connection refused", ErrorClass.REFUSED, ""),
    (
        f"{_BEFORE_3_10}: Bad file descriptor",
        ErrorClass.REFUSED,
        "no connection; this iperf3 does not say whether it was refused, the host is unknown"
        " or cannot be reached",
    ),
    (f"{_CONNECT}.*(service not known|name resolution|for hostname)", ErrorClass.UNKNOWN_HOST, ""),
    (
        f"{_CONNECT}.*(Resource temporarily unavailable|Message too long)",
        ErrorClass.UNKNOWN_HOST,
        "the host name could not be looked up",
    ),
    (
        f"{_CONNECT}.*(assign requested|No such device|Invalid argument|by protocol)",
        ErrorClass.ARGUMENTS,
        "",
    ),
    (_CONNECT, ErrorClass.UNREACHABLE, ""),
    ("interrupt - the (client|server) has terminated", ErrorClass.KILLED, ""),
    ("authorization failed", ErrorClass.NOT_ALLOWED, "the server wants a user name and password"),
    (
        "parameter error|(un|not )recognized option|requires an argument"
        "|unable to set |socket buffer size not set|unable to start listener",
        ErrorClass.ARGUMENTS,
        "",
    ),
    (
        "the (server|client) has (terminated|unexpectedly)|control socket has closed"
        "|unable to (receive|send|read|write|connect)|Connection reset by peer|Broken pipe",
        ErrorClass.PEER_LOST,
        "",
    ),
)
_NOISE = re.compile(r"\A(?:\S*iperf3\S*: )?(?:parameter )?(?:error - )?")


def classify(words: str) -> tuple[ErrorClass, str]:
    """The error class of an error message, and the message to show."""
    message = _NOISE.sub("", words)
    for pattern, error_class, remark in _MEANINGS:
        if re.search(pattern, words):
            return error_class, f"{message} ({remark})" if remark else message
    return ErrorClass.OTHER, message


def error_line(stderr: str) -> str:
    """The line of stderr that has the error message: no warning and no usage."""
    lines = [line.strip() for line in stderr.splitlines()]
    told = [line for line in lines if line and not line.lower().startswith("warning")]
    return next((line for line in told if "error - " in line), told[0] if told else "")
