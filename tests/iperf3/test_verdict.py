"""Runs of real iperf3s are judged by what they wrote, whatever their exit code says."""

import pytest

from agent.iperf3.documents import find_documents
from agent.iperf3.verdict import RETRIABLE, judge_client, judge_server_exit, last_served
from tests.support.recorded_runs import VERSIONS, run, runs, summary_of

# The error class and a part of the message of each failed client, for 3.10 and later.
FAILED = {
    "refused": ("refused", "Connection refused"),
    "busy": ("busy", "the server is busy running a test"),
    "unknown-host": ("unknown_host", "Name or service not known"),
    "wrong-family": ("unknown_host", "Address family for hostname not supported"),
    "no-resolver": ("unknown_host", "the host name could not be looked up"),
    "no-network": ("unreachable", "Network is unreachable"),
    "no-route": ("unreachable", "No route to host"),
    "connect-timeout": ("unreachable", "Connection timed out"),
    "client-term": ("killed", "interrupt - the client has terminated"),
    "client-kill": ("killed", "iperf3 was ended by SIGKILL"),
    "client-of-server-term": ("peer_lost", "the server has terminated"),
    "client-of-server-kill": ("peer_lost", "control socket has closed unexpectedly"),
    "udp-port-in-use": ("port_in_use", "unable to start stream listener: Address already in use"),
    "arguments-affinity": ("arguments", "unable to set CPU affinity"),
    "arguments-bind": ("arguments", "Cannot assign requested address"),
    "arguments-bind-family": ("arguments", "Address family not supported by protocol"),
    "arguments-congestion": ("arguments", "unable to set TCP_CONGESTION"),
    "arguments-dscp": ("arguments", "bad "),
    "arguments-flow-label": ("arguments", "unable to set IPv6 flow label"),
    "arguments-length": ("arguments", "block size too large (maximum = 1048576 bytes)"),
    "arguments-parallel": ("arguments", "number of parallel streams"),
    "arguments-reverse-bidir": ("arguments", "cannot be both reverse and bidirectional"),
    "arguments-time-and-bytes": ("arguments", "only one test end condition"),
    "arguments-unknown-option": ("arguments", "unrecognized option '--nosuch'"),
    "arguments-window": ("arguments", "socket buffer size not set correctly"),
}
NO_CONNECTION = ("refused", "unable to send control message: Bad file descriptor (no connection")
SILENT = ("other", "iperf3 ended with exit code 1 and did not say why")
# Where a version says less, or something else.
OTHERWISE = {
    "3.9": {
        "busy": ("busy", "unable to send control message"),
        **dict.fromkeys(
            "refused unknown-host wrong-family no-resolver no-network no-route connect-timeout"
            " arguments-bind arguments-bind-family".split(),
            NO_CONNECTION,
        ),
    },
    "3.18": {"arguments-affinity": SILENT},
    "3.22": {"arguments-affinity": SILENT},
}
NOT_LISTENING = {
    "server-port-in-use": ("port_in_use", "unable to start listener", "Address already in use"),
    "server-arguments-bind": ("arguments", "unable to start listener", "Cannot assign requested"),
    "server-arguments-udp": ("arguments", "some option", "client only"),
}
ALL = [(version, case) for version in VERSIONS for case in runs(version)]
CLIENTS = [pair for pair in ALL if run(*pair).role == "client"]
SERVED = [pair for pair in ALL if pair[1].startswith(("server-tcp", "server-udp"))]


@pytest.mark.parametrize(("version", "case"), CLIENTS)
def test_a_client_is_judged_by_what_it_wrote(version: str, case: str) -> None:
    found = run(version, case)
    judged = judge_client(found.exit_code, found.stdout, found.stderr)
    spans = find_documents(found.stdout)
    assert judged.span == (spans[-1] if spans else None)
    if case in FAILED:
        error_class, words = OTHERWISE.get(version, {}).get(case, FAILED[case])
        assert (judged.ok, judged.error_class) == (False, error_class)
        assert words in judged.message
        assert not judged.message.startswith(("iperf3:", "error", "parameter error"))
        assert "\n" not in judged.message
    else:
        assert (judged.ok, judged.error_class, judged.message) == (True, None, "")
        assert judged.summary is not None and judged.summary.has_end


@pytest.mark.parametrize("version", VERSIONS)
def test_every_failure_of_the_table_was_recorded(version: str) -> None:
    assert FAILED.keys() | NOT_LISTENING.keys() <= runs(version).keys()


def test_some_failures_exit_with_code_0() -> None:
    silent = [pair for pair in CLIENTS if pair[1] in FAILED and run(*pair).exit_code == 0]
    assert ("3.12", "refused") in silent and ("3.22", "client-term") in silent


