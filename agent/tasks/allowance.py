"""How much a child may move under the bitrate that the host's owner allows."""

# One that is above its bitrate by this much is stopped, after so many seconds or later.
_TOLERANCE, _AT_LEAST = 1.1, 2.0
# What a test has left unused of its bitrate stays its own, up to so many seconds' worth.
_KEPT = 30.0
# Bytes of the blocks that iperf3 sends at TCP: by default, and at most.
BLOCK, _LARGEST_BLOCK = 128 * 1024, 1024**2
# The bytes of all larger blocks together, whatever number of streams sends them.
_LARGEST = 16 * _LARGEST_BLOCK

# Seconds between two counts of an interface's bytes, at most.
_APART = 1.5


class Allowance:
    """What one child has left of its bitrate, in bits, both ways together.

    iperf3 makes up for a pause by sending faster, so that what a test left unused is kept. And each
    stream of TCP sends a block before iperf3 begins to pace it: a test may be ahead by that much.
    A server does not know its client's blocks. It takes them to be as large as the test was ahead
    in its first seconds, so that one which is not paced at all is stopped after these. What its
    tests were ahead by they owe together, and pay it back in time.
    """

    def __init__(self, limit: int, block: int | None, since: float) -> None:
        """`limit` is in bits a second, `block` in bytes if it is known, `since` as `now` below."""
        self._limit, self._block, self._looked, self._left = limit, block, since, 0.0
        self.begin(since)

    def begin(self, since: float) -> None:
        """A new test begins, which owes what those before it do, and has nothing that they left."""
        earned = self._limit * _TOLERANCE * max(0.0, since - self._looked)
        self._left = min(0.0, self._left + earned)
        self._looked = max(self._looked, since)
        self._moved_at = self._looked
        self._judged_from, self._owed, self._was_ahead = since + _AT_LEAST, -self._left, 0.0

    def rate_beyond(self, bits: int, streams: int, now: float) -> float:
        """How fast these bits have moved since there were some, in bit/s; 0 if that is allowed.

        `streams` are those that send blocks: none at UDP. `now` is monotonic, in seconds.
        """
        seconds, self._looked = now - self._looked, now
        left = self._left + self._limit * _TOLERANCE * seconds - bits
        self._left = min(left, self._limit * _KEPT)
        least, most = (8 * each for each in self._blocks(streams))
        if now < self._judged_from:
            self._was_ahead = max(self._was_ahead, -left)
            may_be_ahead = most + self._limit * _TOLERANCE * (self._judged_from - now)
        else:
            may_be_ahead = max(least, min(self._was_ahead, most))
        seconds = max(seconds, min(now - self._moved_at, _APART))
        self._moved_at = now if bits else self._moved_at
        return bits / max(seconds, 0.1) if -left > max(may_be_ahead, self._owed) else 0.0

    def _blocks(self, streams: int) -> tuple[int, int]:
        """The least and the most bytes of the blocks that all streams together may send."""
        if self._block:
            return self._block * streams, self._block * streams
        return BLOCK * streams, max(BLOCK * streams, min(_LARGEST_BLOCK * streams, _LARGEST))
