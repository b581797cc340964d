"""What newer iperf3s write line by line is read as it comes, and becomes the document of `-J`."""

import io
import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.iperf3.documents import find_documents, without_intervals, without_streams
from agent.iperf3.stream import LONGEST_LINE, compose, read_lines
from agent.iperf3.summary import Sums
from agent.iperf3.verdict import judge_client
from tests.support.recorded_runs import VERSIONS, paths, run, runs

PREFIX = "stream-"
CASES = [
    (version, case.removeprefix(PREFIX))
    for version in VERSIONS
    for case in runs(version)
    if case.startswith(PREFIX)
]
GOOD = [pair for pair in CASES if pair[1].startswith(("tcp", "udp"))]
# Here no test began, and the stream does not say what iperf3 this is.
WITHOUT_START = ("refused", "busy", "unknown-host")
STREAMING = sorted({version for version, _ in CASES})
PARALLEL = run("3.18", "stream-tcp-parallel").stdout
INTERRUPTED = run("3.22", "stream-client-term").stdout

streams = st.sampled_from([run(version, PREFIX + case).stdout for version, case in CASES])


def stream(version: str, case: str) -> bytes:
    """What a client of that case wrote."""
    return run(version, PREFIX + case).stdout


def composed(data: bytes) -> bytes:
    """The document of a stream."""
    return b"".join(compose(io.BytesIO(data)))


def test_streams_of_two_versions_are_recorded() -> None:
    assert STREAMING == ["3.18", "3.22"]


