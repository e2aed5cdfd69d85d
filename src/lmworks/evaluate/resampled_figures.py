"""Figures of classifiers over resampled rows, for their bootstrap intervals: F1, ROC-AUC and calibration error have no
number by row whose mean they are.

The resamples depend on the number of rows alone, so two evaluations of the same rows have the same ones, and their
differences are those of a paired bootstrap (Efron & Tibshirani 1993, chapter 13). A resample is the number of times
that each row occurs, and all figures are sums of rows with these weights: products of matrices.

Shapes: R resamples, N rows, C classes, B bins.
"""

from __future__ import annotations

import numpy as np

from lmworks.evaluate.metrics import resample_weights

MOST, FEWEST = 1000, 200
NUMBERS = 200_000_000  # R N C; of more there are fewer resamples


def resampled_figures(
    occurs: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    calibration_gaps: np.ndarray,
    decisions: int,
    is_single: bool,
) -> dict[str, list[float | None]]:
    """The figures of each resample: ``macro_f1``, ``micro_f1``, ``roc_auc`` and ``calibration_error``.

    Args:
        occurs: (N, C) bool, whether a row has the class.
        predicted: (N, C) bool, whether it is predicted.
        probabilities: (N, C).
        calibration_gaps: (N, B) sum over a row's decisions in a bin of confidence of (1 if right, else 0) - confidence.
        decisions: of a row: 1, or C where it may have several labels.
        is_single: whether each row has one label: macro-F1 is then the mean over the classes that are labels or
            predicted labels of the resample, as in scikit-learn; else over all classes.

    Returns:
        R numbers each; None where no class has rows with and without it.
    """
    hits, either = (occurs & predicted).astype(np.float32), occurs.astype(np.float32) + predicted
    ranked = [Ranking(occurs[:, c], probabilities[:, c]) for c in range(occurs.shape[1])]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("macro_f1", "micro_f1", "roc_auc", "calibration_error")}
    rows, classes = occurs.shape
    resamples = int(np.clip(NUMBERS // max(rows * classes, 1), FEWEST, MOST))
    for weights in (some.astype(np.float32) for some in resample_weights(rows, resamples, rows)):
        right, all_of = weights @ hits, weights @ either
        scores = 2 * right / np.maximum(all_of, 1)
        counted = all_of > 0 if is_single else np.ones_like(all_of, dtype=bool)
        parts["macro_f1"].append((scores * counted).sum(1) / np.maximum(counted.sum(1), 1))
        parts["micro_f1"].append(2 * right.sum(1) / np.maximum(all_of.sum(1), 1))
        areas = np.stack([ranking.areas(weights) for ranking in ranked], axis=1)
        known = ~np.isnan(areas)
        mean = np.where(known, areas, 0).sum(1) / np.maximum(known.sum(1), 1)
        parts["roc_auc"].append(np.where(known.any(1), mean, np.nan))
        gaps = np.abs(weights @ calibration_gaps.astype(np.float32)).sum(1)
        parts["calibration_error"].append(gaps / (len(occurs) * decisions))
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return {
        name: [None if np.isnan(value) else round(float(value), 6) for value in values]
        for name, values in joined.items()
    }


class Ranking:
    """The rows of a class in the order of their probability, to compute areas under curves over resampled rows.

    Args:
        occurs: (N,) bool, whether a row has the class.
        probability: (N,) of the class.
    """

    def __init__(self, occurs: np.ndarray, probability: np.ndarray) -> None:
        self.order = np.argsort(probability, kind="stable")
        ranked = probability[self.order]
        self.begins = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        self.has = occurs[self.order].astype(np.float32)

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """(R, N) weights -> (R,) areas under the ROC curve: the share of pairs of a row with and a row without the
        class of which the first has the larger probability, equal ones half; NaN where all rows have the class, or none
        has it."""
        of_class, others = self._sums(weights)
        below = np.cumsum(others, axis=1) - others / 2
        pairs = of_class.sum(1) * others.sum(1)
        return np.where(pairs > 0, (of_class * below).sum(1) / np.maximum(pairs, 1), np.nan)

    def average_precisions(self, weights: np.ndarray) -> np.ndarray:
        """(R, N) weights -> (R,) average precisions, the area under the precision-recall curve as steps: the mean over
        rows with the class of the precision at their probability; NaN where none has it."""
        of_class, others = (side[:, ::-1] for side in self._sums(weights))  # the largest probability first
        found = np.cumsum(of_class, axis=1)
        precision = found / np.maximum(found + np.cumsum(others, axis=1), 1)
        total = of_class.sum(1)
        return np.where(total > 0, (of_class * precision).sum(1) / np.maximum(total, 1), np.nan)

    def _sums(self, weights: np.ndarray) -> list[np.ndarray]:
        """(R, N) weights -> (R, G) those of the rows with and without the class at each of G probabilities."""
        weights = weights[:, self.order].astype(np.float64)
        return [np.add.reduceat(weights * side, self.begins, axis=1) for side in (self.has, 1 - self.has)]
