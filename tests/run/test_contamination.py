"""A run whose held-out rows are among its training rows is refused, unless it is allowed; it is said either way."""

from __future__ import annotations

import json

import pytest
from tiny_suites_of_rows import contaminated_rows, different_rows

import lmworks
from lmworks.base.errors import InputError
from lmworks.run.contamination import check, measure
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

SETTINGS = DataSettings(held_out=20)


def sides(rows):
    return corpus.split(corpus.read(rows), SETTINGS)


def test_rows_that_differ_in_case_alone_are_found():
    train, held_out = sides(contaminated_rows(60))
    found = measure(train, held_out)
    assert found["rows"] == 20
    assert 0.4 < found["share"] <= 1
    json.dumps(found)
    with pytest.raises(InputError, match="occur among the rows to train on") as raised:
        check(train, held_out, SETTINGS)
    assert "--data.max_contamination 1" in raised.value.hint


def test_it_may_be_allowed_and_is_said_then():
    train, held_out = sides(contaminated_rows(60))
    (note,) = check(train, held_out, SETTINGS.model_copy(update={"max_contamination": 1.0}))
    assert "flattered" in note


def test_rows_that_only_look_alike_pass():
    assert check(*sides(different_rows(60)), SETTINGS) == []


def test_few_held_out_rows_are_not_refused():
    rows = contaminated_rows(12)
    train, held_out = corpus.split(corpus.read(rows), DataSettings(held_out=4))
    assert len(check(train, held_out, DataSettings())) <= 1


def test_a_run_is_refused_before_anything_is_trained(tmp_path):
    rows = [{**row, "label": ("a", "b")[n % 2]} for n, row in enumerate(contaminated_rows(60))]
    with pytest.raises(InputError, match="occur among the rows to train on"):
        lmworks.tune("tfidf-logreg", {"source": rows, "held_out": 20}, out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    allowed = {"source": rows, "held_out": 20, "max_contamination": 1}
    run = lmworks.tune("tfidf-logreg", allowed, out=tmp_path / "allowed").folder
    (section,) = lmworks.audit(run, kinds="contamination").sections
    assert section.parts == []
    (figure,) = section.data.figures
    assert figure.value > 0.4
    assert section.data.examples
