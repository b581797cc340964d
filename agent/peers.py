"""With whom tests were: what a result says of that, and the figures of the last tests with each."""

import time
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from agent.errors import TaskError
from agent.protocol import ClientPayload, Figures, ServerPayload, Task, read_payload
from agent.protocol.results import direction_of

# Those that were tested last have a name of their own in the metrics; all others have this one.
PEERS_KEPT, OTHER = 200, "other"
FORGOTTEN_AFTER = 86400.0
# Of figures and evidence, what the metrics show.
_SHOWN = (
    "sent received rtt_ms base_ms jitter_ms lost_percent retransmits retransmitted_share".split()
)

# Of which kind a test is: this host's role, the direction and the protocol.
Kind = tuple[str, str, str]


def test_of(task: Task, figures: Figures | None) -> dict[str, Any]:
    """What is known of the test of a task, or of the one of which a server has the figures.

    `peer` is what a client's task calls its target, or the address of a server's client.
    """
    with suppress(TaskError):
        if task.type == "iperf_client_run":
            asked = read_payload(task.payload, ClientPayload)
            way = direction_of(asked.reverse, asked.bidir)
            # One name, however it is spelt.
            peer = asked.server_ip.rstrip(".").lower()
            with suppress(ValueError):
                peer = str(ip_address(asked.server_ip))
            test = {"peer": peer, "port": asked.port, "streams": asked.parallel}
            return {**test, "protocol": "udp" if asked.udp else "tcp", "direction": way}
        if task.type == "iperf_server_start":
            names = ("peer", "streams", "protocol", "direction") if figures else ()
            test = {name: getattr(figures, name) for name in names}
            return test | {"port": read_payload(task.payload, ServerPayload).port}
    return {}


class Peers:
    """The last test of each kind with each peer, for a day."""

    def __init__(self) -> None:
        # The peer that was tested last is the last one.
        self._tests: dict[str, dict[Kind, dict[str, float]]] = {}

    def note(self, peer: str, kind: Kind, seen: Mapping[str, Any]) -> None:
        """Keep what was seen of a test; one with an unknown peer is one with OTHER."""
        figures = {name: found for name in _SHOWN if (found := seen.get(name)) is not None}
        moment = {"at": time.monotonic(), "reported": time.time()}
        self._add(peer or OTHER, {kind: moment | figures})
        if len(self._tests) - (OTHER in self._tests) > PEERS_KEPT:
            oldest = next(name for name in self._tests if name != OTHER)
            self._add(OTHER, self._tests.pop(oldest))

    def tests(self) -> list[tuple[str, Kind, dict[str, float]]]:
        """The tests of the last day: `at` in monotonic seconds, `reported` since 1970, figures."""
        until = time.monotonic() - FORGOTTEN_AFTER
        every = [(peer, *row) for peer, tests in self._tests.items() for row in tests.items()]
        kept = [row for row in every if row[-1]["at"] > until]
        if len(kept) < len(every):
            self._tests = {}
            for peer, kind, figures in kept:
                self._tests.setdefault(peer, {})[kind] = figures
        return kept

    def _add(self, peer: str, tests: dict[Kind, dict[str, float]]) -> None:
        """Make a peer the newest, with these tests; of two of a kind, the newer one stays."""
        known = self._tests.pop(peer, {})
        rows = sorted([*known.items(), *tests.items()], key=lambda row: row[1]["at"])
        self._tests[peer] = dict(rows)
