"""What an answer other than 200 stands for."""

from collections.abc import Mapping

import msgspec
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from agent import errors
from agent.protocol import Refusal, RefusalDetail

MAX_RETRY_AFTER = 300.0
# What counts only in the Manager's own JSON: a proxy's page says nothing of the agent.
REFUSALS = frozenset({400, 401, 403, 404, 409, 410, 422, 426})
# What the Manager's own 404 says; any other 404 is a proxy's, or a wrong URL's.
UNKNOWN_AGENT = frozenset({"not_found", "agent_not_found", "agent_disabled"})
# What its 400 says when it is final for the task.
ABOUT_TASK = frozenset({"task_not_found", "invalid_task_state"})


def refusal(
    path: str, status: int, content: bytes, headers: Mapping[str, str], suspect: str = ""
) -> errors.ManagerError:
    """The error for one answer to `path`; `suspect` says what it means if it is a proxy's."""
    is_page = False
    try:
        answer = msgspec.json.decode(content, type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The Manager's own 500 is a text.
        answer, is_page = Refusal(), status != 500 or content.lstrip().startswith(b"<")
    detail = answer.detail if isinstance(answer.detail, RefusalDetail) else RefusalDetail()
    word = answer.error or detail.error
    faults = status == 422 and isinstance(answer.detail, list)
    message = f"{path}: {status} {word:.100}".rstrip()
    if word and status in (401, 403, 426):
        return errors.KeyRefused(message)
    if status == 404 and word in UNKNOWN_AGENT:
        return errors.AgentUnknown(message)
    if path.endswith(("/started", "/result")):
        if status == 413:
            return errors.ResultTooLarge(message, answer=content)
        about_task = word in ABOUT_TASK if status == 400 else word and status in (409, 410)
        if faults or about_task:
            current = detail.details.current_status if detail.details else None
            return errors.TaskRefused(message, current, content)
    if is_page or status in REFUSALS and not (word or faults):
        message += ", but not in the Manager's words" + (suspect and f": {suspect}")
    kind = errors.ManagerAway if status in (407, 429, 503) else errors.ManagerUnavailable
    return kind(message, retry_after(headers.get("Retry-After")))


def retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number or an HTTP date, 300 at most; None for a malformed one."""
    if value is None:
        return None
    try:
        return min(MAX_RETRY_AFTER, Retry().parse_retry_after(value))
    except (InvalidHeader, ValueError, OverflowError):
        return None
