"""Uploads: the part of a file that is sent, and the time they may take."""

import gc
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET, socket

import gevent
import pytest
from gevent import sleep
from gevent.event import Event
from gevent.monkey import get_original

from agent.errors import ManagerUnavailable, ResultTooLarge, StateUnusable
from agent.manager import upload
from agent.manager.api import RESULT_STALL
from agent.manager.transport import Transport
from agent.manager.upload import Body
from agent.metrics import Metrics
from agent.process.output import read_part
from agent.protocol import Document
from tests.support.answering import task
from tests.support.faulty_manager import raw_reply, reply, well
from tests.support.sockets import MakeManager, access, client_of, client_with, serving

SMALL_DEADLINE = 0.3
MIB = 1024**2


def test_a_part_of_a_file_is_sent_byte_for_byte(faulty: MakeManager, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    path = tmp_path / "document"
    path.write_bytes(content)
    manager = faulty(well)
    body = Body(b"before ", Document(str(path), 5, len(content) - 3), b" after")
    client_of(manager).send_result(task(4), body, "key")
    (request,) = manager.requests
    expected = b"before " + content[5:-3] + b" after"
    assert request.headers["content-length"] == str(len(expected)) == str(len(body))
    assert "transfer-encoding" not in request.headers
    assert request.body == expected


def test_a_document_that_was_cut_short_is_not_sent_as_if_it_were_whole(
    faulty: MakeManager, tmp_path: Path
) -> None:
    path = tmp_path / "document"
    path.write_bytes(b"x" * 100)
    manager = faulty(well)
    with pytest.raises(StateUnusable, match="shorter than its document"):
        client_of(manager).send_result(task(4), Body(b"", Document(str(path), 0, 200)), "k")
    assert not [request for request in manager.requests if len(request.body) == 200]


def test_nothing_else_waits_for_a_slow_disk(
    faulty: MakeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = get_original("time", "sleep")

    def read_slowly(path: Path, start: int, most: int) -> bytes:
        blocks(1)
        return read_part(path, start, most)

    path = tmp_path / "document"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr(upload, "read_part", read_slowly)
    body = Body(b"", Document(str(path), 0, 100))
    sending = gevent.spawn(client_of(faulty(well)).send_result, task(4), body, "key")
    turns = 0
    while not sending.ready():
        gevent.sleep(0.01)
        turns += 1
    sending.get()
    assert turns > 10, "the hub has turned"


@pytest.mark.parametrize("source", ["file", "memory"])
def test_progress_restarts_the_deadline_of_an_upload(tmp_path: Path, source: str) -> None:
    size, deadline = 12 * MIB, 1.0

    def read_slowly(connection: socket) -> None:
        connection.setsockopt(SOL_SOCKET, SO_RCVBUF, MIB)
        with connection, connection.makefile("rb") as stream:
            while stream.readline() != b"\r\n":
                pass
            for _ in range(size // MIB):
                stream.read(MIB)
                sleep(0.12)
            connection.sendall(reply({"id": 1}))

    path = tmp_path / "document"
    path.write_bytes(b"x" * size)
    body = Body(b"", Document(str(path), 0, size)) if source == "file" else Body(b"x" * size)
    over = Event()
    gevent.spawn_later(deadline, over.set)
    with serving(read_slowly) as url:
        Transport(access(url), Metrics()).call("/result", body, {}, deadline)
    assert over.is_set()


def test_an_upload_that_stalls_is_given_up() -> None:
    late = Event()

    def read_a_little(connection: socket) -> None:
        connection.recv(1000)
        sleep(SMALL_DEADLINE * 3)
        late.set()
        connection.close()

    body = Body(b"x" * (32 * MIB))
    with serving(read_a_little) as url:
        with pytest.raises(ManagerUnavailable, match="no answer within"):
            Transport(access(url), Metrics()).call("/result", body, {}, SMALL_DEADLINE)
    assert not late.is_set()


def test_a_413_sent_before_the_body_was_read_is_understood() -> None:
    def refuse_and_close(connection: socket) -> None:
        with connection:
            connection.recv(1000)
            connection.sendall(raw_reply(b"<html>", 413))

    with serving(refuse_and_close) as url, pytest.raises(ResultTooLarge):
        client_with(access(url)).send_result(task(1), Body(b"x" * (32 * MIB)), "key")


def test_a_body_that_is_sent_twice_leaves_no_limit_behind(faulty: MakeManager) -> None:
    """It would end some other call, half a minute later."""
    client, body = client_of(faulty(well)), Body(b'{"status":"failed"}')
    for _ in range(2):
        client.send_result(task(4), body, "key")
    gc.collect()
    limits = [each for each in gc.get_objects() if type(each) is gevent.Timeout]
    assert not [limit for limit in limits if limit.pending and limit.seconds == RESULT_STALL]
