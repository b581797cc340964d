"""What the agent does with each answer to each call, as data.

`python -m tests.support.answers` writes it into docs/protocol.md; tests/manager/test_answers.py
plays it.
"""

from dataclasses import dataclass
from pathlib import Path

from tests.support.endless import FLOODS

PAGE = Path(__file__).parent.parent.parent / "docs" / "protocol.md"
BEGIN = "<!-- `make docs` writes this table from tests/support/answers.py. -->\n"
END = "<!-- End of the table. -->\n"

CALLS = ("register", "heartbeat", "claim", "started", "result")


@dataclass(frozen=True, eq=False)
class Action:
    """One thing that the agent does.

    `words` stand in the table, `meaning` below it. `shown_by` names, for each call that may have
    this effect, the test in which the agent's own loop, outbox or process has it.
    """

    words: str
    meaning: str
    shown_by: dict[str, str]


DONE = Action(
    "done",
    "The agent uses the answer.",
    {
        "register": "manager/test_registration.py::"
        "test_registration_is_retried_until_it_succeeds",
        "heartbeat": "service/test_heartbeat.py::test_the_answer_says_whether_to_claim",
        "claim": "service/test_claims.py::test_after_a_task_it_asks_again_at_once",
        "started": "outbox/test_queue.py::"
        "test_the_messages_of_a_task_go_in_order_and_one_at_a_time",
        "result": "outbox/test_queue.py::"
        "test_the_messages_of_a_task_go_in_order_and_one_at_a_time",
    },
)
AGAIN = Action(
    "retry",
    "The agent retries the call with exponential back-off: after each failure it waits for a "
    "random time, of at most 1 s at first, and doubles that limit up to 30 s; after that each "
    "pause is 30 s. Running tests go on, and so do other calls. The first registration is given "
    "up after `REGISTER_TIMEOUT`, and the agent exits with 69. `started` is dropped once the "
    "task's result waits. An agent that shuts down makes one more attempt at once.",
    {
        "register": "manager/test_registration.py::"
        "test_registration_is_retried_until_it_succeeds",
        "claim": "service/test_claims.py::"
        "test_the_claim_key_stays_the_same_until_it_has_obtained_a_task",
        "started": "manager/test_answers.py::test_started_is_sent_again_until_the_manager_has_it",
        "result": "outbox/test_queue.py::"
        "test_a_message_is_sent_again_with_its_idempotency_key_until_it_is_accepted",
    },
)
ALL_WAIT = Action(
    "all wait",
    "The same as *retry*, but together: claims, `started` and results have one back-off, and none "
    "of them is sent before it is over. An agent with a thousand results calls a Manager that is "
    "away no more often than one with a single result.",
    {
        call: "manager/test_gate.py::test_an_outage_that_one_call_meets_pauses_the_other_two"
        for call in ("claim", "started", "result")
    },
)
ALL_WAIT_WHEN_TOLD = Action(
    "all wait as told",
    "The same as *all wait*, and *retry when told*.",
    {
        call: "manager/test_gate.py::test_the_gate_stays_closed_for_as_long_as_the_manager_says"
        for call in ("claim", "started", "result")
    },
)
REPLACED = Action(
    "replaced",
    "The task's number is another task's at the Manager by now. What runs of the task is stopped, "
    "and its outcome is moved to `rejected/` in the state directory.",
    {
        "started": "manager/test_replaced_tasks.py::"
        "test_a_200_to_started_that_names_another_task_stops_what_runs",
        "result": "manager/test_replaced_tasks.py::"
        "test_a_result_whose_200_names_another_task_is_set_aside",
    },
)
AGAIN_WHEN_TOLD = Action(
    "retry when told",
    "The same as *retry*, but not before the time in `Retry-After`, which is a number of "
    "seconds or a date. More than 300 s count as 300 s. A malformed value is ignored.",
    {
        "register": "manager/test_registration.py::"
        "test_registration_waits_for_as_long_as_it_is_told",
    },
)
NEXT_TICK = Action(
    "next heartbeat",
    "Running tests go on. The next heartbeat is sent at its usual time, because the Manager "
    "calls an agent offline that misses three.",
    {
        "heartbeat": "service/test_heartbeat.py::"
        "test_heartbeats_go_on_while_the_manager_is_away_and_say_when_it_is_back",
    },
)
IN_30_SECONDS = Action(
    "retry in 30 s",
    "Running tests go on. Claims, `started` and results pause together for 30 s, and are then "
    "sent with the key that is in its file at that time.",
    {
        "claim": "service/test_claims.py::"
        "test_a_refused_key_pauses_the_claims_and_does_not_end_them",
        "started": "outbox/test_queue.py::"
        "test_a_refused_key_is_tried_again_every_30_s_and_stops_nothing",
        "result": "outbox/test_queue.py::"
        "test_a_refused_key_is_tried_again_every_30_s_and_stops_nothing",
    },
)
EXIT_77 = Action(
    "exit 77",
    "The agent exits: the key or the API version is wrong, and a retry would not help. If this "
    "happens when the agent registers again later, after an outage, it retries in 30 s instead.",
    {
        "register": "manager/test_registration.py::"
        "test_a_refused_key_or_version_ends_the_agent_with_77"
    },
)
EXIT_67 = Action(
    "exit 67",
    "The Manager does not know the agent, or has disabled it. The agent stops its child "
    "processes and exits.",
    {
        "register": "manager/test_registration.py::"
        "test_an_agent_that_the_manager_does_not_know_ends_with_67",
        "heartbeat": "manager/test_registration.py::"
        "test_an_agent_that_is_disabled_stops_its_children_and_ends_with_67",
        "claim": "service/test_claims.py::test_an_unknown_agent_ends_the_claims_with_that_failure",
        "started": "outbox/test_queue.py::"
        "test_an_agent_that_the_manager_does_not_know_sends_nothing_more",
        "result": "outbox/test_queue.py::"
        "test_an_agent_that_the_manager_does_not_know_sends_nothing_more",
    },
)
DELIVERED = Action(
    "delivered",
    "An earlier attempt arrived, and only its answer was lost. Nothing is sent again.",
    {
        call: "outbox/test_delivery.py::"
        "test_a_refusal_that_names_the_status_sent_means_that_it_was_delivered"
        for call in ("started", "result")
    },
)
STOPPED = Action(
    "stopped",
    "The agent stops the task's child process. The message counts as delivered.",
    {
        "started": "tasks/test_measuring.py::"
        "test_a_test_canceled_before_it_runs_is_stopped_by_the_answer_to_started",
        "result": "outbox/test_delivery.py::"
        "test_a_canceled_task_is_passed_on_and_counts_as_delivered",
    },
)
DROPPED = Action(
    "dropped",
    "The message is logged and not sent again. The test goes on, and its result will be sent.",
    {"started": "outbox/test_delivery.py::test_the_message_after_a_refused_one_still_goes"},
)
SET_ASIDE = Action(
    "set aside",
    "The result is moved to `rejected/` in the state directory, with the answer beside it. This "
    "is logged, and the result is not sent again.",
    {
        "result": "outbox/test_delivery.py::"
        "test_any_other_final_refusal_is_logged_and_the_result_set_aside"
    },
)
SMALLER = Action(
    "sent smaller",
    "The result is sent again in the next smaller form: without the streams of each interval, "
    "without the intervals, without iperf3's document. If even that is too large, it is set "
    "aside.",
    {
        "result": "outbox/test_delivery.py::"
        "test_a_result_still_too_large_is_sent_without_the_intervals"
    },
)

