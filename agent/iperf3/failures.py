"""What iperf3's own words for a failure mean."""

import re

# iperf3 tells its errors apart by text alone: no code, and the exit code is 0 or 1. The texts
# are those of 3.9 to 3.22 (tests/iperf3/data has them); the first that matches counts. A remark
# is added where the words mislead.
_CONNECT = "unable to connect to server"
_BEFORE_3_10 = "unable to send control message"
_CLASSES: list[tuple[str, str, str]] = [
    ("Address already in use", "port_in_use", ""),
    ("server is busy", "busy", ""),
    (f"{_BEFORE_3_10}: (Connection reset by peer|Broken pipe)", "busy", "the server hung up"),
    (f"{_CONNECT}.*Connection refused", "refused", ""),
    (
        f"{_BEFORE_3_10}: Bad file descriptor",
        "refused",
        "no connection; this iperf3 does not say whether it was refused, the host is unknown"
        " or cannot be reached",
    ),
    (f"{_CONNECT}.*Name or service not known", "unknown_host", ""),
    (f"{_CONNECT}.*name resolution", "unknown_host", ""),
    (f"{_CONNECT}.*Address family for hostname", "unknown_host", ""),
    (
        f"{_CONNECT}.*(Resource temporarily unavailable|Message too long)",
        "unknown_host",
        "the host name could not be looked up",
    ),
    (f"{_CONNECT}.*(assign requested address|No such device|by protocol)", "arguments", ""),
    (_CONNECT, "unreachable", ""),
    ("interrupt - the (client|server) has terminated", "killed", ""),
    ("authorization failed", "not_allowed", "the server wants a user name and password"),
    ("parameter error|(un|not )recognized option|requires an argument", "arguments", ""),
    ("unable to set |socket buffer size not set|unable to start listener", "arguments", ""),
    ("the (server|client) has (terminated|unexpectedly)", "peer_lost", ""),
    ("control socket has closed|unable to (receive|send|read|write|connect)", "peer_lost", ""),
    ("Connection reset by peer|Broken pipe", "peer_lost", ""),
]
_NOISE = re.compile(r"\A(?:\S*iperf3\S*: )?(?:parameter )?(?:error - )?")


def classify(words: str) -> tuple[str, str]:
    """The error class of iperf3's words, and the message to show for them."""
    message = _NOISE.sub("", words)
    for pattern, error_class, remark in _CLASSES:
        if re.search(pattern, words):
            return error_class, f"{message} ({remark})" if remark else message
    return "other", message


def error_line(stderr: str) -> str:
    """The line of stderr that names the error: not a warning, not the usage."""
    lines = [line.strip() for line in stderr.splitlines()]
    told = [line for line in lines if line and not line.lower().startswith("warning")]
    return next((line for line in told if "error - " in line), told[0] if told else "")
