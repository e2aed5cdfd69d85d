"""Figures of classifiers from predicted probabilities: accuracy, F1, ROC-AUC, confusion, calibration, mistakes.

scikit-learn computes the scores; the calibration error is that of Guo et al. 2017 (equation 3). Knows no model and no
file. In all signatures N is the number of texts and C that of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.prediction import SHOWN_MISTAKES, THRESHOLD, Prediction, probability_matrix
from lmworks.evaluate.resampled_figures import resampled_figures

CALIBRATION_BINS = 10
"""Bins of equal width between confidence 0 and 1."""


class Calibration(NamedTuple):
    """How often a classifier is right when it is this confident.

    Attributes:
        error: expected calibration error in 0..1, the mean of |accuracy - confidence| over all predictions.
        bins: of each bin that is not empty its mean confidence, its accuracy, and the number of its predictions.
    """

    error: float
    bins: list[tuple[float, float, int]]


def signatures(has_several: bool = False) -> dict[str, str]:
    """How each figure is computed, by its name: what label metrics of other predictions say too.

    Args:
        has_several: whether a text may have several labels: the accuracy is then the share of texts of which all are
            right, and the calibration is that of all decisions.
    """
    several = "several" if has_several else None
    decisions = "each decision" if has_several else "likeliest label"
    settings: dict[str, dict[str, object]] = {
        "accuracy": {},
        "macro_f1": {"average": "macro", "zero_division": 0},
        "micro_f1": {"average": "micro", "zero_division": 0},
        "roc_auc": {"average": "macro"},
    }
    named = {name: Signature.of_library("scikit-learn", name, **own) for name, own in settings.items()}
    named["calibration_error"] = Signature("calibration_error").with_settings(
        bins=CALIBRATION_BINS, width="equal", of=decisions
    )
    return {name: str(signature.with_settings(labels=several)) for name, signature in named.items()}


def calibration(confidence: np.ndarray, correct: np.ndarray) -> Calibration:
    """The calibration of predictions.

    Args:
        confidence: (N,) probability of what was predicted.
        correct: (N,) whether it was right.
    """
    which = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for number in np.unique(which):
        inside = which == number
        bins.append((float(confidence[inside].mean()), float(correct[inside].mean()), int(inside.sum())))
    error = sum(count * abs(accuracy - mean) for mean, accuracy, count in bins) / max(1, len(confidence))
    return Calibration(error, bins)


def single_label_figures(probabilities: np.ndarray, classes: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Figures of a classifier that gives each text one label, as a JSON object.

    Args:
        probabilities: (N, C), each row adding up to 1.
        classes: (N,) int, the right class of each text.
        labels: C names.

    Returns:
        ``accuracy``, ``macro_f1`` and ``micro_f1`` over the classes that occur among ``classes`` or predictions,
        ``roc_auc`` (macro, each class against the rest; None where fewer than two classes occur), ``confusion``
        ((C, C), rows: right classes, columns: predicted), ``calibration_error``, ``calibration``, ``mistakes``
        (numbers of texts, the most confident first), by row ``row_correct``, and ``resamples`` (figures of resampled
        rows, by their names: evaluate/resampled_figures); ``signatures`` of the figures.
    """
    from sklearn import metrics

    predicted, numbers = probabilities.argmax(axis=1), np.arange(len(labels))
    confidence, correct = probabilities.max(axis=1), predicted == classes
    measured = calibration(confidence, correct)
    return {
        "labels": list(labels),
        "signatures": signatures(),
        "rows": len(classes),
        "accuracy": float(metrics.accuracy_score(classes, predicted)),
        "macro_f1": float(metrics.f1_score(classes, predicted, average="macro", zero_division=0.0)),
        "micro_f1": float(metrics.f1_score(classes, predicted, average="micro", zero_division=0.0)),
        "roc_auc": _area(classes[:, None] == numbers[None], probabilities),
        "confusion": _confusion(classes, predicted, len(labels)),
        "calibration_error": measured.error,
        "calibration": measured.bins,
        "mistakes": most_confident(confidence, ~correct),
        "row_correct": correct.astype(float).tolist(),
        "resamples": resampled_figures(
            classes[:, None] == numbers,
            predicted[:, None] == numbers,
            probabilities,
            gaps_by_bin(confidence[:, None], correct[:, None]),
            1,
            True,
        ),
    }


