"""What iperf3 and its wrappers write that is no clean JSON: read as far as it can be."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.iperf3.documents import find_documents, find_unread, mended
from agent.iperf3.stream import compose
from agent.iperf3.verdict import judge_client, judge_server_exit, last_served
from agent.process.output import overwrite
from tests.support.recorded_runs import VERSIONS, run

TCP = run("3.12", "tcp-parallel").stdout.rstrip()
UDP = run("3.12", "udp").stdout.rstrip()
SERVED = run("3.12", "server-tcp").stdout
STREAM = run("3.22", "stream-udp").stdout
NAN = re.compile(rb'("jitter_ms":\s*)[0-9.e-]+')


def mend(data: bytes) -> bytes:
    """The data with all that `mended` puts in its place."""
    clean = bytearray(data)
    for place, piece in mended(data):
        clean[place : place + len(piece)] = piece
    assert len(clean) == len(data)
    return bytes(clean)


def indented(
    by: int | str | None, separators: tuple[str, str] | None = None
) -> Callable[..., bytes]:
    """What a wrapper makes of a document."""
    return lambda data: json.dumps(json.loads(data), indent=by, separators=separators).encode()


LAYOUTS: dict[str, Callable[[bytes], bytes]] = {
    "of iperf3": bytes,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "2 spaces": indented(2),
    "4 spaces": indented(4),
    "2 tabs": indented("\t\t"),
    "1 line": indented(None),
    "minified": indented(None, (",", ":")),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ["tcp-parallel", "udp", "refused", "client-term"])
def test_a_document_is_found_whatever_its_layout(version: str, layout: str, case: str) -> None:
    found = run(version, case)
    text = LAYOUTS[layout](found.stdout.strip())
    for data in (
        text,
        text + b"\n",
        b"WARNING: x\n" + text + b"\r\n \n",
        text + b" words behind it",
    ):
        (span,) = find_documents(data)
        assert data[slice(*span)] == text
    usual = judge_client(found.exit_code, found.stdout, found.stderr)
    judged = judge_client(found.exit_code, text, found.stderr)
    assert (judged.error_class, judged.message) == (usual.error_class, usual.message)
    assert judged.figures == usual.figures


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n", b"\0\0\0", b"a warning: ", b"x\n"])
def test_a_document_twice_is_two(layout: str, between: bytes) -> None:
    text = LAYOUTS[layout](TCP)
    data = text + between + text
    assert [data[slice(*span)] for span in find_documents(data)] == [text, text]
    assert find_unread(data, find_documents(data)) == ["", "", ""]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_inside_a_document_that_was_cut_short_is_one(layout: str) -> None:
    text = LAYOUTS[layout](TCP)
    for _ in range(100):
        data = text[: random.randrange(8, len(text))]
        assert find_documents(data) == [], len(data)
        assert find_unread(data, [])[0].startswith("{")
        both = data + b"\n" + text
        assert [both[slice(*span)] for span in find_documents(both)] == [text]


@pytest.mark.parametrize("number", [b"nan", b"-nan", b"NaN", b"inf", b"-inf", b"Infinity"])
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "minified"])
def test_a_number_that_is_none_becomes_null(layout: str, number: bytes) -> None:
    clean = LAYOUTS[layout](UDP)
    data = NAN.sub(rb"\1" + number, clean)
    assert find_documents(data) == [] and find_unread(data, [])[0].startswith("{")
    judged = judge_client(0, mend(data), "")
    assert judged.ok and judged.figures and judged.figures.jitter_ms is None
    usual = judge_client(0, clean, "").figures
    assert usual and judged.figures.received == usual.received


def test_text_that_looks_like_a_number_stays() -> None:
    data = b'{\n\t"title":\t"a: nan, -inf",\n\t"x":\t-nan,\n\t"b":\t"\xff"\n}'
    assert mend(data) == b'{\n\t"title":\t"a: nan, -inf",\n\t"x": null,\n\t"b":\t"?"\n}'


@pytest.mark.parametrize("title", [b"\xff\xfe", b"caf\xe9", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f"])
def test_a_title_in_other_bytes_costs_its_own_letters_only(title: bytes) -> None:
    start = b'{\n\t"title":\t"gr\xc3\xbc\xc3\x9fe '
    data = start + title + b'",' + TCP[1:]
    assert find_documents(data) == []
    (span,) = find_documents(mend(data))
    document = json.loads(mend(data)[slice(*span)])
    assert document["title"].startswith("grüße ") and "?" in document["title"]
    assert document["end"] == json.loads(TCP)["end"]


def test_bytes_on_the_edge_of_a_piece_are_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.iperf3.documents._TEXT_CHUNK", 7)
    text = "aäöü€𝄞b".encode() * 9
    assert mend(text) == text
    assert mend(text[:-2]) == text[:-2]
    assert mend(b"\xff".join([text, text])) == b"?".join([text, text])


def test_a_file_is_mended_in_place(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.write_bytes(b"\xff" * 10 + b'{\n\t"a":\t"\xff",\n\t"b":\tnan\n}')
    with open(path, "rb") as other:
        assert overwrite(path, 10, mended(path.read_bytes()[10:]))
        assert other.read() == b"\xff" * 10 + b'{\n\t"a":\t"?",\n\t"b":null\n}'
    assert not overwrite(path, 10, mended(path.read_bytes()[10:]))


def test_what_cannot_be_read_is_told_with_its_beginning() -> None:
    data = b'{\n\t"start":\t{\n\t\t"connected": [}\n}'
    for code, stderr in ((0, ""), (1, ""), (1, "openssl: some noise"), (0, "warning: x")):
        judged = judge_client(code, data, stderr)
        assert judged.error_class == "bad_output"
        assert judged.message == (
            'iperf3 wrote JSON that cannot be read: { "start": { "connected": [} }'
        )
    assert judge_server_exit(1, data, "").message == judged.message
    told = judge_client(1, data, "iperf3: error - test authorization failed")
    assert told.error_class == "not_allowed"


def test_words_behind_a_document_say_why_it_failed() -> None:
    judged = judge_client(1, TCP + b"\niperf3: error - select failed: Bad file descriptor\n", "")
    assert (judged.error_class, judged.span) == ("host_error", (0, len(TCP)))
    assert judged.message == "select failed: Bad file descriptor"
    assert judge_client(0, TCP + b"\nwords\n", "").ok


LOGGED = b'{"level": "info", "msg": "uploaded", "error": null}\n'
FAILED_LATER = b'{"level": "error",\n  "error": "the upload failed",\n  "end": 7\n}'
TIMED = b'{"start": {"at": "11:00:00", "version": "2.1"}, "end": {"at": "11:00:05"}, "host": "h1"}'


@pytest.mark.parametrize(
    "noise", [LOGGED, FAILED_LATER, LOGGED * 2, LOGGED + b"words\n" + LOGGED, TIMED]
)
@pytest.mark.parametrize("version", VERSIONS)
def test_json_of_a_wrapper_is_no_document_of_iperf3(version: str, noise: bytes) -> None:
    for case in ("tcp-parallel", "refused"):
        found = run(version, case)
        usual = judge_client(found.exit_code, found.stdout, found.stderr)
        text = found.stdout.strip()
        for data in (text + b"\n" + noise, noise + b"\n" + text, noise + b"\n" + text + noise):
            judged = judge_client(found.exit_code, data, found.stderr)
            assert judged.span and data[slice(*judged.span)] == text
            assert (judged.error_class, judged.message) == (usual.error_class, usual.message)
            assert judged.figures == usual.figures


def test_the_newest_of_two_documents_counts_whatever_is_behind_it() -> None:
    failed = run("3.12", "refused").stdout.strip()
    for first, second, ok in ((failed, TCP, True), (TCP, failed, False)):
        judged = judge_client(0, first + b"\n" + second + b"\n" + LOGGED, "")
        assert judged.ok is ok and judged.span == (len(first) + 1, len(first) + 1 + len(second))


def test_words_behind_a_document_count_though_a_wrapper_puts_json_around_them() -> None:
    said = b"\niperf3: select failed: Bad file descriptor\n"
    for behind in (LOGGED + said, said + LOGGED, FAILED_LATER + said + LOGGED):
        judged = judge_client(1, TCP + b"\n" + behind, "")
        assert judged.message == "select failed: Bad file descriptor"
    assert judge_client(1, TCP + b"\n" + LOGGED, "").message.endswith("did not say why")


def test_json_of_a_wrapper_alone_is_no_result() -> None:
    assert judge_client(0, LOGGED, "").error_class == "bad_output"
    assert judge_client(0, TIMED, "").error_class == "bad_output"


@pytest.mark.parametrize(
    "noise", [LOGGED, b'{"error": "full"}', b'{"error": "full", "end": {"at": 7}}', TIMED]
)
def test_json_of_a_wrapper_is_no_test_that_a_server_served(noise: bytes) -> None:
    usual = last_served(SERVED)
    served = last_served(SERVED + noise)
    assert (served.span, served.figures) == (usual.span, usual.figures)
    assert (served.failed, served.error) == (usual.failed, usual.error)


def test_a_servers_document_behind_one_that_cannot_be_read_is_found() -> None:
    broken = SERVED.replace(b'"end":', b'"end" ', 1)
    served = last_served(broken[: len(broken) // 2] + SERVED)
    assert served.span and served.figures
    assert [text[:10] for text in served.unread] == ['{ "start":', "", ""]


def test_a_document_that_is_being_written_is_waited_for() -> None:
    title = b'{\n\t"title":\t"\xff",\n\t"nan":\tnan,'
    (whole,) = find_documents(TCP)
    data = title + TCP[1:]
    for length in range(8, len(title) + 100):
        served = last_served(TCP + b"\n" + mend(data[:length]))
        assert (served.span, served.done) == (whole, whole[1]), length
        assert served.unread[0] == "" and served.unread[1].startswith("{")


def test_a_number_that_is_none_costs_a_stream_nothing() -> None:
    data = NAN.sub(rb"\1-nan", STREAM)
    document = json.loads(b"".join(compose(data.splitlines(keepends=True))))
    usual = json.loads(b"".join(compose(STREAM.splitlines(keepends=True))))
    assert len(document["intervals"]) == len(usual["intervals"])
    assert document["end"]["sum"]["jitter_ms"] is None
