"""The figure that a comparison compares by, from the events of a journal."""

from __future__ import annotations

import pytest

from lmworks.base.errors import InputError
from lmworks.comparisons.comparison_figure import average, figure_of, validation_score
from lmworks.evaluate import metrics

CLASSIFIED = {"classification": {"accuracy": 0.75, "row_correct": [1.0, 1.0, 0.0, 1.0]}, "held_out": {"loss": 0.5}}
ASKED = {
    "task": {"metric": "accuracy", "signature": metrics.metric("accuracy").signature, "value": 0.5,
             "values": [1.0, 0.0, 0.0, 1.0], "references": list("abab"), "answers": list("aaaa")},
    "held_out": {"loss": 0.9, "row_nats": [1.0, 2.0], "row_tokens": [1, 2]},
}  # fmt: skip
WRITTEN = {
    "task": {"metric": "chrF", "signature": "chrF2|version", "value": 30.0, "values": [20.0, 40.0]},
    "held_out": {"loss": 1.5, "row_nats": [3.0, 3.0], "row_tokens": [2, 2]},
}
NUMBERS = {"name": "number", "share": 0.5, "row_right": [1.0, 0.0], "row_weights": [1.0, 1.0]}


def test_a_head_and_a_prompted_model_are_compared_by_the_same_accuracy():
    head, asked = figure_of(CLASSIFIED, "classify", "abc"), figure_of(ASKED, "labels", "abc")
    assert head.measure == asked.measure
    assert (head.value, asked.value) == (0.75, 0.5)
    assert figure_of(ASKED, "labels", "other").measure["signature"] != head.measure["signature"]


def test_written_answers_are_compared_by_their_metric_or_by_the_final_number():
    assert figure_of(WRITTEN, "instructions", "").value == pytest.approx(30.0)
    assert figure_of(WRITTEN, "instructions", "").measure["title"] == "chrF"
    exact = figure_of({**WRITTEN, "numbers": NUMBERS}, "instructions", "")
    assert (exact.measure["key"], exact.value) == ("final_number", 0.5)


def test_texts_are_compared_by_their_loss():
    own = figure_of({"held_out": WRITTEN["held_out"]}, "causal", "")
    assert own.value == pytest.approx(6.0 / 4.0)
    assert own.measure["better"] == "lower"


def test_a_search_chooses_by_accuracy_then_loss_and_by_loss_where_answers_are_written():
    assert validation_score(CLASSIFIED, "classify") == (0.75, "higher", 0.5)
    none_right = {"entities": {"f1": 0.0, "row_right": [0, 0], "row_entities": [1, 3]}, "held_out": {"loss": 2.0}}
    assert validation_score(none_right, "tag") == (0.0, "higher", 2.0)
    assert validation_score(WRITTEN, "instructions") == (1.5, "lower", None)
    assert validation_score(ASKED, "labels") == (0.9, "lower", None)


def test_seeds_are_averaged_by_row():
    other = {"entities": {"f1": 0.5, "row_right": [0, 2], "row_entities": [4, 2]}}
    first = {"entities": {"f1": 0.5, "row_right": [1, 2], "row_entities": [2, 4]}}
    parts = [figure_of(event, "tag", "") for event in (first, other)]
    assert average(parts) == ([0.5, 2.0], [3.0, 3.0])


def test_a_figure_that_is_no_number_is_refused_and_is_no_score():
    held_out = {"loss": None, "row_nats": [1.0, None], "row_tokens": [1, 2]}  # as the journal has NaN
    with pytest.raises(InputError, match="NaN or infinite on 1 of 2 rows"):
        figure_of({"held_out": held_out}, "causal", "")
    assert validation_score({"held_out": held_out}, "causal") is None
    assert validation_score({**CLASSIFIED, "held_out": held_out}, "classify") is None
