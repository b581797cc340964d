"""Unexpected answers and `Retry-After`; tests/support/answers.py lists the expected ones."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import (
    AgentUnknown,
    KeyRefused,
    ManagerError,
    ManagerUnavailable,
    TaskRefused,
)
from agent.manager.refusals import REFUSALS, retry_after
from tests.support.answering import ASK
from tests.support.faulty_manager import Request, raw_reply, reply
from tests.support.sockets import MakeManager, client_of


def refused(faulty: MakeManager, call: str, answer: bytes) -> ManagerError:
    """The error that the call raises when it is answered so."""

    def answer_and_close(request: Request) -> bytes:
        request.socket.sendall(answer)
        return b""

    manager = faulty(answer_and_close)
    with pytest.raises(ManagerError) as caught:
        ASK[call](client_of(manager))
    assert len(manager.requests) == 1, "nothing is tried again here"
    return caught.value


@pytest.mark.parametrize("call", ASK)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(raw_reply(b""), id="200 with nothing"),
        pytest.param(raw_reply(b"\xff\xfe"), id="200 in no UTF-8"),
        pytest.param(raw_reply(b"[" * 5000), id="200 nested beyond reason"),
        pytest.param(reply([]), id="200 with a list"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad chunk"
        ),
        pytest.param(raw_reply(b"{}", Content_Encoding="gzip"), id="no gzip"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="no HTTP"),
        pytest.param(reply({"detail": "Not Found"}, 404), id="a wrong URL's 404"),
    ],
)
def test_an_answer_that_is_not_the_managers_means_try_again(
    faulty: MakeManager, call: str, answer: bytes
) -> None:
    error = refused(faulty, call, answer)
    assert isinstance(error, ManagerUnavailable)
    assert error.retry_after is None


@pytest.mark.parametrize("call", ["register", "result"])
@pytest.mark.parametrize("status", sorted(REFUSALS))
@pytest.mark.parametrize(
    "body",
    [
        b"<html>go away</html>",
        b"",
        b"[]",
        b'"error"',
        b'{"detail": "Not Found"}',
        b'{"detail": {"error": ""}}',
        b'{"detail": {"error": null}}',
        b'{"error": 403}',
        b'{"error": {"code": 403}}',
        b'{"message": "go away"}',
        b'{"error": "forbidden"',
    ],
)
def test_a_refusal_that_is_not_in_the_managers_words_means_try_again(
    faulty: MakeManager, call: str, status: int, body: bytes
) -> None:
    error = refused(faulty, call, raw_reply(body, status))
    assert isinstance(error, ManagerUnavailable)
    assert str(error).endswith(f": {status}, but not in the Manager's words")


def test_an_error_quotes_only_the_beginning_of_an_answer(faulty: MakeManager) -> None:
    answer = reply({"error": "x" * 10**5}, 401)
    assert "xxx" in (said := str(refused(faulty, "claim", answer)))
    assert len(said) < 600


WRONG_KEY = {"detail": {"error": "invalid_agent_key", "message": "wrong"}}
UNKNOWN = {"error": "not_found", "message": "no such agent", "details": {"path": "/v1/agent"}}
FAULTS = {"detail": [{"loc": ["body", "running"], "msg": "no list", "type": "list_type"}]}
NO_TASK = {"detail": {"error": "task_not_found", "message": "no such task"}}
WRONG_STATE = {
    "detail": {
        "error": "invalid_task_state",
        "message": "it has ended",
        "details": {"current_status": "canceled"},
    }
}


@pytest.mark.parametrize(
    ("call", "status", "body", "kind"),
    [
        ("register", 401, {"detail": {"error": "missing_agent_headers"}}, KeyRefused),
        ("register", 401, WRONG_KEY, KeyRefused),
        ("register", 404, UNKNOWN, AgentUnknown),
        ("register", 422, FAULTS, ManagerUnavailable),
        ("heartbeat", 401, WRONG_KEY, KeyRefused),
        ("heartbeat", 404, UNKNOWN, AgentUnknown),
        ("heartbeat", 422, FAULTS, ManagerUnavailable),
        ("started", 400, NO_TASK, TaskRefused),
        ("started", 400, WRONG_STATE, TaskRefused),
        ("result", 400, WRONG_STATE, TaskRefused),
        ("result", 422, FAULTS, TaskRefused),
    ],
)
def test_each_refusal_that_a_real_manager_gave_is_understood(
    faulty: MakeManager, call: str, status: int, body: object, kind: type[ManagerError]
) -> None:
    error = refused(faulty, call, reply(body, status))
    assert type(error) is kind
    assert "Manager's words" not in str(error)
    if body is WRONG_STATE:
        assert isinstance(error, TaskRefused) and error.current_status == "canceled"


@pytest.mark.parametrize("detail", ["gone", [], {}])
def test_an_error_at_the_top_counts_whatever_the_detail_is(
    faulty: MakeManager, detail: object
) -> None:
    answer = reply({"error": "gone", "detail": detail}, 410)
    assert isinstance(refused(faulty, "result", answer), TaskRefused)


@pytest.mark.parametrize("word", ["not_found", "agent_not_found", "agent_disabled"])
def test_each_of_the_managers_words_means_that_the_agent_is_unknown(
    faulty: MakeManager, word: str
) -> None:
    assert isinstance(refused(faulty, "claim", reply({"error": word}, 404)), AgentUnknown)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("301", 300),
        ("86400", 300),
        ("9" * 100, 300),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 300),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("9" * 5000, None),
        (None, None),
    ],
)
def test_retry_after_is_bounded_and_a_malformed_one_is_none(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    seconds = retry_after(date)
    assert seconds and 55 < seconds <= 60


@given(st.text(st.sampled_from("0123456789 ,:-+/GMTSunMonJanFebe"), max_size=40))
def test_no_retry_after_header_raises_an_error(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or 0 <= seconds <= 300
