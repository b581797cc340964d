"""The state file: what it keeps, and what happens when it cannot be read or written."""

from pathlib import Path

import gevent
import msgspec
import pytest
from gevent.event import Event
from structlog.testing import capture_logs

from agent.dev.errors import StateUnwritable
from agent.dev.server import DevManager
from agent.dev.store.store import Store
from agent.errors import ConfigError
from tests.support.dev_client import DEADLINE_SECONDS, Api


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    """A path for a state file, where there is none yet."""
    return tmp_path / "state.json"


def test_a_restart_restores_everything(path: Path) -> None:
    store = Store(state_file=path)
    store.agents.add("a1", "key-1")
    store.agents.register(1, "127.0.0.1", "Linux")
    store.exercises.create("x")
    store.exercises.add_test(1, 1, 1, 5201)
    store.exercises.start(1)
    store.tasks.claim(1, "k")
    store.tasks.report(1, 1, "succeeded", msgspec.Raw(b'{"started": true}'))
    store.tasks.add(1, "kill_all", {})
    store.tasks.cancel(2)

    again = Store(state_file=path)
    assert again.agents.find() == store.agents.find()
    assert again.exercises.all() == store.exercises.all()
    assert again.exercises.tests(1) == store.exercises.tests(1)
    assert msgspec.json.encode(again.tasks.find()) == msgspec.json.encode(store.tasks.find())
    replayed = again.tasks.claim(1, "k")
    assert replayed is not None and replayed.id == 1
    pending = again.tasks.claim(1, "l")
    assert pending is not None and pending.id == 3
    assert again.tasks.claim(1, "m") is None


def test_a_restart_keeps_a_cancel(path: Path) -> None:
    store = Store(state_file=path)
    store.agents.add("a1", "key-1")
    store.tasks.add(1, "kill_all", {})
    store.tasks.claim(1)
    store.tasks.cancel(1)
    assert Store(state_file=path).tasks.canceled(1) == [1]


def test_only_the_owner_can_read_the_keys(path: Path) -> None:
    Store(state_file=path).agents.add("a1", "key-1")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_heartbeat_is_written_by_the_next_sweep_or_at_the_stop(path: Path) -> None:
    store = Store(state_file=path)
    store.agents.add("a1", "key-1")
    manager = DevManager(store, "127.0.0.1", 0)
    manager.start()
    store.agents.heartbeat(1, "192.0.2.1", [])
    assert Store(state_file=path).agents.get(1).ip_address is None
    manager.stop()
    assert Store(state_file=path).agents.get(1).ip_address == "192.0.2.1"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"words", b'{"format": "other 1"}', b"[" * 100_000, b'"\xff"']
)
def test_a_foreign_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a state file"):
        Store(state_file=path)
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_read_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Store(state_file=path)


def test_a_call_whose_change_cannot_be_saved_is_answered_503(path: Path) -> None:
    store = Store(state_file=path)
    store.agents.add("a1", "key-1")
    store.tasks.add(1, "kill_all", {})
    hindrance = path.with_name(path.name + ".new")
    hindrance.mkdir()
    manager = DevManager(store, "127.0.0.1", 0)
    manager.start()
    with Api(manager.url) as api:
        answer = api.agent("tasks/claim", Idempotency_Key="k")
        assert answer.status_code == 503
        assert "cannot be written" in answer.json()["detail"]["message"]
        hindrance.rmdir()
        assert api.agent("tasks/claim", Idempotency_Key="k").json()["task"]["id"] == 1
    manager.stop()
    assert Store(state_file=path).tasks.get(1).status == "accepted"


def test_the_sweeper_reports_a_failed_save_and_tries_again(
    path: Path,
) -> None:
    store = Store(state_file=path)
    store.agents.add("a1", "key-1")
    hindrance = path.with_name(path.name + ".new")
    hindrance.mkdir()
    store.agents.heartbeat(1, "192.0.2.1", [])
    manager = DevManager(store, "127.0.0.1", 0)
    manager.start()
    with gevent.Timeout(DEADLINE_SECONDS), capture_logs() as lines:
        while not any("trying again" in line["event"] for line in lines):
            gevent.sleep(0.05)
        hindrance.rmdir()
        while Store(state_file=path).agents.get(1).ip_address is None:
            gevent.sleep(0.05)
    manager.stop()


def test_a_bug_in_the_sweeper_ends_the_manager() -> None:
    class Broken(Store):
        """A store whose sweep has a bug."""

        def sweep(self, now: object) -> None:
            raise ZeroDivisionError

    manager = DevManager(Broken(), "127.0.0.1", 0)
    manager.start()
    with gevent.Timeout(DEADLINE_SECONDS), pytest.raises(ZeroDivisionError):
        manager.wait(Event())
    manager.stop()


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateUnwritable, match="no/state: cannot be written: No such file"):
        Store(state_file=tmp_path / "no" / "state").save()
