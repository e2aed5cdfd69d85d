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


DOUBLE = {"on top": '{"text": "a", "text": "b"}', "within": '{"text": "a", "more": [{"n": {"x": 1, "x": 2}}]}'}


@pytest.mark.parametrize("where", DOUBLE)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_row_with_a_key_twice_is_a_bad_row(where, ending, tmp_path):
    path = tmp_path / f"rows.{ending}"
    rows = ['{"text": "good"}', DOUBLE[where], '{"text": "good too"}']
    path.write_text("\n".join(rows) if ending == "jsonl" else f"[{', '.join(rows)}]")
    with pytest.raises(InputError, match=rf"key '{'text' if where == 'on top' else 'x'}' stands twice") as raised:
        corpus.read(str(path), DataSettings())
    assert raised.value.place == (f"{path}:2" if ending == "jsonl" else f"{path}: row 2")
    table = corpus.read(str(path), DataSettings(on_bad_row="skip"))
    assert [row.values["text"] for row in table.rows] == ["good", "good too"]
    assert any("1 bad row skipped" in note and "stands twice" in note for note in table.notes)


def test_a_file_with_two_lists_of_one_name_is_refused(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"data": [{"text": "a"}], "data": [{"text": "b"}]}')
    with pytest.raises(InputError, match="key 'data' stands twice"):
        corpus.read(str(path), DataSettings(on_bad_row="skip"))
