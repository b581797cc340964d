"""10,000 hostile tasks for a real agent, whose iperf3 writes down what it was given."""

import getopt
import json
import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.command import stand_in
from tests.support.faulty_manager import Request, raw_reply, reply, well
from tests.support.harness import is_running, until
from tests.support.hostile_tasks import CLIENT, SERVER, TASKS, Task
from tests.support.lone_agent import lone_agent
from tests.support.sockets import MakeManager

HOW_MANY = 10_000
# A client's run ends at once and well, a server's without having listened.
RECORDING = r"""
printf '%%s\0' "$#" "$@" >>'%s'/$$
[ "$1" = -c ] || exit 1
echo '{"start":{},"intervals":[],"end":{"sum_sent":{"bytes":1},"sum_received":{"bytes":1}}}'
"""
# How iperf3 reads its command line: the options that the agent may use, and no other.
SHORT = "sc:p:ub:P:t:n:Ji:RO:l:w:M:C:NZS:L:46B:A:1"
LONG = [
    "connect-timeout=",
    "bidir",
    "fq-rate=",
    "dscp=",
    "bind-dev=",
    "cport=",
    "dont-fragment",
    "udp-counters-64bit",
    "idle-timeout=",
    "rcv-timeout=",
    "snd-timeout=",
    "username=",
    "rsa-public-key-path=",
    "rsa-private-key-path=",
    "authorized-users-path=",
    "time-skew-threshold=",
]
# The path of a file in memory, and what stands for it in a report.
MEMORY = re.compile(r"/proc/self/fd/[0-9]+|\[\w+\]")
# No blank, no quote, nothing that a shell or a path is made of, and no dash in front.
HARMLESS = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.,:%@-]*(/[0-9]+)?", re.ASCII)


def made(count: int) -> list[Task]:
    """So many tasks, the same ones every time."""
    tasks: list[Task] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(TASKS)
    def make(task: Task) -> None:
        tasks.append(task)

    make()
    return tasks


def id_of(number: int) -> int:
    """A task's id: ordinary ones, and some about the bounds of what numbers can be."""
    return (number, 2**31 + number, 2**53 + number, 2**63 - 1 - number, 2**64 + number)[number % 5]


class Handing:
    """A Manager that hands tasks out, and keeps what is reported of each."""

    def __init__(self, answers: dict[int, bytes]) -> None:
        self._waiting = iter(answers.values())
        self._by_key: dict[str, bytes] = {}
        self.results: dict[int, dict[str, Any]] = {}
        self.takes_results = True

    @property
    def handed_out(self) -> int:
        """How many claims with a new key there were."""
        return len(self._by_key)

    def __call__(self, request: Request) -> bytes:
        """What it answers."""
        if request.call == "claim":
            key = request.headers["idempotency-key"]
            if key not in self._by_key:
                self._by_key[key] = next(self._waiting, reply({"task": None}))
            return self._by_key[key]
        if request.call == "result" and not self.takes_results:
            return reply({}, 500)
        if request.call == "result":
            self.results[int(request.path.split("/")[-2])] = request.json()
        return well(request)


def claim_answer(task_id: int, task: Task) -> bytes:
    """The answer to a claim that brings the task."""
    text = f'{{"task": {{"id": {task_id}, "type": {task.type}, "payload": {task.payload}}}}}'
    return raw_reply(text.encode(errors="surrogateescape"))


def recorded(directory: Path) -> Iterator[list[str]]:
    """The arguments of each run of the stand-in."""
    for path in directory.iterdir():
        words = path.read_bytes().decode().split("\0")[:-1]
        while words:
            count = int(words[0])
            yield words[1 : 1 + count]
            del words[: 1 + count]


def assert_harmless(arguments: list[str]) -> None:
    """Read a command line as iperf3 does: options that the agent may use, and plain values."""
    options, rest = getopt.gnu_getopt(arguments, SHORT, LONG)
    assert rest == [], arguments
    for option, value in options:
        fits = HARMLESS.fullmatch(value) or option.endswith("-path") and MEMORY.fullmatch(value)
        assert not value or fits, (option, value)


def without_paths(arguments: Iterable[str]) -> tuple[str, ...]:
    """A command line in which the paths of files in memory are alike."""
    return tuple(MEMORY.sub("[]", word) for word in arguments)


def assert_reported(task: Task, result: dict[str, Any]) -> None:
    """A task has run for good reasons or has failed with words and a class, and with no bug."""
    agent = result["result"]["agent"]
    if result["status"] == "succeeded":
        assert json.loads(task.type) in (CLIENT, "kill_all"), task
        return
    assert result["status"] == "failed"
    assert result["stderr"] and agent["error_class"], (task, result)
    assert "bug in the agent" not in result["stderr"], (task, result)
    if json.loads(task.type) not in (CLIENT, SERVER):
        assert agent["error_class"] == "unsupported", (task, result)


