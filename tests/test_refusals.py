"""What each answer stands for: an error of ours for whatever is not the Manager's 200."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.client import Body, ManagerClient
from agent.client.refusals import retry_after
from agent.errors import (
    AgentUnknown,
    KeyRefused,
    ManagerError,
    ManagerUnavailable,
    ResultTooLarge,
    TaskRefused,
)
from tests.faulty import Request, raw_reply, reply
from tests.servers import MakeManager, client_of

Call = Callable[[ManagerClient], Any]
CALLS: dict[str, Call] = {
    "register": lambda client: client.register("10.0.0.1", "Debian"),
    "heartbeat": lambda client: client.heartbeat("10.0.0.1", []),
    "claim": lambda client: client.claim("key"),
    "started": lambda client: client.started(1, 77, "key"),
    "result": lambda client: client.result(1, Body(b"{}"), "key"),
    "healthz": lambda client: client.healthz(),
}
PAGE = b"<html><body>Something of a proxy's</body></html>"
NOT_FOUND = {"error": "not_found", "message": "no agent is named 'a1'"}


def invalid_state(status: str) -> dict[str, Any]:
    return {"detail": {"error": "invalid_task_state", "details": {"current_status": status}}}


def refused(faulty: MakeManager, call: str, answer: bytes) -> ManagerError:
    """The error that the call raises when it is answered so."""

    def answer_and_close(request: Request) -> bytes:
        request.socket.sendall(answer)
        return b""

    manager = faulty(answer_and_close)
    with pytest.raises(ManagerError) as caught:
        CALLS[call](client_of(manager))
    assert len(manager.requests) == 1, "nothing is tried again here"
    return caught.value


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(raw_reply(PAGE), id="200 with a page"),
        pytest.param(raw_reply(b""), id="200 with nothing"),
        pytest.param(raw_reply(b"\xff\xfe"), id="200 in no UTF-8"),
        pytest.param(raw_reply(b"[" * 5000), id="200 nested beyond reason"),
        pytest.param(reply([]), id="200 with a list"),
        pytest.param(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"id": 1', id="200 cut short"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad chunk"
        ),
        pytest.param(raw_reply(b"{}", Content_Encoding="gzip"), id="no gzip"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="204"),
        pytest.param(raw_reply(PAGE, 404), id="a proxy's 404"),
        pytest.param(reply({"detail": "Not Found"}, 404), id="a wrong URL's 404"),
        pytest.param(raw_reply(PAGE, 429), id="429"),
        pytest.param(reply({"detail": "Internal Server Error"}, 500), id="500"),
        pytest.param(raw_reply(PAGE, 502), id="502"),
        pytest.param(raw_reply(PAGE, 503), id="503"),
    ],
)
def test_an_answer_that_is_not_the_managers_means_try_again(
    faulty: MakeManager, call: str, answer: bytes
) -> None:
    error = refused(faulty, call, answer)
    assert isinstance(error, ManagerUnavailable)
    assert error.retry_after is None


@pytest.mark.parametrize("call", ["register", "heartbeat", "claim"])
@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_what_is_final_for_a_task_is_not_for_the_agent(
    faulty: MakeManager, call: str, status: int
) -> None:
    assert isinstance(refused(faulty, call, raw_reply(PAGE, status)), ManagerUnavailable)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [401, 403, 426])
def test_a_refused_key_or_version_is_final_for_the_agent(
    faulty: MakeManager, call: str, status: int
) -> None:
    answer = reply({"detail": {"error": "invalid_agent_key", "message": "wrong"}}, status)
    error = refused(faulty, call, answer)
    assert isinstance(error, KeyRefused)
    assert f"{status} invalid_agent_key" in str(error)


@pytest.mark.parametrize("word", ["not_found", "agent_not_found", "agent_disabled"])
@pytest.mark.parametrize("call", ["register", "heartbeat", "claim", "started", "result"])
def test_the_managers_own_404_means_that_the_agent_is_unknown(
    faulty: MakeManager, call: str, word: str
) -> None:
    assert isinstance(refused(faulty, call, reply({"error": word}, 404)), AgentUnknown)


@pytest.mark.parametrize("call", ["started", "result"])
@pytest.mark.parametrize("status", [409, 410, 422])
def test_a_refused_task_is_final_for_that_call(faulty: MakeManager, call: str, status: int) -> None:
    error = refused(faulty, call, reply({"detail": [{"msg": "does not fit"}]}, status))
    assert isinstance(error, TaskRefused)
    assert (error.status, error.current_status) == (status, None)


@pytest.mark.parametrize("call", ["started", "result"])
def test_a_400_is_final_for_a_task_only_in_the_managers_words(
    faulty: MakeManager, call: str
) -> None:
    words = {"detail": {"error": "task_not_found"}}
    assert isinstance(refused(faulty, call, reply(words, 400)), TaskRefused)
    assert isinstance(refused(faulty, call, raw_reply(PAGE, 400)), ManagerUnavailable)


@pytest.mark.parametrize("call", ["started", "result"])
def test_a_task_in_another_state_is_refused_with_that_state(faulty: MakeManager, call: str) -> None:
    error = refused(faulty, call, reply(invalid_state("canceled"), 400))
    assert isinstance(error, TaskRefused)
    assert error.current_status == "canceled"
    assert "400 invalid_task_state" in str(error)


def test_a_result_beyond_the_managers_size_is_told_from_other_refusals(
    faulty: MakeManager,
) -> None:
    assert isinstance(refused(faulty, "result", raw_reply(PAGE, 413)), ResultTooLarge)


@pytest.mark.parametrize("status", [429, 503])
def test_the_manager_says_how_long_it_wants_to_be_left_alone(
    faulty: MakeManager, status: int
) -> None:
    error = refused(faulty, "claim", raw_reply(PAGE, status, Retry_After="17"))
    assert isinstance(error, ManagerUnavailable)
    assert error.retry_after == 17


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
def test_no_retry_after_is_ever_an_error(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or 0 <= seconds <= 300
