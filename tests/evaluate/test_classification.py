"""Figures of classifiers, beside their definitions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from lmworks.evaluate.classification import calibration, multi_label_figures, single_label_figures

LABELS = ["cat", "dog", "owl"]


def random_predictions(rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scores = np.exp(rng.normal(size=(rows, 3)))
    classes = rng.integers(3, size=rows)
    scores[np.arange(rows), classes] *= 3
    return scores / scores.sum(axis=1, keepdims=True), classes


def test_f1_and_confusion_follow_their_definitions() -> None:
    probabilities, classes = random_predictions()
    figures = single_label_figures(probabilities, classes, LABELS)
    predicted, confusion = probabilities.argmax(axis=1), np.array(figures["confusion"])
    f1 = [
        2 * confusion[c, c] / (confusion[c].sum() + confusion[:, c].sum())  # 2 TP / (2 TP + FP + FN)
        for c in range(3)
    ]
    assert figures["macro_f1"] == pytest.approx(np.mean(f1), abs=1e-12)
    assert figures["accuracy"] == pytest.approx(np.mean(predicted == classes))
    assert figures["micro_f1"] == pytest.approx(figures["accuracy"])  # each text has one label
    assert confusion[1, 2] == np.sum((classes == 1) & (predicted == 2))


def test_texts_of_one_class_are_evaluated_without_a_warning() -> None:
    with warnings.catch_warnings(action="error"):
        figures = single_label_figures(np.ones((5, 1)), np.zeros(5, dtype=int), ["cat"])
    assert (figures["accuracy"], figures["confusion"], figures["roc_auc"]) == (1.0, [[5]], None)


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    probabilities, classes = random_predictions(60)
    areas = []
    for c in range(3):
        inside, outside = probabilities[classes == c, c], probabilities[classes != c, c]
        areas.append(np.mean(inside[:, None] > outside[None]))
    figures = single_label_figures(probabilities, classes, LABELS)
    assert figures["roc_auc"] == pytest.approx(np.mean(areas))
    assert single_label_figures(probabilities, np.zeros(60, dtype=int), LABELS)["roc_auc"] is None


def test_calibration_error_is_the_mean_gap() -> None:
    confidence = np.array([0.95, 0.92, 0.55, 1.0])
    correct = np.array([True, False, True, True])
    measured = calibration(confidence, correct)
    high = (0.95 + 0.92 + 1.0) / 3
    assert measured.error == pytest.approx((3 * abs(high - 2 / 3) + abs(0.55 - 1.0)) / 4)
    assert [count for *_, count in measured.bins] == [1, 3]


def test_the_most_confident_mistakes_come_first() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    figures = single_label_figures(probabilities, np.array([1, 1, 2, 0]), LABELS)
    assert figures["mistakes"] == [0, 3, 2]
    assert figures["row_correct"] == [0.0, 1.0, 0.0, 0.0]


def test_texts_with_several_labels() -> None:
    probabilities = np.array([[0.9, 0.6, 0.1], [0.2, 0.7, 0.4], [0.1, 0.2, 0.3]])
    classes = np.array([[True, True, False], [False, True, True], [False, False, False]])
    figures = multi_label_figures(probabilities, classes, LABELS)
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 0 + 1))
    assert figures["macro_f1"] == pytest.approx((1 + 1 + 0) / 3)
    assert figures["mistakes"] == [1]
