"""When the test of a client begins, and how long that may take. All times are in seconds."""

from agent.protocol import ClientPayload
from agent.tasks.client_output import StreamReader
from agent.tasks.observation import DEADLINE_GRACE, Observation

# iperf3 connects one data socket after the other, a round trip each, after some 6 for the rest.
_ROUND_TRIPS = 7
# A round trip where the kernel does not tell: more than by satellite, which is 0.7.
_LONG = 1.0
# For each that is connected: some had to ask again after a second, as their packet was lost.
_OFTEN_LOST = 0.5
# Between two looks.
LOOK = 0.25


class Beginning:
    """From the start of a client to the beginning of its test, which `took` so long by now."""

    def __init__(self, payload: ClientPayload, reader: StreamReader, seen: Observation) -> None:
        self._reader, self._seen = reader, seen
        self._sockets = payload.parallel * (2 if payload.bidir else 1)
        self._connect = payload.connect_timeout_ms / 1000
        self.took = 0.0

    @property
    def allowed(self) -> float:
        """How long it may take, by the round trip and by the sockets that are connected by now."""
        test = self._seen.test
        round_trip = (test and test.round_trip) or _LONG
        lost = _OFTEN_LOST * test.streams if test else 0.0
        return self._connect + DEADLINE_GRACE + (_ROUND_TRIPS + self._sockets) * round_trip + lost

    def look(self) -> bool | None:
        """True if the test has begun, False if it should have by now, else None: look again.

        A newer iperf3 says so in its stream; of an older one all data sockets are connected then.
        """
        test = self._seen.test
        connected = test is not None and test.streams >= self._sockets
        if self._reader.has_begun or connected and not self._reader.is_stream:
            return True
        # Counted: the time in which the agent stood still, and saw nothing, has no part in it.
        self.took += LOOK
        # If no connection can be seen, the test may well run.
        return test is None if self.took > self.allowed else None