def multi_label_figures(probabilities: np.ndarray, classes: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Figures of a classifier that gives each text any number of labels, as a JSON object.

    Args:
        probabilities: (N, C), each between 0 and 1.
        classes: (N, C) bool, the labels that each text has.
        labels: C names.

    Returns:
        ``accuracy`` (share of texts whose labels are all right), ``macro_f1``, ``micro_f1``, ``roc_auc``,
        ``calibration_error`` and ``calibration`` over all N x C decisions, ``mistakes``, ``row_correct``,
        ``resamples``, ``signatures``.
    """
    from sklearn import metrics

    predicted = probabilities >= THRESHOLD
    correct = (predicted == classes).all(axis=1)
    confidence = np.where(predicted, probabilities, 1.0 - probabilities)
    measured = calibration(confidence.ravel(), (predicted == classes).ravel())
    wrong = np.where(predicted != classes, confidence, 0.0).max(axis=1)
    return {
        "labels": list(labels),
        "signatures": signatures(has_several=True),
        "rows": len(classes),
        "accuracy": float(correct.mean()),
        "macro_f1": float(metrics.f1_score(classes, predicted, average="macro", zero_division=0.0)),
        "micro_f1": float(metrics.f1_score(classes, predicted, average="micro", zero_division=0.0)),
        "roc_auc": _area(classes, probabilities),
        "calibration_error": measured.error,
        "calibration": measured.bins,
        "mistakes": most_confident(wrong, ~correct),
        "row_correct": correct.astype(float).tolist(),
        "resamples": resampled_figures(
            classes.astype(bool),
            predicted,
            probabilities,
            gaps_by_bin(confidence, predicted == classes),
            len(labels),
            False,
        ),
    }


def evaluate_single_label(
    predicted: Sequence[Prediction],
    right: Sequence[str],
    labels: Sequence[str],
    texts: Sequence[str],
    places: Sequence[str],
) -> dict[str, Any]:
    """The part ``classification`` of an evaluation, of a classifier that gives each text one label.

    Args:
        predicted: N predictions.
        right: the right label of each text.
        labels: all that occur on either side, in the order of the confusion matrix.
        texts, places: of the N rows.
    """
    number = {label: place for place, label in enumerate(labels)}
    classes = np.array([number[label] for label in right], dtype=np.int64)
    probabilities = probability_matrix(predicted, labels)
    figures = single_label_figures(probabilities, classes, labels)
    return with_texts(figures, probabilities, classes, texts, places)


def evaluate_multi_label(
    predicted: Sequence[Prediction],
    right: Sequence[Sequence[str]],
    labels: Sequence[str],
    texts: Sequence[str],
    places: Sequence[str],
) -> dict[str, Any]:
    """The part ``classification`` of an evaluation, of a classifier that gives each text any number of labels.

    Args:
        predicted: N predictions.
        right: the right labels of each text.
        labels: all of them.
        texts, places: of the N rows.
    """
    classes = np.array([[label in of_text for label in labels] for of_text in right]).reshape(len(right), len(labels))
    probabilities = probability_matrix(predicted, labels)
    figures = multi_label_figures(probabilities, classes, labels)
    return with_texts(figures, probabilities, classes, texts, places)


def with_texts(
    figures: dict[str, Any],
    probabilities: np.ndarray,
    classes: np.ndarray,
    texts: Sequence[str],
    places: Sequence[str],
) -> dict[str, Any]:
    """The figures as the journal keeps them: the mistakes are rows with their texts instead of numbers of texts.

    Args:
        figures: of :func:`single_label_figures` or :func:`multi_label_figures`.
        probabilities, classes: what they were computed from.
        texts, places: of the N rows.

    Returns:
        The figures; each of ``mistakes`` is an object of ``place``, ``text``, ``label`` (the right one),
        ``predicted`` and ``probability`` (the confidence in what was predicted). Several labels are joined by commas.
    """
    labels = figures["labels"]
    mistakes = []
    for number in figures["mistakes"]:
        row, right = probabilities[number], classes[number]
        if classes.ndim == 1:
            predicted, label, confidence = labels[int(row.argmax())], labels[int(right)], row.max()
        else:
            has = row >= THRESHOLD
            predicted, label = (", ".join(np.array(labels, dtype=object)[side]) for side in (has, right.astype(bool)))
            confidence = np.where(has, row, 1.0 - row)[has != right].max()
        mistakes.append(
            {
                "place": places[number],
                "text": texts[number],
                "label": label,
                "predicted": predicted,
                "probability": float(confidence),
            }
        )
    return {**figures, "mistakes": mistakes}


def gaps_by_bin(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(N, D) decisions of N rows -> (N, bins) sums of (right or not - confidence)."""
    which = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    sums = np.zeros((len(which), CALIBRATION_BINS))
    np.add.at(sums, (np.arange(len(which))[:, None], which), correct - confidence)
    return sums


def _confusion(classes: np.ndarray, predicted: np.ndarray, count: int) -> list[list[int]]:
    """(C, C) texts, rows: right classes, columns: predicted. scikit-learn's warns where there is one class."""
    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (classes, predicted), 1)
    counts: list[list[int]] = confusion.tolist()
    return counts


def most_confident(confidence: np.ndarray, wrong: np.ndarray, count: int = SHOWN_MISTAKES) -> list[int]:
    """Numbers of the texts that were predicted wrongly, those with the greatest confidence first."""
    order = np.argsort(-confidence, kind="stable")
    return [int(number) for number in order if wrong[number]][:count]


def _area(occurs: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Mean area under the ROC curve of the classes that some texts have and others lack; None without such a class."""
    from sklearn import metrics

    columns = [c for c in range(occurs.shape[1]) if 0 < occurs[:, c].sum() < len(occurs)]
    if not columns:
        return None
    areas = [metrics.roc_auc_score(occurs[:, column], probabilities[:, column]) for column in columns]
    return float(np.mean(areas))
