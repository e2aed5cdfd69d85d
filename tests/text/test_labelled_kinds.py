"""Rows of pairs, several labels and values: recognised by their columns, and what is wrong with a row is named."""

from __future__ import annotations

from typing import Any

import pytest

from lmworks.base.errors import InputError
from lmworks.text import corpus
from lmworks.text.rows import DataSettings


def read(rows: list[dict[str, Any]], **settings: Any) -> Any:
    return corpus.read(rows, DataSettings(**settings))


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"premise": "a", "hypothesis": "b", "label": "no"}, "pair_labels"),
        ({"index": 1, "sentence1": "a", "sentence2": "b", "label": 0}, "pair_labels"),
        ({"sentence1": "a", "sentence2": "b", "score": "3.5"}, "pair_values"),
        ({"text": "a", "text_pair": "b"}, "text_pairs"),
        ({"text": "a", "labels": ["x", "y"]}, "multi_labels"),
        ({"text": "a", "label": ["x"]}, "multi_labels"),
        ({"text": "a", "label": "x"}, "labels"),
        ({"text": "a", "labels": "x"}, "labels"),
        ({"text": "a", "labels": 1}, "labels"),
        ({"text": "a", "text_pair": "b", "labels": 1}, "pair_labels"),
        ({"text": "a", "score": 0.5}, "text"),  # it may be anything
    ],
)
def test_the_kind_follows_from_the_columns(row: dict[str, Any], kind: str) -> None:
    assert read([row, row]).kind == kind


def test_pairs_are_held_out_by_their_first_text() -> None:
    table = read([{"premise": f"a{n // 2}", "hypothesis": f"b{n}", "label": str(n % 2)} for n in range(40)])
    train, held_out = corpus.split(table, DataSettings())
    assert "by the hash of their first text" in train.notes[-1]
    assert not {row.values["text"] for row in train.rows} & {row.values["text"] for row in held_out.rows}


def test_what_cannot_be_divided_is_said() -> None:
    rows = [{"premise": f"a{n // 10}", "hypothesis": f"b{n}", "label": str(n % 2)} for n in range(20)]
    train, held_out = corpus.split(read(rows), DataSettings())
    assert (len(train), len(held_out)) == (20, 0)
    assert "the same first text stay together, and no group has at most 2 rows" in train.notes[-1]


def test_values_of_one_text_are_named() -> None:
    table = read([{"text": "a", "stars": "4.5"}] * 2, columns={"text": "text", "value": "stars"})
    assert (table.kind, table.rows[0].values) == ("values", {"text": "a", "value": 4.5})


def test_the_hint_for_labels_on_a_scale_reads_them_as_values() -> None:
    rows = [{"text": f"parcel {n}", "label": n * 0.37 + 0.001} for n in range(80)]
    with pytest.raises(InputError, match="predicting these is regression") as refusal:
        read(rows)
    assert "to learn the values: --data.columns '{text: text, value: label}'" in refusal.value.hint
    assert read(rows, columns={"text": "text", "value": "label"}).kind == "values"


def test_several_labels_in_one_field() -> None:
    rows = [{"text": "a", "label": "x|y| x"}, {"text": "b", "label": "z"}]
    table = read(rows, label_separator="|")
    assert [row.values["labels"] for row in table.rows] == [["x", "y"], ["z"]]
    assert table.labels == ["x", "y", "z"]
    assert read([{"text": "a", "labels": []}, {"text": "b", "labels": ["x"]}]).rows[0].values["labels"] == []


@pytest.mark.parametrize(
    ("row", "settings", "said"),
    [
        ({"text": "a", "text_pair": "b", "score": "high"}, {"kind": "pair_values"}, "is 'high', not a finite number"),
        ({"text": "a", "text_pair": "b", "score": 7}, {"value_range": (0, 5)}, "is 7, outside 0 to 5"),
        ({"text": "a", "text_pair": "b", "score": float("inf")}, {"kind": "pair_values"}, "not a finite number"),
        ({"text": "a", "text_pair": "b", "score": 1e300}, {}, "is 1e\\+300, too large to be learned"),
        ({"text": "a", "text_pair": "", "label": "x"}, {}, "field 'text_pair' is empty"),
        ({"text": "a", "labels": "x"}, {"kind": "multi_labels"}, "is a str, not a list of labels"),
        ({"text": "a", "labels": ["x", ""]}, {}, "holds '', which is no label"),
        ({"text": "a", "labels": ["x", None]}, {}, "holds None, which is no label"),
    ],
)
def test_a_bad_row_is_named(row: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    good = {"text": "a", "text_pair": "b", "score": 1, "label": "x", "labels": ["x"]}
    rows = [{name: good[name] for name in row}, row]
    with pytest.raises(InputError, match=said) as refusal:
        read(rows, **settings)
    assert refusal.value.place == "row 2"
    assert refusal.value.hint


@pytest.mark.parametrize("score", ["high", float("inf"), "1,5", True])
def test_one_bad_value_does_not_make_all_rows_another_kind(score: object) -> None:
    rows = [{"sentence1": "a", "sentence2": f"b {n}", "score": n} for n in range(5)]
    rows.append({"sentence1": "a", "sentence2": "c", "score": score})
    with pytest.raises(InputError, match="not a finite number") as refusal:
        read(rows)
    assert refusal.value.place == "row 6"
    assert read(rows, on_bad_row="skip").kind == "pair_values"


def test_lists_that_all_hold_a_null_are_labels_and_are_refused() -> None:
    with pytest.raises(InputError, match="holds None, which is no label"):
        read([{"text": "a", "labels": ["x", None]}] * 3)
