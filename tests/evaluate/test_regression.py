"""Figures of predicted values are those of their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from lmworks.evaluate.regression import pearson, regression_figures, spearman

PREDICTED, VALUES = np.array([1.0, 1, 2, 5, 5, 5]), np.array([3.0, 1, 1, 2, 7, 7])


def by_definition(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def test_correlations_and_error() -> None:
    figures = regression_figures(PREDICTED, VALUES)
    assert figures["pearson"] == pytest.approx(by_definition(PREDICTED, VALUES))
    # equal values have the mean of their ranks
    ranks = np.array([1.5, 1.5, 3, 5, 5, 5]), np.array([4, 1.5, 1.5, 3, 5.5, 5.5])
    assert figures["spearman"] == pytest.approx(by_definition(*ranks))
    assert figures["squared_error"] == pytest.approx((4 + 0 + 1 + 9 + 4 + 4) / 6)
    assert figures["row_errors"] == [4, 0, 1, 9, 4, 4]


def test_what_is_not_defined_is_none() -> None:
    assert pearson(np.ones(3), np.arange(3.0)) is None
    assert spearman(np.arange(3.0), np.ones(3)) is None
    assert regression_figures(PREDICTED[:2], VALUES[:2])["pearson"] is None
