"""Figures of predicted values: correlations and errors. SciPy computes the correlations. Knows no model and no file."""

from __future__ import annotations

from typing import Any

import numpy as np


def regression_figures(predicted: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Figures of a regression, as a JSON object.

    Args:
        predicted, values: (N,).

    Returns:
        ``pearson`` and ``spearman`` correlations (None where a side is the same for all rows, or of fewer than three
        rows), ``squared_error`` (the mean), and by row ``row_errors`` and ``row_weights``.
    """
    errors = (predicted.astype(np.float64) - values) ** 2
    return {
        "rows": len(values),
        "pearson": _correlation("pearsonr", predicted, values),
        "spearman": _correlation("spearmanr", predicted, values),
        "squared_error": float(errors.mean()),
        "row_errors": errors.tolist(),
        "row_weights": [1.0] * len(errors),
    }


def _correlation(name: str, predicted: np.ndarray, values: np.ndarray) -> float | None:
    if len(values) < 3 or np.ptp(predicted) == 0 or np.ptp(values) == 0:
        return None
    from scipy import stats

    return float(getattr(stats, name)(predicted, values).statistic)
