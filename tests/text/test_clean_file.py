"""A cleaned file is the same file but for its texts."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from lmworks.base.errors import InputError
from lmworks.commands.clean import diff
from lmworks.commands.main import main
from lmworks.text.clean_file import clean_file
from lmworks.text.cleaning import steps_of
from lmworks.text.rows import DataSettings

STEPS = steps_of(["html", "case", "spaces"])


def test_csv_keeps_its_other_columns(tmp_path: Path) -> None:
    rows = [["id", "text", "label"], ["01", '<p>A "quoted", text</p>\nof two lines', "X,Y"], ["", "plain", " B "]]
    with (tmp_path / "r.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    cleaned = clean_file(tmp_path / "r.csv", STEPS)
    assert cleaned.cleaned.changed == {"html": 1, "case": 1, "spaces": 1}
    assert [cleaned.cells[number] for number in cleaned.changed()] == [(0, "text")]
    with cleaned.write(tmp_path / "o.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [rows[0], ["01", 'a "quoted", text of two lines', "X,Y"], rows[2]]


def test_json_lines_keep_values_of_every_kind(tmp_path: Path) -> None:
    rows = [{"id": 1, "text": "A &amp; B", "more": {"a": [1.5, None, "É"]}}, {"text": None, "id": 2}]
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    out = clean_file(tmp_path / "r.jsonl.gz", STEPS).write(tmp_path / "o.jsonl")
    assert [json.loads(line) for line in out.read_text().splitlines()] == [{**rows[0], "text": "a & b"}, rows[1]]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    schema = pyarrow.schema([("text", pyarrow.large_string()), ("n", pyarrow.int16()), ("d", pyarrow.date32())])
    table = pyarrow.table({"text": ["A", None], "n": [1, 2], "d": [10, 20]}, schema=schema)
    parquet.write_table(table, tmp_path / "r.parquet")
    out = clean_file(tmp_path / "r.parquet", STEPS).write(tmp_path / "o.parquet")
    assert parquet.read_table(out) == table.set_column(0, schema.field(0), pyarrow.array(["a", None], schema[0].type))


def test_plain_text_keeps_its_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("A\n\n\nB  c\n")
    assert clean_file(tmp_path / "r.txt", STEPS).write(tmp_path / "o.txt").read_text() == "a\n\n\nb c\n"


def test_columns_are_those_named_or_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"prompt": "A", "completion": "B", "ticket": "C"}\n')
    assert clean_file(tmp_path / "r.jsonl", STEPS).columns == ["prompt", "completion"]
    named = DataSettings(columns={"text": "ticket"})
    out = clean_file(tmp_path / "r.jsonl", STEPS, named).write(tmp_path / "o.jsonl")
    assert json.loads(out.read_text()) == {"prompt": "A", "completion": "B", "ticket": "c"}
    (tmp_path / "s.tsv").write_text("X\tA\n")
    settings = DataSettings(header=False, columns={"text": 2, "label": 1})
    assert clean_file(tmp_path / "s.tsv", STEPS, settings).write(tmp_path / "t.tsv").read_text() == "X\ta\n"


@pytest.mark.parametrize(
    ("name", "content", "settings", "fault"),
    [
        ("r.csv", "a,b\n1,2\n", {}, "no column has the usual name"),
        ("r.csv", "a,b\n1,2\n", {"columns": {"text": "c"}}, "no column 'c'"),
        ("r.csv", "text\n", {}, "no usable row"),
        ("r.jsonl", '{"text": \n', {}, "JSON"),
        ("r.txt", "\n\n", {}, "no usable row"),
        ("r.csv", "text\n\xff\n", {}, "not UTF-8"),
    ],
)
def test_files_that_cannot_be_cleaned(name: str, content: str, settings: dict, fault: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=fault):
        clean_file(tmp_path / name, STEPS, DataSettings(**settings))


def test_the_command_shows_before_and_after_and_counts(tmp_path: Path, capsys) -> None:
    (tmp_path / "r.csv").write_text("text,label\nThe <b>End</b>,x\nthe,y\n")
    arguments = ["data", "clean", str(tmp_path / "r.csv"), "--steps", "html,case,stop-words"]
    assert main([*arguments, "--out", str(tmp_path / "o.csv")]) == 0
    shown = capsys.readouterr()
    assert "- The <b>End</b>\n+  end\n" in shown.out
    for line in ("html 1 50.0 % -7", "case 1 50.0 % +0", "stop_words 2 100.0 % -6"):
        assert line in " ".join(shown.out.split())
    assert "nothing is left of 1 text (first: " in shown.err
    assert (tmp_path / "o.csv").read_text() == "text,label\n end,x\n,y\n"
    for words, fault in ((["--steps", "htm"], "did you mean html"), (["--steps", ","], "names no step")):
        assert main(["data", "clean", str(tmp_path / "r.csv"), *words]) == 2
        assert fault in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "o.jsonl")]) == 2
    assert "its name says jsonl" in capsys.readouterr().err


def test_both_lines_of_a_difference_are_whole() -> None:
    minus, plus = diff("It's 3 <b>cats</b>!", "it is NUM cats")
    assert (minus.plain, plus.plain) == ("- It's 3 <b>cats</b>!", "+ it is NUM cats")
    assert [minus.plain[span.start : span.end] for span in minus.spans if "red" in str(span.style)]