@pytest.mark.parametrize(("version", "case"), CASES)
def test_a_stream_has_a_start_if_its_test_began(version: str, case: str) -> None:
    data = stream(version, case)
    assert read_lines(data)[1] == (case not in WITHOUT_START)
    assert not read_lines(data[: data.find(b"\n") // 2])[1]


@pytest.mark.parametrize(("version", "case"), GOOD)
def test_the_composed_document_has_the_shape_of_j(version: str, case: str) -> None:
    document = json.loads(composed(stream(version, case)))
    usual = json.loads(run(version, case).stdout)
    assert list(document) == list(usual) == ["start", "intervals", "end"]
    assert len(document["intervals"]) == len(usual["intervals"])
    assert set(paths(document)) == set(paths(usual))


@pytest.mark.parametrize(("version", "case"), GOOD)
def test_the_composed_document_has_all_keys_of_the_oldest_documents(
    version: str, case: str
) -> None:
    known = set(paths(json.loads(run("3.12", case).stdout)))
    assert known <= set(paths(json.loads(composed(stream(version, case)))))


@pytest.mark.parametrize(("version", "case"), CASES)
def test_every_value_is_kept_byte_for_byte(version: str, case: str) -> None:
    data = stream(version, case)
    document = msgspec.json.decode(composed(data), type=dict[str, msgspec.Raw])
    intervals = msgspec.json.decode(document["intervals"], type=list[msgspec.Raw])
    for line in data.splitlines():
        event, _, value = line.removeprefix(b'{"event":"').partition(b'","data":')
        found = intervals.pop(0) if event == b"interval" else document[event.decode()]
        assert bytes(found) == value[:-1]
    assert not intervals


@pytest.mark.parametrize(("version", "case"), CASES)
def test_a_streamed_run_is_judged_as_one_with_j(version: str, case: str) -> None:
    usual, streamed = run(version, case), run(version, PREFIX + case)
    document = composed(streamed.stdout)
    assert find_documents(document) == [(0, len(document))]
    judged = judge_client(streamed.exit_code, document, streamed.stderr)
    expected = judge_client(usual.exit_code, usual.stdout, usual.stderr)
    assert (judged.ok, judged.error_class) == (expected.ok, expected.error_class)
    assert judged.message == expected.message
    assert judged.summary is not None
    if case not in WITHOUT_START:
        assert judged.summary.start.test_start is not None


@pytest.mark.parametrize("version", STREAMING)
@pytest.mark.parametrize("case", WITHOUT_START)
def test_a_test_that_never_began_has_all_keys_as_well(version: str, case: str) -> None:
    document, usual = json.loads(composed(stream(version, case))), json.loads(
        run(version, case).stdout
    )
    assert list(document) == list(usual) == ["start", "intervals", "end", "error"]
    assert document["start"] == {"connected": usual["start"]["connected"]} == {"connected": []}
    assert (document["intervals"], document["end"]) == ([], {})


def test_a_killed_client_leaves_its_measurements() -> None:
    """With `-J` it leaves nothing."""
    assert run("3.22", "client-kill").stdout == b""
    document = json.loads(composed(stream("3.22", "client-kill")))
    assert list(document) == ["start", "intervals", "end"]
    assert document["start"]["test_start"]["protocol"] == "TCP"
    assert document["intervals"] and document["end"] == {}


@pytest.mark.parametrize("shrink", [without_streams, without_intervals])
def test_a_composed_document_can_be_made_smaller(shrink: Callable[[bytes], bytes]) -> None:
    document, smaller = composed(PARALLEL), shrink(composed(PARALLEL))
    assert len(smaller) < len(document)
    assert json.loads(smaller)["end"] == json.loads(document)["end"]


def test_an_unknown_event_becomes_a_key() -> None:
    said = b'{"event":"server_output_text","data":"a\\tb"}\n'
    end = PARALLEL.index(b'{"event":"end"')
    document = json.loads(composed(PARALLEL[:end] + said + PARALLEL[end:]))
    assert document.pop("server_output_text") == "a\tb"
    assert document == json.loads(composed(PARALLEL))


def test_the_first_of_two_errors_counts() -> None:
    lines = [b'{"event":"error","data":"the cause"}', b'{"event":"error","data":"exiting"}']
    assert json.loads(composed(b"\n".join(lines)))["error"] == "the cause"


@settings(deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_a_truncated_stream_is_not_a_success(pair: tuple[str, str], data: st.DataObject) -> None:
    whole = stream(*pair).rstrip()
    length = data.draw(st.integers(0, len(whole) - 1))
    cut = whole[:length]
    # A line is whole also when only its end is missing.
    lines = whole[: length + 1].count(b"\n")
    document = composed(cut)
    judged = judge_client(0, document, "")
    assert (judged.ok, judged.error_class) == (False, "bad_output")
    assert bool(document) == (lines > 0)
    if document:
        assert json.loads(document)["end"] == {}
        assert len(json.loads(document)["intervals"]) == max(0, lines - 1)


stray = st.sampled_from(
    [
        b"",
        b"\n",
        b"WARNING: x\n",
        b'{"event":1}\n',
        b'{"event":"interval"}\n',
        b'{"event":"caf\xc3","data":1}\n',
        b'{"event":"end","data":' + b"[" * 10**4 + b"]" * 10**4 + b"}\n",
    ]
)


@settings(deadline=None)
@given(streams, st.data())
def test_lines_without_an_event_change_nothing(lines: bytes, data: st.DataObject) -> None:
    mixed = b"".join(line + data.draw(stray) for line in lines.splitlines(keepends=True))
    assert composed(mixed) == composed(lines)
    assert read_lines(mixed)[0] == read_lines(lines)[0]


@settings(deadline=None)
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(PARALLEL.split(b",")), max_size=9).map(b",".join)
)
def test_arbitrary_bytes_raise_nothing(data: bytes) -> None:
    assert judge_client(0, composed(data), "").ok is False
    _, _, read = read_lines(data)
    assert read == data.rfind(b"\n") + 1


@settings(deadline=None)
@given(streams, st.lists(st.integers(1, 2000), min_size=1))
def test_reading_piece_by_piece_finds_the_same_intervals(data: bytes, sizes: list[int]) -> None:
    """While the file grows, an incomplete line is read again."""
    found, begun, position, known = [], False, 0, 0
    while known < len(data):
        known = min(len(data), known + sizes[known % len(sizes)])
        intervals, begins, read = read_lines(data[position:known])
        found += intervals
        begun |= begins
        position += read
    assert (found, begun, position) == read_lines(data)


def test_an_endless_line_is_skipped() -> None:
    endless = b"x" * (LONGEST_LINE + 5)
    assert read_lines(endless[:LONGEST_LINE]) == ([], False, LONGEST_LINE)
    assert read_lines(endless[LONGEST_LINE:] + b"\n" + PARALLEL)[0]
    assert composed(endless + b"\n" + PARALLEL) == composed(PARALLEL)


@pytest.mark.parametrize(("version", "case"), GOOD)
def test_the_intervals_are_those_of_the_document(version: str, case: str) -> None:
    intervals, _, read = read_lines(stream(version, case))
    document = json.loads(composed(stream(version, case)))
    assert read == len(stream(version, case))
    assert [interval.bits_per_second for interval in intervals] == [
        interval["sum"]["bits_per_second"] for interval in document["intervals"]
    ]
    counted = [found.retransmits for found in intervals if not found.omitted]
    if "retransmits" in document["end"].get("sum_sent", {}) and "reverse" not in case:
        assert sum(count or 0 for count in counted) == document["end"]["sum_sent"]["retransmits"]
    else:
        assert counted == [None] * len(counted)


def test_a_rate_of_null_is_none() -> None:
    """cJSON writes null for what is not a number."""
    line = b'{"event":"interval","data":{"sum":{"bits_per_second":null,"retransmits":0}}}\n'
    assert read_lines(line)[0] == [Sums(bits_per_second=None, retransmits=0)]
