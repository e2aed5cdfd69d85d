"""Files of predictions and references in all formats are the same rows; what does not fit is named by its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import lmworks
from lmworks.base.errors import InputError
from lmworks.evaluate.metric_registry import METRICS, kind_of, metric_name
from lmworks.evaluate.prediction_files import Fields, read_baseline, read_rows
from lmworks.text.row_files import write_rows

PREDICTED, RIGHT = ["a cat sat", "", "the end"], ["the cat sat", "nothing", "the end."]


def lines(path: Path, texts: list[str]) -> Path:
    content = "".join(f"{text}\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("names", [("p.txt", "r.txt"), ("system.de", "reference.de"), ("p.txt.gz", "r")])
def test_lines_are_rows_and_empty_ones_are_empty_predictions(tmp_path: Path, names: tuple[str, str]) -> None:
    paths = [lines(tmp_path / name, texts) for name, texts in zip(names, (PREDICTED, RIGHT), strict=True)]
    rows, notes = read_rows(*paths)
    assert list(rows.predicted) == PREDICTED
    assert [list(listed) for listed in rows.references] == [[text] for text in RIGHT]
    assert rows.reference_place(2) == f"{paths[1]}:3"
    assert notes == ["1 prediction without a text"]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_columns_of_one_file_and_of_two(tmp_path: Path, ending: str) -> None:
    both = [{"text": "?", "prediction": ours, "label": right} for ours, right in zip(PREDICTED, RIGHT, strict=True)]
    one = write_rows(tmp_path / f"both{ending}", both)
    first = write_rows(tmp_path / f"p{ending}", [{"id": 1, "output": text} for text in PREDICTED])
    second = write_rows(tmp_path / f"r{ending}", [{"text": text} for text in RIGHT])
    for rows, _ in (read_rows(one), read_rows(first, second)):
        assert list(rows.predicted) == PREDICTED
        assert [list(listed) for listed in rows.references] == [[text] for text in RIGHT]


def test_several_references_from_files_lists_and_columns(tmp_path: Path) -> None:
    others = ["a cat was sitting", "none", "it is over"]
    expected = [list(pair) for pair in zip(RIGHT, others, strict=True)]
    predicted = lines(tmp_path / "p.txt", PREDICTED)
    files = [lines(tmp_path / "r1.txt", RIGHT), lines(tmp_path / "r2.txt", others)]
    listed = write_rows(tmp_path / "r.jsonl", [{"references": pair} for pair in expected])
    columns = write_rows(tmp_path / "r.csv", [{"one": one, "two": two} for one, two in expected])
    squad = write_rows(tmp_path / "s.jsonl", [{"answers": {"text": pair, "answer_start": [0, 0]}} for pair in expected])
    found = [
        read_rows(predicted, files),
        read_rows(predicted, listed),
        read_rows(predicted, columns, Fields(references=("one", "two"))),
        read_rows(predicted, squad),
        read_rows(PREDICTED, expected),
    ]
    for rows, _ in found:
        assert [list(texts) for texts in rows.references] == expected


def test_tags_probabilities_and_likelihoods(tmp_path: Path) -> None:
    tags = [{"prediction": ["O", "B-PER"], "tags": ["B-LOC", "B-PER"]}, {"prediction": ["O"], "tags": ["O"]}]
    rows, _ = read_rows(write_rows(tmp_path / "t.jsonl", tags))
    assert kind_of(rows) == "tags"
    assert list(rows.reference_tags[0]) == ["B-LOC", "B-PER"]
    chances = [{"label": "no", "probability_yes": 0.75, "probability_no": 0.25, "prediction": "yes"}] * 3
    rows, _ = read_rows(write_rows(tmp_path / "c.csv", chances))
    assert rows.probabilities[0] == {"yes": 0.75, "no": 0.25}
    assert kind_of(rows) == "probabilities"
    objects = [{"label": "no", "probabilities": {"yes": 0.75, "no": 0.25}}] * 3
    rows, _ = read_rows(write_rows(tmp_path / "c.jsonl", objects))
    assert list(rows.predicted) == ["yes"] * 3  # the likeliest
    scored = [{"text": "a", "nats": 2.5, "tokens": 2, "bytes": 7, "characters": 7, "signature": "backend:torch|x:1"}]
    rows, _ = read_rows(write_rows(tmp_path / "s.json", scored))
    assert kind_of(rows) == "likelihoods"
    assert rows.likelihoods["nats"].tolist() == [2.5]
    assert rows.scored_by == "backend:torch|x:1"


def test_files_in_the_conll_format(tmp_path: Path) -> None:
    for name, tag in (("p", "B-PER"), ("r", "B-LOC")):
        (tmp_path / f"{name}.conll").write_text(f"Rome\t{tag}\nis\tO\n\nhere\tO\n")
    rows, _ = read_rows(tmp_path / "p.conll", tmp_path / "r.conll")
    assert [list(each) for each in rows.tags] == [["B-PER", "O"], ["O"]]
    assert [list(each) for each in rows.reference_tags] == [["B-LOC", "O"], ["O"]]


def test_other_lengths_name_both_counts(tmp_path: Path) -> None:
    paths = lines(tmp_path / "p.txt", PREDICTED), lines(tmp_path / "r.txt", RIGHT[:2])
    with pytest.raises(InputError, match=r"p.txt and .*r.txt: 3 predictions, and 2 references"):
        read_rows(*paths)
    with pytest.raises(InputError, match="3 predictions, and 1 reference"):
        read_rows(PREDICTED, RIGHT[:1])
    rows, _ = read_rows(PREDICTED, RIGHT)
    with pytest.raises(InputError, match="2 predictions here, and 3 to compare with"):
        read_baseline(PREDICTED[:2], rows)


@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_reference_is_named_by_its_line(tmp_path: Path, empty: str) -> None:
    predicted = lines(tmp_path / "p.txt", PREDICTED)
    with pytest.raises(InputError, match=r"r.txt:2: the reference is empty"):
        read_rows(predicted, lines(tmp_path / "r.txt", ["a", empty, "b"]))
    right = [{"reference": "a"}, {"reference": "b"}, {"reference": ["c", empty]}]
    listed = write_rows(tmp_path / "r.jsonl", right)
    with pytest.raises(InputError, match=r"r.jsonl:3: the reference is empty"):
        read_rows(predicted, listed)
    with pytest.raises(InputError, match=r"references, row 1: the reference is empty"):
        read_rows(["a"], [[]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prediction": None, "label": "a"}], r"p.jsonl:1, prediction: null is no text"),
        ([{"prediction": "a", "label": None}], r"p.jsonl:1: null is no text"),
        ([{"prediction": "a", "label": "b"}, {"label": "b"}], r"p.jsonl:2, prediction: null is no text"),
        ([{"guess": "a", "truth": "b"}], r"p.jsonl: no column of predictions has a usual name"),
        ([{"prediction": "a", "probability_a": "high", "label": "a"}], r'p.jsonl:1, a: "high" is no finite number'),
        ([{"nats": 1.0, "tokens": None}], r"p.jsonl:1, tokens: null is no finite number"),
        ([{"prediction": ["O", 1], "tags": ["O", "O"]}], r"p.jsonl:1: a list of other things than tags"),
    ],
)
def test_fields_that_cannot_be_read(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=message):
        read_rows(path)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.csv", [{"guess": "a", "truth": "b"}])
    rows, _ = read_rows(path, fields=Fields("guess", ("truth",)))
    assert (list(rows.predicted), [list(listed) for listed in rows.references]) == (["a"], [["b"]])
    with pytest.raises(InputError, match=r"there is no column 'gues'\n.*guess, truth"):
        read_rows(path, fields=Fields("gues"))
    with pytest.raises(InputError, match="there is no such file"):
        read_rows(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("right", "kind"),
    [
        ([["a"], ["b"]] * 10, "labels"),
        ([[f"text {n}"] for n in range(20)], "texts"),
        ([[f"{n / 7}"] for n in range(20)], "numbers"),
        ([["1"], ["0"]] * 10, "labels"),
        ([["O B-PER I-PER"]] * 20, "tags"),
        ([["a", "b"]] * 20, "texts"),
    ],
)
def test_what_rows_are_by_their_references(right: list[list[str]], kind: str) -> None:
    predicted = [listed[0] for listed in right]
    assert kind_of(read_rows(predicted, right)[0]) == kind


@pytest.mark.parametrize(
    ("text", "name"),
    [("ROUGE-L", "rougeL"), ("rouge_lsum", "rougeLsum"), ("BLEU", "bleu"), ("ECE", "calibration_error")],
)
def test_names_of_metrics_as_people_write_them(text: str, name: str) -> None:
    assert metric_name(text) == name


def test_an_unknown_metric_names_those_that_there_are() -> None:
    with pytest.raises(InputError, match=r"no metric 'bleuu'\n.*did you mean bleu\? There are bleu, chrf") as error:
        lmworks.measure(["a"], ["b"], metrics=["bleuu"])
    assert all(name in str(error.value) for name in METRICS)


def test_metrics_that_do_not_fit_the_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pearson compares numbers, and 'a' is none"):
        lmworks.measure(["a"], ["b"], metrics=["pearson"])
    with pytest.raises(InputError, match="bleu needs references"):
        lmworks.measure(["a"], metrics=["bleu"])
    with pytest.raises(InputError, match="bleu is a metric of texts, and the rows hold tags"):
        lmworks.measure([["O"]], [["O"]], metrics=["bleu"])
    with pytest.raises(InputError, match="perplexity needs the field 'nats'"):
        lmworks.measure(["a"], ["b"], metrics=["perplexity"])
