"""Documents that the disk does not give: an error before the upload begins, in every form."""

import errno
import json
import os
from pathlib import Path

import pytest

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
    spool.check_document(Message(claimed(7), outcome))
    return fitting(outcome, form, 64 * 1024**2)


@pytest.mark.parametrize("form", WITH_DOCUMENT)
def test_a_bad_sector_is_found_in_every_form(bad_disk: BadDisk, spool: Spool, form: Form) -> None:
    outcome = with_document(bad_disk.path / "document", DOCUMENT)
    bad_disk.spoil(bad_disk.path / "document")
    with pytest.raises(OSError) as raised:
        made(spool, outcome, form)
    assert raised.value.errno == errno.EIO
    body, _ = fitting(outcome, Form.WITHOUT_DOCUMENT, 64 * 1024**2)
    assert b'"truncated":"the whole document"' in b"".join(body)


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


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ESTALE])
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
