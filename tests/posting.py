"""An outbox in the test's process, and the Manager that it delivers to."""

from dataclasses import dataclass
from pathlib import Path

from agent.client import ManagerClient
from agent.nursery import Nursery
from agent.outbox import Outbox
from agent.wire import Document, Outcome, Report
from tests.faulty import FaultyManager, Request
from tests.servers import client_of

ROOMY = 64 * 1024**2


@dataclass
class Post:
    """The outbox and what is around it. `canceled` lists the tasks it was told are canceled."""

    manager: FaultyManager
    client: ManagerClient
    nursery: Nursery
    outbox: Outbox
    canceled: list[int]


def post_to(manager: FaultyManager, max_result_bytes: int = ROOMY) -> Post:
    """An outbox for that Manager."""
    client, nursery, canceled = client_of(manager), Nursery(), list[int]()
    outbox = Outbox(client, max_result_bytes, nursery.spawn, canceled.append)
    return Post(manager, client, nursery, outbox, canceled)


def task_of(request: Request) -> int:
    """The task that a `started` or a `result` is about."""
    return int(request.path.split("/")[-2])


def with_document(path: Path, content: bytes) -> Outcome:
    """An outcome whose document fills a file."""
    path.write_bytes(content)
    return Outcome("succeeded", Report(version="1"), document=Document(str(path), 0, len(content)))
