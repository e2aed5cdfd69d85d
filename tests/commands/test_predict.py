"""lmworks predict: rows get labels, and figures where they have some; a wrong label is named with its row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet

import lmworks
from lmworks.commands.main import main
from lmworks.text import formats
from lmworks.text.rows import BadRows, DataSettings

TEXTS = {"good": "a great lovely film", "bad": "an awful dull film"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    lines = [f"{folder.name}{n}\t{label}\t{text} number {n}\n" for n in range(40) for label, text in TEXTS.items()]
    (folder / "r.tsv").write_text("".join(lines))
    data = {"header": False, "columns": {"text": 3, "label": 2}, "label_names": {"bad": "awful"}}
    lmworks.tune("tfidf-logreg", folder / "r.tsv", data=data, out=folder / "run")
    return folder / "run"


def test_the_run_says_which_column_is_what(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "n.tsv").write_text("7\tgood\tlovely\n8\tbad\tdull, awful\n9\tgood\tdull\n")
    assert main(["predict", str(run), str(tmp_path / "n.tsv"), "--out", str(tmp_path / "o.csv")]) == 0
    out = capsys.readouterr().out
    assert "3 rows: 2 × awful, 1 × good" in out
    assert "accuracy 0.667" in out
    rows = [row.values for row in formats.records(tmp_path / "o.csv", DataSettings(), BadRows("stop"), [])]
    assert [row["prediction"] for row in rows] == ["good", "awful", "awful"]
    assert [row["1"] for row in rows] == ["7", "8", "9"]
    expected = lmworks.load(run).predict(["lovely"])[0].probabilities
    assert float(rows[0]["probability_good"]) == pytest.approx(expected["good"])


def test_rows_without_labels(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "n.jsonl").write_text('{"text": "lovely", "id": 3}\n{"text": "dull", "id": 4}\n')
    arguments = ["predict", str(run), str(tmp_path / "n.jsonl"), "--data.header", "true"]
    assert main([*arguments, "--out", str(tmp_path / "o.parquet")]) == 0
    assert "accuracy" not in capsys.readouterr().out
    table = parquet.read_table(tmp_path / "o.parquet").to_pylist()
    assert [(row["id"], row["prediction"]) for row in table] == [(3, "good"), (4, "awful")]


def test_lines_of_a_text_file_are_rows(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "n.txt").write_text("lovely great\n\nawful\n")
    assert main(["predict", str(run), str(tmp_path / "n.txt"), "--out", str(tmp_path / "o.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["good", "awful"]


def test_rows_of_the_training_are_said_to_be(run: Path, capsys) -> None:
    assert main(["predict", str(run), str(run.parent / "r.tsv")]) == 0
    assert "trained on most of these rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "options", "faults"),
    [
        ("7\tgood\tlovely\n8\tmeh\tdull\n", [], ["n.tsv:2", "'meh'", "--data.label_names"]),
        ("7\tgood\tlovely\n8\tgood\t \n", [], ["n.tsv:2", "empty"]),
        ("7\tgood\tlovely\n8\n", [], ["n.tsv:2", "fields"]),
        ("7\tgood\tlovely\n", ["--out", "o.xyz"], ["o.xyz", "format"]),
    ],
)
def test_bad_rows_are_named(content: str, options: list, faults: list, run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "n.tsv").write_text(content)
    assert main(["predict", str(run), str(tmp_path / "n.tsv"), *options]) == 2
    error = capsys.readouterr().err
    assert all(fault in error for fault in faults)


def test_what_is_no_classifier_is_refused(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"model_type": "lmworks-tfidf"}')
    assert main(["predict", str(tmp_path / "run"), str(run.parent / "r.tsv")]) == 2
    assert "settings is missing" in capsys.readouterr().err