_FOR_AN_AGENT = (AGAIN, NEXT_TICK, AGAIN)
_TRY_AGAIN = (*_FOR_AN_AGENT, AGAIN, AGAIN)
_AWAY = (AGAIN, NEXT_TICK, *[ALL_WAIT] * 3)
_WHEN_TOLD = (AGAIN_WHEN_TOLD, NEXT_TICK, *[ALL_WAIT_WHEN_TOLD] * 3)
_REFUSED_KEY = (EXIT_77, NEXT_TICK, *[IN_30_SECONDS] * 3)
_ANOTHER_TASK = (DONE, DONE, DONE, REPLACED, REPLACED)
_FINAL = (*_FOR_AN_AGENT, DROPPED, SET_ASIDE)

# Each answer, and what it makes the agent do, in the order of CALLS.
ANSWERS: dict[str, tuple[Action, ...]] = {
    "200 with the expected JSON": (DONE,) * 5,
    "200 with another task's `created_at`": _ANOTHER_TASK,
    "200 with another task's `type`": _ANOTHER_TASK,
    "200 with an HTML page": _TRY_AGAIN,
    "200 cut short": _AWAY,
    "204": _TRY_AGAIN,
    "301 to another host": _TRY_AGAIN,
    "400 `invalid_task_state`, with the status that was sent": (
        *_FOR_AN_AGENT,
        DELIVERED,
        DELIVERED,
    ),
    "400 `invalid_task_state`, with `canceled`": (*_FOR_AN_AGENT, STOPPED, STOPPED),
    "400 `invalid_task_state`, with another status": _FINAL,
    "400 `task_not_found`": _FINAL,
    "400 with any other `error`": _TRY_AGAIN,
    "400 with a proxy's page": _TRY_AGAIN,
    "401": _REFUSED_KEY,
    "401 with a proxy's page": _TRY_AGAIN,
    "403": _REFUSED_KEY,
    "403 with a proxy's page": _TRY_AGAIN,
    "404 `not_found`, `agent_not_found`, `agent_disabled`": (EXIT_67,) * 5,
    "404 with a proxy's page": _TRY_AGAIN,
    "407 of a proxy": _AWAY,
    "409": _FINAL,
    "409 with a proxy's page": _TRY_AGAIN,
    "410": _FINAL,
    "410 with a proxy's page": _TRY_AGAIN,
    "413": (*_FOR_AN_AGENT, DROPPED, SMALLER),
    "422": _FINAL,
    "422 with a proxy's page": _TRY_AGAIN,
    "426": _REFUSED_KEY,
    "426 with a proxy's page": _TRY_AGAIN,
    "429 with `Retry-After`": _WHEN_TOLD,
    "429 without `Retry-After`": _AWAY,
    "500": _TRY_AGAIN,
    "502": _TRY_AGAIN,
    "503 with `Retry-After`": _WHEN_TOLD,
    "503 without `Retry-After`": _AWAY,
    "504": _TRY_AGAIN,
    "connection refused": _AWAY,
    "reset before the request was read": _AWAY,
    "reset after the request was read": _AWAY,
    "no answer": _AWAY,
    "one byte a second": _AWAY,
    "a gigabyte that begins with the expected JSON": (*_FOR_AN_AGENT, AGAIN, DONE),
    "a gigabyte of anything else": _TRY_AGAIN,
    **dict.fromkeys(FLOODS, _AWAY),
    "TLS certificate for another name": _AWAY,
    "TLS certificate that has expired": _AWAY,
    "TLS certificate of an unknown authority": _AWAY,
}


def markdown() -> str:
    """The table, and below it what its words mean."""
    heads = ["answer", *(f"`{call}`" for call in CALLS)]
    cells = [[answer, *(action.words for action in row)] for answer, row in ANSWERS.items()]
    rows = [heads, ["---"] * len(heads), *cells]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    actions = dict.fromkeys(action for row in ANSWERS.values() for action in row)
    return table + "\n" + "".join(f"- **{action.words}**: {action.meaning}\n" for action in actions)


def placed(text: str) -> str:
    """The page's text with the data between its two marker comments."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(placed(PAGE.read_text()))
