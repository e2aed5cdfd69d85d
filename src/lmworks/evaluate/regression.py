"""Figures of predicted values: correlations and errors. SciPy computes the correlations. Knows no model and no file."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmworks.evaluate.metric_score import Signature

FEWEST_ROWS = 3  # two rows always correlate perfectly


def regression_figures(predicted: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Figures of a regression, as a JSON object.

    Args:
        predicted, values: (N,), at least one.

    Returns:
        ``pearson`` and ``spearman`` correlations (None where a side is the same for all rows, or of fewer than
        FEWEST_ROWS rows), ``squared_error`` (the mean), by row ``row_errors`` and ``row_weights``, and ``signatures``.
    """
    errors = (predicted.astype(np.float64) - values) ** 2
    return {
        "rows": len(values),
        "signatures": signatures(),
        "pearson": pearson(predicted, values) if len(values) >= FEWEST_ROWS else None,
        "spearman": spearman(predicted, values) if len(values) >= FEWEST_ROWS else None,
        "squared_error": float(errors.mean()),
        "row_errors": errors.tolist(),
        "row_weights": [1.0] * len(errors),
    }


def signatures() -> dict[str, str]:
    """How the figures are computed, by name."""
    named = {name: Signature.of_library("scipy", name) for name in ("pearson", "spearman")}
    return {name: str(each) for name, each in (named | {"squared_error": Signature("squared_error")}).items()}


def pearson(first: np.ndarray, second: np.ndarray) -> float | None:
    """Pearson's correlation of two rows of numbers (N,); None where all of one are equal."""
    return _correlation("pearsonr", first, second)


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's rank correlation of two rows of numbers (N,); None where all of one are equal."""
    return _correlation("spearmanr", first, second)


def _correlation(name: str, first: np.ndarray, second: np.ndarray) -> float | None:
    from scipy import stats

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(getattr(stats, name)(first, second).statistic)
