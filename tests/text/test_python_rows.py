"""Rows given in Python: every kind of table gives the same rows, and a file of them reads as they do."""

import json
from datetime import date

import numpy as np
import pytest

from lmworks.base.errors import InputError
from lmworks.text import corpus, python_rows
from lmworks.text.rows import DataSettings

ROWS = [
    {"text": "A quiet hall", "label": 1, "score": 0.5, "seen": None},
    {"text": "A loud hall \u2028 of stone", "label": 0, "score": 1.5, "seen": True},
    {"text": "No hall", "label": 1, "score": None, "seen": False},
]


def tables():
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    return [ROWS, tuple(ROWS), iter(ROWS), pandas.DataFrame(ROWS), pyarrow.Table.from_pylist(ROWS)]


def test_every_table_gives_the_same_rows(tmp_path):
    expected = [("A quiet hall", "1"), (ROWS[1]["text"], "0"), ("No hall", "1")]
    for number, table in enumerate(tables()):
        rows = python_rows.rows_of(table)
        assert rows == ROWS
        read = corpus.read(rows)
        assert [(row.values["text"], row.values["label"]) for row in read.rows] == expected
        assert [row.place for row in read.rows] == ["row 1", "row 2", "row 3"]
        path = tmp_path / f"{number}.jsonl"
        python_rows.save(rows, path)
        again = corpus.read(path)
        assert [row.values for row in again.rows] == [row.values for row in read.rows]


def test_class_numbers_of_a_datasets_table_become_names():
    hub = pytest.importorskip("datasets")
    features = hub.Features({"text": hub.Value("string"), "label": hub.ClassLabel(names=["low", "high"])})
    table = hub.Dataset.from_list([{"text": "a", "label": 1}, {"text": "b", "label": 0}], features=features)
    assert corpus.read(table).labels == ["high", "low"]


def test_values_become_what_json_has(tmp_path):
    row = {"text": "a", "n": np.int64(3), "x": np.float32(0.5), "v": np.arange(2), "t": ("b", float("nan"))}
    row |= {"d": date(2024, 5, 1), "o": complex(1, 2), "m": {"k": np.bool_(True)}}
    (values,) = python_rows.rows_of([row])
    assert values["n"] == 3
    assert (values["x"], values["v"], values["t"]) == (0.5, [0, 1], ["b", None])
    assert (values["d"], values["o"], values["m"]) == ("2024-05-01", complex(1, 2), {"k": True})
    python_rows.save([row, {"text": "half \ud83d"}], tmp_path / "a.jsonl")
    first, second = (json.loads(line) for line in (tmp_path / "a.jsonl").read_text().split("\n")[:2])
    assert (first["o"], second["text"]) == ("(1+2j)", "half \ud83d")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"text": ["a", "b"]}, "a dict holds no rows"),
        (5, "a int holds no rows"),
        ([{"text": "a"}, "b"], "row 2: a str, not a dictionary"),
        ([], "no usable row"),
        ([{"text": "a"}, {"text": None}], "row 2: field 'text' is null"),
        ([{"text": "a"}, {"text": float("nan")}], "row 2: field 'text' is null"),
        ([{"text": "a"}, {"text": 5}], "row 2: field 'text' is a int"),
    ],
)
def test_what_holds_no_rows_is_refused(data, fault):
    with pytest.raises(InputError, match=fault):
        corpus.read(data, DataSettings())


def test_two_columns_of_one_name_are_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 3, names=["prompt", "prompt", "completion"])
    parquet.write_table(table, tmp_path / "a.parquet")
    for data in (table, tmp_path / "a.parquet"):
        with pytest.raises(InputError, match="two columns are called 'prompt'") as caught:
            corpus.read(data, DataSettings())
        assert "rename" in caught.value.hint
    frames = pytest.importorskip("pandas")
    with pytest.raises(InputError, match="two columns are called 'text'"):
        corpus.read(frames.DataFrame([["a", "b"]], columns=["text", "text"]), DataSettings())


def test_lists_of_class_numbers_of_a_datasets_table_become_names():
    hub = pytest.importorskip("datasets")
    kinds = hub.Sequence(hub.ClassLabel(names=["O", "B-place"]))
    features = hub.Features({"tokens": hub.Sequence(hub.Value("string")), "ner_tags": kinds})
    table = hub.Dataset.from_list([{"tokens": ["In", "Rome"], "ner_tags": [0, 1]}], features=features)
    assert corpus.read(table).rows[0].values["tags"] == ["O", "B-place"]
