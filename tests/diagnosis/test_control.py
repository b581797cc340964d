"""What the control connection of a test tells of a queue on its path."""

import pytest

from agent.diagnosis.control import ControlConnection
from agent.diagnosis.sockets import TCP, Socket


def control(**numbers: int) -> Socket:
    """A control connection of which the kernel says this; round trips are in microseconds."""
    found = Socket(TCP, bytes(72))
    found.numbers = numbers
    return found


@pytest.mark.parametrize(
    ("last", "sent_again", "rise"),
    [(26_000, 0, 5.8), (20_260, 0, 0.06), (20_140, 0, -0.06), (26_000, 1, 5.8)],
)
def test_a_round_trip_that_is_longer_at_the_end_tells_of_a_queue(
    last: int, sent_again: int, rise: float
) -> None:
    connection = ControlConnection()
    connection.add(control(rtt=20_200, min_rtt=20_100))
    connection.end(control(rtt=last, total_retrans=sent_again))
    assert connection.rise(20.1) == pytest.approx(rise)


@pytest.mark.parametrize("last", [20_140, 20_200, 20_260, 20_440])
def test_a_full_queue_that_drops_the_last_message_is_not_taken_for_none(last: int) -> None:
    # What comes after the message that was sent again finds the queue empty.
    connection = ControlConnection()
    connection.add(control(rtt=20_200, min_rtt=20_100))
    connection.end(control(rtt=last, total_retrans=1))
    assert connection.rise(20.1) is None
