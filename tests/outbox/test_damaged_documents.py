"""Documents that the disk does not give: an error before the upload begins, in every form."""

import errno
import json
import os
from pathlib import Path

import pytest

from agent.outbox.body import fitting
from agent.protocol import Document, Form, Outcome, Report
from tests.support.bad_sectors import BLOCK, BadDisk
from tests.support.outbox import with_document
from tests.support.recorded_runs import run

DOCUMENT = run("3.12", "tcp").stdout.strip()
ROOMY = 64 * 1024**2
WITH_DOCUMENT = list(Form)[:-1]


@pytest.mark.parametrize("form", WITH_DOCUMENT)
def test_a_bad_sector_is_found_in_every_form(bad_disk: BadDisk, form: Form) -> None:
    outcome = with_document(bad_disk.path / "document", DOCUMENT)
    bad_disk.spoil(bad_disk.path / "document")
    with pytest.raises(OSError) as raised:
        fitting(outcome, form, ROOMY)
    assert raised.value.errno == errno.EIO
    body, _ = fitting(outcome, Form.WITHOUT_DOCUMENT, ROOMY)
    assert b'"truncated":"the whole document"' in b"".join(body)


@pytest.mark.parametrize("form", WITH_DOCUMENT)
def test_a_bad_sector_before_the_document_costs_nothing(bad_disk: BadDisk, form: Form) -> None:
    path = bad_disk.path / "output"
    path.write_bytes(b" " * BLOCK + DOCUMENT)
    document = Document(str(path), BLOCK, BLOCK + len(DOCUMENT))
    bad_disk.spoil(path, 0)
    body, found = fitting(Outcome("succeeded", Report(), document=document), form, ROOMY)
    assert found is form
    assert json.loads(b"".join(body))["result"]["end"] == json.loads(DOCUMENT)["end"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("form", WITH_DOCUMENT)
def test_after_an_error_that_is_over_the_same_form_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    outcome = with_document(tmp_path / "document", DOCUMENT)
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", fail)
        with pytest.raises(OSError) as raised:
            fitting(outcome, form, ROOMY)
    assert raised.value.errno == number
    assert fitting(outcome, form, ROOMY)[1] is form
