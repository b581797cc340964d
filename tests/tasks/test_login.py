"""Servers that ask for a login, and clients that have it, or another one, or none."""

from pathlib import Path
from typing import Any

import gevent
import pytest

from agent.dev.store.records import ManagedTask
from agent.iperf3.features import Features
from agent.tasks.installed import InstalledIperf3
from tests.support.harness import Bench, free_port
from tests.support.login import Login, make_login
from tests.support.newer_iperf3 import newer_iperf3

SUITES = ["", "trixie", "sid"]
TEST: dict[str, Any] = {"server_ip": "127.0.0.1", "bytes": 10**5, "time": 5, "max_retries": 3}
PADDING = "use_pkcs1_padding"


@pytest.fixture(name="login", scope="module")
def fixture_login(tmp_path_factory: pytest.TempPathFactory) -> Login:
    """A login for all tests of this module."""
    return make_login(tmp_path_factory.mktemp("login"))


@pytest.fixture(name="stranger", scope="module")
def fixture_stranger(tmp_path_factory: pytest.TempPathFactory) -> Login:
    """The same user with another password and other keys."""
    return make_login(tmp_path_factory.mktemp("stranger"))


def of(suite: str) -> str:
    """The iperf3 of a newer Debian, or the installed one."""
    return newer_iperf3(suite) if suite else "iperf3"


def with_oaep(iperf3: Features) -> bool:
    """Whether it encrypts with OAEP padding if it is not told otherwise."""
    return "--use-pkcs1-padding" in iperf3.options


class Pair:
    """Agent a1 with an iperf3 for servers, and a2 with one for clients."""

    def __init__(self, bench: Bench, server: str, client: str) -> None:
        self.bench = bench
        self.server, self.client = (InstalledIperf3(of(each)).ask() for each in (server, client))
        bench.agent(number=1, IPERF3_PATH=of(server))
        bench.agent(number=2, IPERF3_PATH=of(client))
        self.port = 0

    @property
    def paddings(self) -> tuple[dict[str, bool], dict[str, bool]]:
        """What a server and a client need to understand each other: the newer one gives in."""
        server, client = with_oaep(self.server), with_oaep(self.client)
        old = {PADDING: True}
        return (old if server > client else {}, old if client > server else {})

    def serve(self, **keys: Any) -> ManagedTask:
        """Start a server with these keys; returns its task once it listens."""
        self.port = free_port()
        task = self.bench.ended(self.bench.task("iperf_server_start", port=self.port, **keys))
        assert task.status == "succeeded", task.error
        return task

    def run(self, **keys: Any) -> ManagedTask:
        """Run a client with these keys to its end."""
        task = self.bench.task("iperf_client_run", number=2, port=self.port, **TEST, **keys)
        return self.bench.ended(task)

    def assert_refused(self, task: ManagedTask, why: str) -> None:
        """The server has refused the login of the client, which did not try again."""
        report = self.bench.result(task)["agent"]
        assert (task.status, report["attempts"]) == ("failed", 1), task
        if self.server.release >= (3, 21):
            assert report["error_class"] == "peer_lost"
            words = (
                f"control socket has closed unexpectedly; a server of iperf3 3.21 or newer {why}"
            )
        else:
            assert report["error_class"] == "not_allowed"
            assert "test authorization failed" in (task.error or "")
            words = (
                "(the server wants a login: user name, password, key, padding and clock must fit)"
            )
        assert words in (task.error or ""), task.error


