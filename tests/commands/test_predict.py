"""lmworks predict: rows get labels, and figures where they have some; a wrong label is named with its row."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file

import lmworks
from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.text import formats
from lmworks.text.rows import BadRows, DataSettings

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
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


def test_a_model_that_gives_no_labels_is_refused_with_the_row(run: Path, tmp_path: Path, capsys) -> None:
    text = "".join(f"a film of {n} actors, seen by {n} people.\n\n" for n in range(30))
    (tmp_path / "book.txt").write_text(text)
    lmworks.pretrain("tinybert", tmp_path / "book.txt", model=SIZES, train={"steps": 1}, out=tmp_path / "bert")
    (tmp_path / "rows.csv").write_text("text,label\na film,good\nan actor,bad\n")
    assert main(["predict", str(tmp_path / "bert"), str(tmp_path / "rows.csv")]) == 2
    assert "rows.csv:2: the rows have labels, as 'good', and the model gives none" in capsys.readouterr().err
    (tmp_path / "rated.jsonl").write_text("".join(f'{{"text": "film {n}", "value": {n % 5}}}\n' for n in range(20)))
    data = {"columns": {"text": "text", "value": "value"}}
    lmworks.tune(tmp_path / "bert", tmp_path / "rated.jsonl", data=data, train={"steps": 1}, out=tmp_path / "rater")

    assert main(["predict", str(tmp_path / "rater" / "final"), str(tmp_path / "rows.csv")]) == 2
    assert "the model gives none" in capsys.readouterr().err  # and not that LABEL_0 is one
    path = tmp_path / "rater" / "final" / "adapter_model.safetensors"
    whole = load_file(path)
    save_file({name: torch.full_like(weights, float("nan")) for name, weights in whole.items()}, path)
    with pytest.raises(InputError, match="numbers that are not finite"):
        lmworks.load(tmp_path / "rater" / "final").predict(["a film"])
    save_file({name: weights for name, weights in whole.items() if "classifier" not in name}, path)
    with pytest.raises(InputError, match=r"the file lacks classifier\.weight"):
        lmworks.load(tmp_path / "rater" / "final")


def test_the_rows_own_file_is_not_replaced(run: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "n.tsv"
    path.write_text("7\tgood\tlovely\n")
    (tmp_path / "link.tsv").symlink_to(path)
    for out in (path, tmp_path / "link.tsv"):
        assert main(["predict", str(run), str(path), "--out", str(out)]) == 2
        assert "would replace it" in capsys.readouterr().err
    assert path.read_text() == "7\tgood\tlovely\n"


def test_a_text_alone_is_labelled(run: Path, tmp_path: Path, capsys) -> None:
    assert main(["predict", str(run), "--text", "lovely, great film", "--out", str(tmp_path / "o.jsonl")]) == 0
    assert "1 row: 1 × good" in capsys.readouterr().out
    (row,) = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert (row["text"], row["prediction"]) == ("lovely, great film", "good")


def test_a_text_in_place_of_a_file_is_told_how_to_be_given(run: Path, capsys) -> None:
    assert main(["predict", str(run), "the film's awful"]) == 2
    said = capsys.readouterr().err
    assert "the film's awful: there is no such file" in said
    command = shlex.split(said.partition("to label a text: lmworks ")[2].partition(";")[0])
    assert main(command) == 0
    assert "1 row: 1 × awful" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["n.tsv", "--text", "lovely"], ["--text", "lovely", "--data.header", "false"]])
def test_a_file_or_a_text_is_given(words: list[str], run: Path, capsys) -> None:
    assert main(["predict", str(run), *words]) == 2
    assert ("--text: is a text" if words else '--text "TEXT"') in capsys.readouterr().err
