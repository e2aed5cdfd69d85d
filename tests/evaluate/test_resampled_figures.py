"""Figures over resampled rows are those that the definitions give for the rows of each resample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from lmworks.evaluate import resampled_figures as module
from lmworks.evaluate.classification import calibration, multi_label_figures, single_label_figures
from lmworks.evaluate.metrics import resample_weights
from lmworks.reports.measures import MEASURED_APART, measures

ROWS, CLASSES = 40, 3


@pytest.fixture(autouse=True, name="few")
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 30)
    monkeypatch.setattr(module, "FEWEST", 30)


def rows_of_resamples() -> list[np.ndarray]:
    weights = np.concatenate(list(resample_weights(ROWS, 30, ROWS)))
    assert weights.shape == (30, ROWS)
    assert (weights.sum(1) == ROWS).all()
    return [np.repeat(np.arange(ROWS), row.astype(int)) for row in weights]


def made(seed: int) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    probabilities = np.round(dice.dirichlet(np.ones(CLASSES), ROWS), 1) + 1e-3  # rounded, so that some are equal
    classes = np.where(dice.random(ROWS) < 0.6, probabilities.argmax(1), dice.integers(0, CLASSES, ROWS))
    return probabilities, classes


def area(occurs: np.ndarray, scores: np.ndarray) -> float:
    known = [c for c in range(occurs.shape[1]) if 0 < occurs[:, c].sum() < len(occurs)]
    return float(np.mean([metrics.roc_auc_score(occurs[:, c], scores[:, c]) for c in known]))


def test_of_one_label() -> None:
    probabilities, classes = made(1)
    draws = single_label_figures(probabilities, classes, ["a", "b", "c"])["resamples"]
    for number, rows in enumerate(rows_of_resamples()):
        scores, right = probabilities[rows], classes[rows]
        predicted = scores.argmax(1)
        expected = {
            "macro_f1": metrics.f1_score(right, predicted, average="macro", zero_division=0.0),
            "micro_f1": metrics.f1_score(right, predicted, average="micro", zero_division=0.0),
            "roc_auc": area(right[:, None] == np.arange(CLASSES), scores),
            "calibration_error": calibration(scores.max(1), predicted == right).error,
        }
        assert {name: draws[name][number] for name in expected} == pytest.approx(expected, abs=2e-6)


def test_of_several_labels() -> None:
    dice = np.random.default_rng(2)
    probabilities, classes = np.round(dice.random((ROWS, CLASSES)), 1), dice.random((ROWS, CLASSES)) < 0.4
    draws = multi_label_figures(probabilities, classes, ["a", "b", "c"])["resamples"]
    for number, rows in enumerate(rows_of_resamples()):
        scores, right = probabilities[rows], classes[rows]
        predicted = scores >= 0.5
        confidence = np.where(predicted, scores, 1 - scores)
        expected = {
            "macro_f1": metrics.f1_score(right, predicted, average="macro", zero_division=0.0),
            "micro_f1": metrics.f1_score(right, predicted, average="micro", zero_division=0.0),
            "roc_auc": area(right, scores),
            "calibration_error": calibration(confidence.ravel(), (predicted == right).ravel()).error,
        }
        assert {name: draws[name][number] for name in expected} == pytest.approx(expected, abs=2e-6)


def test_the_card_has_intervals_and_pairs_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 400)
    probabilities, classes = made(3)
    better = np.where(np.arange(CLASSES) == classes[:, None], 0.8, 0.1)

    def listed(*sides: np.ndarray) -> dict[str, Any]:
        events = [{"classification": single_label_figures(side, classes, ["a", "b", "c"])} for side in sides]
        return {measure["key"]: measure for measure in measures(*events, "classify")}

    figures = listed(probabilities, better)
    for key in ("macro_f1", "micro_f1", "roc_auc", "calibration_error"):
        before, change = figures[key]["before"], figures[key]["change"]
        assert before["interval"][0] <= before["value"] <= before["interval"][1]
        assert change["interval"][0] <= change["value"] <= change["interval"][1]
        assert figures[key]["rows"] == ROWS
    assert figures["macro_f1"]["verdict"] == "better"
    same = listed(probabilities, probabilities)["macro_f1"]
    assert same["change"]["interval"] == pytest.approx([0.0, 0.0])
    assert same["before"]["interval"][0] < same["before"]["interval"][1]


def test_a_class_that_no_row_lacks_has_no_area() -> None:
    probabilities = np.full((8, 2), 0.5)
    draws = single_label_figures(probabilities, np.zeros(8, dtype=int), ["a", "b"])["resamples"]
    assert set(draws["roc_auc"]) == {None}


def test_figures_computed_in_two_ways_are_not_compared() -> None:
    probabilities, classes = made(3)
    events = [{"classification": single_label_figures(probabilities, classes, ["a", "b", "c"])} for _ in range(2)]
    events[1]["classification"]["signatures"]["accuracy"] = "accuracy|scikit-learn:0.1"
    figures = {measure["key"]: measure for measure in measures(*events, "classify")}
    assert figures["accuracy"]["change"] is None
    assert figures["accuracy"]["verdict"] == MEASURED_APART
    assert "scikit-learn:0.1" in figures["accuracy"]["signature"]
    assert figures["macro_f1"]["change"]["value"] == 0.0
    assert figures["macro_f1"]["signature"] in figures["macro_f1"]["detail"]
