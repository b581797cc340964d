"""Every message of iperf3 has its class, whoever words the rest of it and whatever goes before."""

import itertools
from pathlib import Path

import pytest

from agent.iperf3.failures import classify, error_line

_ROWS = [
    line.split("\t")[:2]
    for line in Path(__file__).with_name("errors.tsv").read_text().splitlines()
    if not line.startswith("#")
]
# What an earlier call may have left in errno: iperf3 puts it behind many a message.
STALE = ("", ": ", ": Success", ": Resource temporarily unavailable", ": Invalid argument")
LOADER = (
    "ERROR: ld.so: object '/opt/x.so' from LD_PRELOAD cannot be preloaded (cannot open shared"
    " object file): ignored.\n"
    "iperf3: /opt/libssl.so.3: no version information available (required by iperf3)\n"
)


@pytest.mark.parametrize(("message", "error_class"), _ROWS)
def test_each_message_has_its_class(message: str, error_class: str) -> None:
    before = ("", "error - ", "iperf3: error - ", "SERVER ERROR - ", "iperf3: SERVER ERROR - ")
    behind = ("",) if ": " in message else STALE
    for start, end in itertools.product(before, behind):
        found, shown = classify(f"{start}{message}{end}")
        assert found == error_class, (start, end)
        assert message in shown


@pytest.mark.parametrize(("message", "error_class"), _ROWS)
def test_newer_versions_put_advice_into_the_message(message: str, error_class: str) -> None:
    """From 3.17 on; not into that of 3.9, which means another thing."""
    head, colon, tail = message.partition(": ")
    if head.startswith("unable to connect to server"):
        head += " - server may have stopped running or use a different port, firewall issue, etc."
    assert classify(f"error - {head}{colon}{tail}")[0] == error_class


@pytest.mark.parametrize(
    ("message", "remark"),
    [
        ("unable to create a new stream: No such file or directory", "TMPDIR"),
        ("unable to create a new stream: Bad file descriptor", "TMPDIR"),
        ("socket buffer size not set correctly", "net.core.rmem_max"),
        ("int_errno=999: Success", "newer"),
        ("test authorization failed", "user name"),
    ],
)
def test_a_message_that_says_little_is_explained(message: str, remark: str) -> None:
    assert remark in classify(message)[1]


@pytest.mark.parametrize(
    ("message", "error_class"),
    [
        ("unable to send control message: Connection reset by peer", "busy"),
        ("unable to send control message - port may not be available: Broken pipe", "peer_lost"),
        ("unable to connect to server: Connection reset by peer", "peer_lost"),
        (
            "Keepalive Idle time (5) should be greater than Retries-interval (75) times"
            " Retries-count (9)",
            "arguments",
        ),
        ("unable to receive control message: Too many open files", "host_error"),
        ("unable to create a new stream: Too many open files", "host_error"),
        ("the server is busy running a test. try again later: Address already in use", "busy"),
        ("test authorization failed: Address already in use", "not_allowed"),
        ("unrecognized option '--nosuch'", "arguments"),
        ("unrecognized option: nosuch", "arguments"),
        ("interrupt - the server has terminated by signal Terminated(15)", "killed"),
        ("iperf3: error while loading shared libraries: libiperf.so.0: x", "iperf3_missing"),
        ("Error loading shared library libiperf.so.0: No such file", "iperf3_missing"),
        ("Error relocating /usr/bin/iperf3: iperf_new_test: symbol not found", "iperf3_missing"),
    ],
)
def test_what_goes_on_behind_the_message_counts_where_it_means_something(
    message: str, error_class: str
) -> None:
    assert classify(message)[0] == error_class


@pytest.mark.parametrize(
    "line",
    [
        "iperf3: error - test authorization failed",
        "iperf3: unrecognized option '--nosuch'",
        "iperf3: parameter error - bad TOS value",
        "iperf3: error while loading shared libraries: libiperf.so.0",
    ],
)
def test_the_line_of_iperf3_is_found_behind_the_loaders(line: str) -> None:
    text = f"{LOADER}warning: this system does not like it\n{line}\nUsage: iperf3 [-s|-c host]\n"
    assert error_line(text) == line
    assert error_line(LOADER) == ""