@pytest.mark.parametrize("version", VERSIONS)
def test_an_interrupted_client_keeps_its_measurements(version: str) -> None:
    found = run(version, "client-term")
    judged = judge_client(found.exit_code, found.stdout, found.stderr)
    assert judged.summary is not None and judged.summary.end.sum_sent is not None
    assert judged.summary.end.sum_sent.bytes


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", NOT_LISTENING)
def test_a_server_that_never_listened_says_why(version: str, case: str) -> None:
    found = run(version, case)
    error_class, *words = NOT_LISTENING[case]
    judged = judge_server_exit(found.exit_code, found.stdout, found.stderr)
    assert (judged.ok, judged.error_class) == (False, error_class)
    assert all(word in judged.message for word in words)
    assert judged.message.startswith(words[0])


def test_a_server_that_ended_with_code_0_before_it_listened_has_failed() -> None:
    judged = judge_server_exit(0, b"", "")
    assert (judged.ok, judged.error_class) == (False, "bad_output")
    assert judged.message


@pytest.mark.parametrize(("version", "case"), SERVED)
def test_the_document_of_an_idle_server_does_not_replace_that_of_a_test(
    version: str, case: str
) -> None:
    data = run(version, case).stdout
    first, idle = find_documents(data)
    assert last_served(data).span == first
    assert last_served(data[: first[1]]).span == first
    assert last_served(data[idle[0] :]).span is None


@pytest.mark.parametrize("version", VERSIONS)
def test_the_newest_of_several_tests_is_the_one_served(version: str) -> None:
    asked = summary_of(run(version, "server-probed-two-tests")).start.test_start
    assert asked is not None and asked.num_streams == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_was_idle_or_killed_has_served_nothing(version: str) -> None:
    for case in ("server-idle-term", "server-kill", "server-port-in-use"):
        assert last_served(run(version, case).stdout).span is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_stopped_during_a_test_has_a_partial_document(version: str) -> None:
    assert last_served(run(version, "server-term").stdout).span is not None


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "error_class", "message"),
    [
        (0, b"", "", "bad_output", "iperf3 ended with exit code 0 but wrote no JSON document"),
        (0, b"nonsense", "warning: x", "bad_output", "iperf3 ended with exit code 0 but"),
        (0, b'{"end":{}}', "", "bad_output", "iperf3 wrote a document without an end"),
        (0, b'{"end":[]}', "", "bad_output", "iperf3 wrote a JSON document of an unusual shape"),
        (1, b'{"end":{"sum":{}}}', "", "other", "iperf3 ended with exit code 1 and did not"),
        (139, b"", "", "other", "iperf3 ended with exit code 139 and did not say why"),
        (-11, b"", "", "crashed", "iperf3 was ended by SIGSEGV"),
        (-6, b"", "noise\n", "crashed", "iperf3 was ended by SIGABRT; before that it wrote: noise"),
        (-7, b"", "", "crashed", "iperf3 was ended by SIGBUS"),
        (-4, b"", "", "crashed", "iperf3 was ended by SIGILL"),
        (-8, b"", "", "crashed", "iperf3 was ended by SIGFPE"),
        (-9, b"", "openssl: noise", "killed", "iperf3 was ended by SIGKILL; before that it wrote"),
        (-9, b"", "ERROR: ld.so: object 'x' cannot be preloaded: ignored.", "killed",
         "iperf3 was ended by SIGKILL"),
        (-11, b'{"error":"the server is busy running a test","end":{}}', "", "crashed",
         "iperf3 was ended by SIGSEGV; before that it wrote: the server is busy"),
        (-50, b"", "", "killed", "iperf3 was ended by signal 50"),
        (1, b"", "iperf3: error - something new\n", "other", "something new"),
        (1, b"", "warning: a\niperf3: error - test authorization failed", "not_allowed", "test au"),
        (0, b'{"error":"test authorization failed","end":{}}', "", "not_allowed", "test auth"),
        (1, b"", "iperf3: error - unable to send control message: Connection reset by peer",
         "busy", "unable to send control message: Connection reset by peer (the server hung up)"),
        (1, b"", "iperf3: error - unable to write to stream socket: Broken pipe",
         "peer_lost", "unable to write to stream socket: Broken pipe"),
        (1, b'{"error":"unable to connect stream: Connection refused"}', "",
         "peer_lost", "unable to connect stream: Connection refused"),
    ],
)  # fmt: skip
def test_every_failure_has_a_class_and_a_message(
    code: int, stdout: bytes, stderr: str, error_class: str, message: str
) -> None:
    judged = judge_client(code, stdout, stderr)
    assert (judged.ok, judged.error_class) == (False, error_class)
    assert judged.message.startswith(message)


def test_only_a_refusal_or_a_busy_server_is_tried_again() -> None:
    assert RETRIABLE == {"refused", "busy"}