@pytest.mark.parametrize("client", SUITES)
@pytest.mark.parametrize("server", SUITES)
def test_only_a_client_with_the_login_gets_its_test(
    bench: Bench, login: Login, stranger: Login, server: str, client: str
) -> None:
    pair = Pair(bench, server, client)
    servers, clients = pair.paddings
    task = pair.serve(**login.of_server, **servers)
    right = {**login.of_client, **clients}
    pair.assert_refused(pair.run(), "that wants a login says no more")
    no_padding = bool(clients) and pair.client.release >= (3, 19)
    if no_padding:
        refused = pair.run(**right)
        assert bench.result(refused)["agent"]["error_class"] == "arguments"
        assert "has use_pkcs1_padding in servers" in (refused.error or "")
        right.pop(PADDING)
    for wrong in (
        {"password": stranger.password},
        {"username": "nobody"},
        {"rsa_public_key": stranger.public_key},
    ):
        pair.assert_refused(pair.run(**{**right, **wrong}), "that refuses this login says no more")
    if no_padding:
        pair.assert_refused(pair.run(**right), "that refuses this login says no more")
        return
    good = pair.run(**right)
    assert good.status == "succeeded", good.error
    argv = " ".join(bench.result(good)["agent"]["argv"])
    assert f" --username {login.user} --rsa-public-key-path [rsa_public_key]" in argv
    bench.wait(lambda: b"sum_received" in bytes(task.result))
    report = bench.result(task)["agent"]
    assert "--rsa-private-key-path [rsa_private_key]" in " ".join(report["argv"])
    said = "no error (iperf3 3.21" if pair.server.release >= (3, 21) else "test authorization fail"
    assert any(said in warning for warning in report["warnings"]), report
    again = pair.run(**right)
    assert again.status == "succeeded", again.error


@pytest.mark.parametrize(("server", "client"), [("", "trixie"), ("trixie", ""), ("sid", "")])
def test_without_the_padding_of_the_older_one_a_login_is_refused(
    bench: Bench, login: Login, server: str, client: str
) -> None:
    pair = Pair(bench, server, client)
    if with_oaep(pair.server) == with_oaep(pair.client):
        pytest.skip("the installed iperf3 is as new")
    pair.serve(**login.of_server)
    pair.assert_refused(pair.run(**login.of_client), "that refuses this login says no more")


@pytest.mark.parametrize("suite", SUITES)
def test_a_login_that_nobody_asks_for_has_no_effect(bench: Bench, login: Login, suite: str) -> None:
    pair = Pair(bench, suite, suite)
    pair.serve()
    task = pair.run(**login.of_client)
    assert task.status == "succeeded", task.error


@pytest.mark.parametrize("suite", SUITES)
def test_a_server_for_one_test_says_what_became_of_it(
    bench: Bench, login: Login, suite: str
) -> None:
    pair = Pair(bench, suite, suite)
    task = pair.serve(**login.of_server, one_off=True, time_skew_threshold=60)
    pair.assert_refused(pair.run(), "that wants a login says no more")
    if pair.server.release < (3, 21):
        # Let the server, which goes on, see the first client off.
        gevent.sleep(0.3)
        good = pair.run(**login.of_client)
        assert good.status == "succeeded", good.error
    bench.wait(lambda: b'"ended"' in bytes(task.result))
    report = bench.result(task)["agent"]
    assert "--time-skew-threshold 60" in " ".join(report["argv"])
    ended = "iperf3 ended by itself: no error (iperf3 3.21 and newer say no more of a login"
    told = "served its one test" if pair.server.release < (3, 21) else ended
    assert report["ended"].startswith(told)


def test_an_iperf3_that_was_built_without_logins_is_unsupported(
    bench: Bench, login: Login, tmp_path: Path
) -> None:
    """A stand-in: its help lacks them, as that of such a build."""
    lines = (
        '[ "$1" = --help ] && { iperf3 --help | grep -v -e rsa- -e authoriz -e username; exit; }'
    )
    program = tmp_path / "plain"
    program.write_text(f'#!/bin/sh\n{lines}\nexec iperf3 "$@"\n')
    program.chmod(0o755)
    bench.agent(IPERF3_PATH=str(program))
    for kind, keys in (
        ("iperf_server_start", login.of_server),
        ("iperf_client_run", {**login.of_client, **TEST}),
    ):
        task = bench.ended(bench.task(kind, port=free_port(), **keys))
        assert bench.result(task)["agent"]["error_class"] == "unsupported"
        assert "install an iperf3 that has it, or leave the key out" in (task.error or "")
