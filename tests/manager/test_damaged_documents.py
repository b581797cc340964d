"""Documents that the disk does not give: an error before the upload begins, in every form."""

import errno
import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.manager.upload import Body, fitting
from agent.protocol import Document, Form, Outcome, Report
from agent.state.directory import StateDirectory
from agent.state.message import Message
from agent.state.spool import Spool
from tests.support.bad_sectors import BLOCK, BadDisk
from tests.support.outbox import claimed, with_document
from tests.support.recorded_runs import run

DOCUMENT = run("3.12", "tcp").stdout.strip()
WITH_DOCUMENT = list(Form)[:-1]


@pytest.fixture(name="spool")
def fixture_spool(directory: Path) -> Spool:
    """A spool on a disk that is well."""
    return Spool(StateDirectory(directory))


def made(spool: Spool, outcome: Outcome, form: Form) -> tuple[Body, Form]:
    """What a delivery does before its upload with an outcome that waits in memory."""
    message = Message(claimed(7), outcome)
    spool.verify(message)
    assert message.outcome
    return fitting(message.outcome, form, 64 * 1024**2)


@pytest.mark.parametrize("form", WITH_DOCUMENT)
@pytest.mark.parametrize("how", ["unreadable", "cut short"])
def test_a_document_that_the_disk_does_not_give_is_left_out_of_every_form(
    bad_disk: BadDisk, spool: Spool, form: Form, how: str
) -> None:
    path = bad_disk.path / "document"
    outcome = with_document(path, DOCUMENT)
    if how == "unreadable":
        bad_disk.spoil(path)
    else:
        os.truncate(path, len(DOCUMENT) - 1)
    with capture_logs() as logs:
        body, _ = made(spool, outcome, form)
    assert [line["event"] for line in logs] == ["the document of a result is lost"]
    result = json.loads(b"".join(body))["result"]
    assert "end" not in result
    assert result["agent"]["warnings"] == ["The document was lost on the agent's disk."]


@pytest.mark.parametrize("form", WITH_DOCUMENT)
def test_a_bad_sector_before_the_document_costs_nothing(
    bad_disk: BadDisk, spool: Spool, form: Form
) -> None:
    path = bad_disk.path / "output"
    path.write_bytes(b" " * BLOCK + DOCUMENT)
    document = Document(str(path), BLOCK, BLOCK + len(DOCUMENT))
    bad_disk.spoil(path, 0)
    body, found = made(spool, Outcome("succeeded", Report(), document=document), form)
    assert found is form
    assert json.loads(b"".join(body))["result"]["end"] == json.loads(DOCUMENT)["end"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("form", WITH_DOCUMENT)
def test_after_an_error_that_is_over_the_same_form_is_there(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, form: Form, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    outcome = with_document(tmp_path / "document", DOCUMENT)
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", fail)
        with pytest.raises(OSError) as raised:
            made(spool, outcome, form)
    assert raised.value.errno == number
    assert made(spool, outcome, form)[1] is form
