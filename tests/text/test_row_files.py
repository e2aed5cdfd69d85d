"""Rows that are written are read back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmworks.base.errors import InputError
from lmworks.text import formats
from lmworks.text.row_files import write_rows
from lmworks.text.rows import BadRows, DataSettings

ROWS = [{"text": 'a "b",\nc; é', "id": "1"}, {"text": " d\t", "id": ""}, {"text": "# e", "id": "x,y"}]


def read(path: Path, **settings: Any) -> list[dict]:
    return [row.values for row in formats.records(path, DataSettings(**settings), BadRows("stop"), [])]


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz", "r.json", "r.jsonl", "r.jsonl.gz", "r.parquet"])
def test_what_is_written_is_read_back(name: str, tmp_path: Path) -> None:
    assert read(write_rows(tmp_path / name, ROWS)) == ROWS


def test_without_header_and_with_another_delimiter(tmp_path: Path) -> None:
    settings = DataSettings(header=False, delimiter=";")
    write_rows(tmp_path / "r.csv", ROWS, settings)
    assert [list(row.values()) for row in read(tmp_path / "r.csv", header=False, delimiter=";")] == [
        list(row.values()) for row in ROWS
    ]


def test_where_there_are_no_quotes_rows_stay_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "r.tsv", ROWS)
    assert [row["text"] for row in read(tmp_path / "r.tsv")] == ['a "b", c; é', " d ", "# e"]


def test_numbers_and_missing_columns(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": [1.5, None]}, {"a": None}]
    assert read(write_rows(tmp_path / "r.jsonl", rows)) == rows
    assert read(write_rows(tmp_path / "r.csv", rows)) == [{"a": "1", "b": "[1.5, null]"}, {"a": "", "b": ""}]


def test_plain_text_has_one_column(tmp_path: Path) -> None:
    write_rows(tmp_path / "r.txt", [{"text": "a\nb"}, {"text": "c"}])
    assert (tmp_path / "r.txt").read_text() == "a b\nc\n"
    with pytest.raises(InputError, match="no columns"):
        write_rows(tmp_path / "r.txt", ROWS)
    with pytest.raises(InputError, match="what format"):
        write_rows(tmp_path / "r.xyz", ROWS)
