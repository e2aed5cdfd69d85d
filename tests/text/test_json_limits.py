"""JSON that Python's parser gives up on is a row or a file with a fault, not a traceback."""

from __future__ import annotations

import pytest

from lmworks.base.errors import InputError
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

FAULTS = {"deep": "[" * 100_000, "digits": '{"text": "a", "label": ' + "9" * 6000 + "}"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_line_that_cannot_be_parsed_is_a_bad_row(fault, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "good"}}\n{FAULTS[fault]}\n{{"text": "good too"}}\n')
    with pytest.raises(InputError, match="JSON that cannot be read") as raised:
        corpus.read(str(path), DataSettings())
    assert raised.value.place.endswith("rows.jsonl:2")
    assert len(corpus.read(str(path), DataSettings(on_bad_row="skip")).rows) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_parsed_is_refused(fault, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(FAULTS[fault])
    with pytest.raises(InputError, match="JSON that cannot be read"):
        corpus.read(str(path), DataSettings())
