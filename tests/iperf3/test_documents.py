"""iperf3's JSON is found among other text, and made smaller."""

import json
import mmap
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import TaskError
from agent.iperf3.documents import (
    find_documents,
    without_intervals,
    without_streams,
)
from agent.iperf3.summary import read_summary
from tests.support.recorded_runs import VERSIONS, run, runs

TCP = run("3.12", "tcp-parallel").stdout.rstrip()
IDLE = run("3.12", "server-idle-term").stdout.rstrip()
WARNING = b"WARNING:  Size of data read does not correspond to offered length\n"

documents = st.sampled_from([found.stdout.strip() for found in runs("3.12").values()]).filter(
    lambda text: text.startswith(b"{") and text.count(b"\n}") == 1
)
stray = st.sampled_from([b"", b"\n", WARNING, WARNING.rstrip(), b"\0\0\0", b"a } b\n", b"{ x\n"])


def texts(data: bytes) -> list[bytes]:
    """The documents found, as text."""
    return [data[start:end] for start, end in find_documents(data)]


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_and_every_span_is_an_object(data: bytes) -> None:
    for text in texts(data):
        assert isinstance(json.loads(text), dict)


fragments = st.lists(
    st.sampled_from([b"{", b"}", b"\n}", b'{\n\t"a":\t', b'{"', b'"', b"1", b"\n", b"\t", b"\xff"]),
    max_size=30,
)


@settings(deadline=None)
@given(fragments)
def test_broken_json_raises_nothing_and_spans_are_valid_and_in_order(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    last = 0
    for start, end in find_documents(data):
        assert start >= last and isinstance(json.loads(data[start:end]), dict)
        last = end


@settings(deadline=None)
@given(st.lists(st.tuples(stray, documents), max_size=5), stray)
def test_all_documents_among_other_text_are_found(
    pairs: list[tuple[bytes, bytes]], last: bytes
) -> None:
    data = b"".join(before + document for before, document in pairs) + last
    assert texts(data) == [document for _, document in pairs]


@settings(deadline=None)
@given(documents, documents, st.data())
def test_an_incomplete_document_is_skipped(
    first: bytes, second: bytes, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(second) - 1))
    assert texts(first + b"\n" + second[:cut]) == [first]


def test_a_document_after_a_truncated_one_is_found() -> None:
    assert texts(TCP[:900] + b"\n" + IDLE) == [IDLE]


def test_objects_on_a_single_line_are_found() -> None:
    assert texts(b'{"a":{"b":1}}\nx\n{"c":[{}]} \r\n' + TCP) == [
        b'{"a":{"b":1}}',
        b'{"c":[{}]}',
        TCP,
    ]


@pytest.mark.parametrize("text", [b"{}", b"{\n}", b"{\n}\n", b"{ }"])
def test_an_empty_object_is_not_a_document(text: bytes) -> None:
    """The report of the agent goes before the first key, and there is none."""
    assert find_documents(text) == []


def test_braces_inside_a_string_are_not_boundaries() -> None:
    document = b'{\n\t"title":\t"{\\"a\\":1} \\n}",\n\t"end":\t{\n\t}\n}'
    assert texts(WARNING + document) == [document]


@pytest.mark.parametrize("text", [b"\xff\xfe", b"caf\xc3"])
def test_a_document_that_is_not_utf_8_is_skipped(text: bytes) -> None:
    assert texts(b'{\n\t"title":\t"' + text + b'"\n}\n' + IDLE) == [IDLE]


def test_very_deep_nesting_is_skipped() -> None:
    """A search from every brace would exceed the time limit of the test."""
    assert texts(b'{"a":' * 10**5 + b"1" + b"}" * 10**5) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_documents_of_a_probed_server_are_in_order(version: str) -> None:
    data = run(version, "server-probed-two-tests").stdout
    summaries = [read_summary(text) for text in texts(data)]
    assert all(summaries)
    tested = [found for found in summaries if found and found.has_end]
    streams = [found.start.test_start.num_streams for found in tested if found.start.test_start]
    assert streams == [1, 2]


def test_a_mapped_file_can_be_closed_after_reading(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "stdout"
    path.write_bytes(WARNING + TCP + b"\n" + IDLE + b"\n")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        (start, end), (_, last) = find_documents(mapped)
        with memoryview(mapped) as view:
            summary = read_summary(view[start:end])
            smaller = without_intervals(view[start:end])
    assert last == path.stat().st_size - 1
    assert summary == read_summary(TCP)
    assert smaller == without_intervals(TCP)


def values(document: bytes, key: str) -> bytes:
    """The text of one value at the top of a pretty-printed document."""
    start = document.index(b'\n\t"' + key.encode() + b'":\t') + len(key) + 6
    ends = [document.find(b',\n\t"', start), document.find(b"\n}", start)]
    return document[start : min(end for end in ends if end > 0)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shrink", [without_streams, without_intervals])
def test_a_smaller_document_keeps_start_and_end_byte_for_byte(
    version: str, shrink: Callable[[bytes], bytes]
) -> None:
    for case in ("tcp-parallel", "tcp-bidir", "udp", "client-term"):
        document = run(version, case).stdout.rstrip()
        smaller = shrink(document)
        assert len(smaller) < len(document)
        for key in ("start", "end"):
            text = values(document, key)
            assert isinstance(json.loads(text), dict) and text in smaller
        assert read_summary(smaller) == read_summary(document)


def test_without_streams_the_sums_of_each_interval_stay() -> None:
    before: dict[str, Any] = json.loads(TCP)
    after: dict[str, Any] = json.loads(without_streams(TCP))
    for interval in before["intervals"]:
        assert len(interval["streams"]) == 4
        interval["streams"] = []
    assert after == before


def test_without_intervals_the_list_is_empty() -> None:
    before: dict[str, Any] = json.loads(TCP)
    assert json.loads(without_intervals(TCP)) == {**before, "intervals": []}


def test_a_document_that_has_no_intervals_stays_as_it_is() -> None:
    assert without_streams(b'{"end":{"sum":{}}}') == b'{"end":{"sum":{}}}'


@pytest.mark.parametrize("text", [b"[]", b"{", b'{"intervals":[1]}', b'{"intervals":null}'])
def test_a_document_of_another_shape_is_bad_output(text: bytes) -> None:
    with pytest.raises(TaskError, match="not a document of iperf3") as raised:
        without_streams(text)
    assert raised.value.error_class == "bad_output"