@pytest.mark.timeout(900)
def test_of_ten_thousand_hostile_tasks_none_becomes_an_option_and_each_has_its_result(
    faulty: MakeManager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {id_of(number): task for number, task in enumerate(made(HOW_MANY))}
    assert len(tasks) == HOW_MANY
    # It ends those that wait for their time.
    tasks[HOW_MANY * 10] = Task('"kill_all"', "{}")
    handing = Handing({number: claim_answer(number, task) for number, task in tasks.items()})
    manager = faulty(handing)
    argv = tmp_path / "argv"
    argv.mkdir()
    recorder = stand_in(tmp_path / "iperf3", RECORDING % argv)
    before = {*tmp_path.iterdir(), tmp_path / "state"}
    with lone_agent(
        manager.url, tmp_path, IPERF3_PATH=recorder, LOG_LEVEL="error", STOP_GRACE="0.1"
    ) as agent:
        until(lambda: len(handing.results) == len(tasks) or not is_running(agent.pid), 600)
        assert is_running(agent.pid), "\n".join(map(str, agent.lines))
        agent.signal(signal.SIGTERM)
        assert agent.exit_code() == 0, agent.lines
    assert agent.lines == []
    for number, task in tasks.items():
        assert_reported(task, handing.results[number])
    runs = list(recorded(argv))
    for arguments in runs:
        assert_harmless(arguments)
    reports = [result["result"]["agent"] for result in handing.results.values()]
    said = Counter(without_paths(report["argv"][1:]) for report in reports if "argv" in report)
    # The report of a server that never listened has none.
    assert said and not said - Counter(map(without_paths, runs))
    assert any("[rsa_public_key]" in report.get("argv", []) for report in reports)
    assert set(tmp_path.iterdir()) == before
    with capsys.disabled():
        classes = Counter(report.get("error_class", "succeeded") for report in reports)
        print(f"\n{HOW_MANY} hostile tasks, {len(runs)} of them reached iperf3: {dict(classes)}")


UNREADABLE = [
    pytest.param("[" * 100_000 + "]" * 100_000, id="100,000 brackets"),
    pytest.param('{"a":' * 2_000 + "0" + "}" * 2_000, id="2,000 objects"),
    pytest.param('{"server_ip": "\\ud800", "port": 1}', id="half a surrogate pair"),
    pytest.param(f'{{"server_ip": "{"a" * 2 * 1024**2}", "port": 1}}', id="2 MiB"),
]


@pytest.mark.parametrize("payload", UNREADABLE)
def test_a_task_that_cannot_be_read_as_a_whole_fails_and_holds_up_no_other(
    faulty: MakeManager, tmp_path: Path, payload: str
) -> None:
    handing = Handing(
        {
            7: claim_answer(7, Task(f'"{CLIENT}"', payload)),
            8: claim_answer(8, Task('"kill_all"', payload)),
            9: claim_answer(9, Task('"unheard_of"', "{}")),
            10: claim_answer(10, Task('"\\ud800"', payload)),
        }
    )
    manager = faulty(handing)
    with lone_agent(manager.url, tmp_path):
        manager.wait_for(lambda: len(handing.results) == 4)
    assert handing.results[7]["result"]["agent"]["error_class"] == "bad_payload"
    assert handing.results[7]["stderr"]
    assert handing.results[8]["result"]["agent"]["error_class"] == "bad_payload"
    assert handing.results[10]["result"]["agent"]["error_class"] == "unsupported"


def test_hostile_tasks_in_the_state_directory_do_not_stop_the_next_life(
    faulty: MakeManager, tmp_path: Path
) -> None:
    """Some wait for their time and stand in the journal, the results of others on the disk."""
    hostile = ['"\udcff"', "1e999", "9" * 5000, "[\n1,\r\n2]", '"\\u0000\\u2028"']
    hostile += ["[" * depth + "]" * depth for depth in range(980, 1000)]
    waiting = '{"server_ip": "127.0.0.1", "port": 1, "client_delay_seconds": 3600, "x": %s}'
    payloads = [waiting % value for value in hostile] + [
        '{"port": %s}' % value for value in hostile
    ]
    tasks = {number: Task(f'"{CLIENT}"', payload) for number, payload in enumerate(payloads)}
    handing = Handing({number: claim_answer(number, task) for number, task in tasks.items()})
    handing.takes_results = False
    manager = faulty(handing)
    with lone_agent(manager.url, tmp_path) as agent:
        manager.wait_for(lambda: handing.handed_out == len(tasks))
        agent.signal(signal.SIGKILL)
        agent.exit_code()
    handing.takes_results = True
    with lone_agent(manager.url, tmp_path):
        manager.wait_for(lambda: len(handing.results) == len(tasks))
    for number, task in tasks.items():
        assert_reported(task, handing.results[number])
