"""What the error messages of iperf3 mean."""

import re

from agent.errors import ErrorClass

# Only the text tells one error of iperf3 from another: the exit code is 0 or 1. These are the texts
# of 3.9 to 3.22, with the words of glibc, musl and macOS for errno (tests/iperf3/errors.tsv). The
# first that matches counts: what goes on behind a message may be the errno of an earlier call.
_CONNECT = "unable to connect to server"
_BEFORE_3_10 = "unable to send control message"
_NO_LOOK_UP = f"{_CONNECT}.*(Resource temporarily unavailable|Message too long)"
_MEANINGS = (
    (ErrorClass.BUSY, f"server is busy|{_BEFORE_3_10}: (Connection reset|Broken pipe)"),
    (ErrorClass.REFUSED, f"{_BEFORE_3_10}: Bad file descriptor"),
    (ErrorClass.NOT_ALLOWED, "authorization failed|larger than server limit"),
    (ErrorClass.NOT_ALLOWED, "server's maximum permitted|server test duration expired"),
    # A client does not know the numbers of newer servers. 37 and 160: --server-max-duration.
    (ErrorClass.NOT_ALLOWED, "int_errno=(37|160):|start listener.*Permission denied"),
    (ErrorClass.OTHER, "int_errno="),
    (ErrorClass.IPERF3_MISSING, "rror (while )?loading shared librar|Error relocating"),
    (ErrorClass.UNSUPPORTED, "this OS does not support|<dev>` is not supported"),
    (ErrorClass.UNSUPPORTED, "not implemented yet|no SCTP support|protocol does not exist"),
    (ErrorClass.PORT_IN_USE, "Address (already )?in use"),
    (ErrorClass.HOST_ERROR, "Too many open files|No file descriptors|No space left"),
    (ErrorClass.HOST_ERROR, "Cannot allocate|Out of memory"),
    (ErrorClass.REFUSED, f"{_CONNECT}.*Connection refused"),
    (ErrorClass.UNKNOWN_HOST, f"{_CONNECT}.*(not known|resol|(for|with) (host|node)name)"),
    (ErrorClass.UNKNOWN_HOST, f"{_CONNECT}.*(no usable address|Try again|Non-recoverable)"),
    (ErrorClass.UNKNOWN_HOST, _NO_LOOK_UP),
    (ErrorClass.ARGUMENTS, f"{_CONNECT}.*(assign requested|Address not available)"),
    (ErrorClass.ARGUMENTS, f"{_CONNECT}.*(No such device|Invalid argument|by protocol)"),
    (ErrorClass.PEER_LOST, f"{_CONNECT}.*Connection reset"),
    (ErrorClass.UNREACHABLE, _CONNECT),
    (ErrorClass.KILLED, "interrupt - the (client|server) has terminated"),
    (ErrorClass.PEER_LOST, "unable to initialize stream: .*not connected"),
    (ErrorClass.HOST_ERROR, "unable to (create|initialize|update|cancel|join|destroy|change)"),
    (ErrorClass.HOST_ERROR, "unable to (reuse|open|become)|PID file|to non-blocking"),
    (ErrorClass.HOST_ERROR, "test initialization failed|select failed"),
    (ErrorClass.ARGUMENTS, "parameter error|(un|not )recognized option|requires an argument"),
    (ErrorClass.ARGUMENTS, "some option|cannot be|cannot access|must |valid values|transfer file"),
    (ErrorClass.ARGUMENTS, "invalid (number|report|burst|unit)|too (large|long)|bad |block size"),
    (ErrorClass.ARGUMENTS, "bogus|only one|in range|larger than|only in receiving"),
    (ErrorClass.ARGUMENTS, "should be (larger|greater)|<dev>|[Uu]nable to (set|bind|start)"),
    (ErrorClass.ARGUMENTS, "buffer size not set"),
    (ErrorClass.PEER_LOST, "the (server|client) has (terminated|unexpectedly)"),
    (ErrorClass.PEER_LOST, "(control|stream) socket has closed|unknown control message"),
    (ErrorClass.PEER_LOST, "idle timeout for receiving|stream has an invalid id"),
    (ErrorClass.PEER_LOST, "unable to (receive|send|read|write|connect|accept|package)"),
    (ErrorClass.PEER_LOST, "Connection reset by peer|Broken pipe"),
)
# What explains a misleading message.
_REMARKS = (
    (f"{_BEFORE_3_10}: (Connection reset|Broken pipe)", "the server hung up"),
    (
        f"{_BEFORE_3_10}: Bad file descriptor",
        "no connection; this iperf3 does not say whether it was refused, the host is unknown"
        " or cannot be reached",
    ),
    (
        "authorization failed",
        "the server wants a login: user name, password, key, padding and clock must fit",
    ),
    ("error - no error", "iperf3 3.21 and newer say no more of a login that they refuse"),
    ("trying to set is server only", "as in iperf3 3.22, which has use_pkcs1_padding in servers"),
    ("int_errno=", "the server's iperf3 is newer, and this one has no words for its reason"),
    (_NO_LOOK_UP, "the host name could not be looked up"),
    ("create a new stream: (No such|Bad) file", "is TMPDIR there, on this host and the server's?"),
    ("buffer size not set", "the kernel's net.core.rmem_max or wmem_max is below the window"),
)
_NOISE = re.compile(r"\A(?:\S*iperf3\S*: )?(?:parameter )?(?:error - )?")
# What the loader says of LD_PRELOAD and of libraries, and iperf3 of itself: no reason to fail.
_IGNORED = re.compile(r"warning|ERROR: ld\.so|.*no version information available", re.IGNORECASE)


def classify(words: str) -> tuple[ErrorClass, str]:
    """The error class of an error message, and the message to show."""
    message = _NOISE.sub("", words)
    remark = next((text for pattern, text in _REMARKS if re.search(pattern, words)), "")
    meanings = (each for each, pattern in _MEANINGS if re.search(pattern, words))
    return next(meanings, ErrorClass.OTHER), f"{message} ({remark})" if remark else message


def told_lines(text: str) -> list[str]:
    """The lines that say something: no warning, and nothing that the loader says beside it."""
    lines = map(str.strip, text.splitlines())
    return [line for line in lines if line and not _IGNORED.match(line)]


def error_line(stderr: str) -> str:
    """The line of stderr that has the error message: no warning, no noise and no usage."""
    told = told_lines(stderr)
    return next((line for line in told if "error - " in line), told[0] if told else "")
