"""A store with two agents, and a dev Manager that serves it on a free port."""

from gevent import monkey

monkey.patch_all()

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402

from agent.dev.server import DevManager  # noqa: E402
from agent.dev.store.store import Store  # noqa: E402
from tests.support.dev_client import Api  # noqa: E402


@pytest.fixture(name="store")
def fixture_store() -> Store:
    """Agents a1 (registered) and a2 (never seen), whose keys are key-1 and key-2."""
    store = Store()
    first = store.agents.add("a1", "key-1")
    store.agents.add("a2", "key-2", "Debian")
    store.agents.register(first.id, "127.0.0.1", "Linux")
    return store


@pytest.fixture(name="manager")
def fixture_manager(store: Store) -> Iterator[DevManager]:
    """A running dev Manager."""
    manager = DevManager(store, "127.0.0.1", 0)
    manager.start()
    yield manager
    manager.stop()


@pytest.fixture(name="api")
def fixture_api(manager: DevManager) -> Iterator[Api]:
    """A client of the running dev Manager."""
    with Api(manager.url) as api:
        yield api
