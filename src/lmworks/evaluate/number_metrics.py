"""Metrics of numbers: correlations by SciPy; perplexity and bits of texts from how likely they are to a model.

Shapes: R resamples, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lmworks.base.figures import NATS_PER_BIT
from lmworks.evaluate import regression
from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.predicted_rows import Measurement, MetricOptions, PredictedRows
from lmworks.evaluate.row_figures import ComputedFigure, RowFigures


def pearson(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """Pearson's correlation of predicted and right numbers, -1..1; none where one side is the same in all rows."""
    return _correlation("pearson", rows, regression.pearson, _pearson)


def spearman(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """Spearman's correlation of their ranks, -1..1; equal numbers have the mean of their ranks."""
    return _correlation("spearman", rows, regression.spearman, _spearman)


def _correlation(
    name: str,
    rows: PredictedRows,
    correlation: Callable[[np.ndarray, np.ndarray], float | None],
    resampled: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Measurement:
    sides = rows.number_pairs(name)
    value = correlation(*sides) if len(rows) >= regression.FEWEST_ROWS else None
    notes = []
    if len(rows) < regression.FEWEST_ROWS:
        notes.append(f"fewer than {regression.FEWEST_ROWS} rows have no correlation: two always lie on a line")
    elif value is None:
        notes.append("no correlation: one side is the same number in all rows")
    figure = ComputedFigure(np.stack(sides, axis=1), resampled)
    signature = Signature.parse(regression.signatures()[name])
    return Measurement(math.nan if value is None else value, figure, signature, {}, notes)


def _pearson(weights: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(R, N) weights, (N, 2) numbers -> (R,) correlations; NaN where one side is the same in all rows."""
    spread = columns.std(0)
    scaled = (columns - columns.mean(0)) / np.where(spread > 0, spread, 1.0)
    return _weighted_pearson(weights, scaled[None, :, 0], scaled[None, :, 1])


def _spearman(weights: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(R, N) weights, (N, 2) numbers -> (R,) correlations of the ranks that the numbers have in each resample."""
    count = columns.shape[0]
    ranks = [_ranks(weights, side) / count for side in columns.T]
    return _weighted_pearson(weights, *ranks)


def _ranks(weights: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(R, N) the mean rank of each number where each occurs as often as its weight says."""
    different, which = np.unique(numbers, return_inverse=True)
    order = np.argsort(which, kind="stable")
    begins = np.searchsorted(which[order], np.arange(len(different)))
    times = np.add.reduceat(weights[:, order], begins, axis=1)
    below = np.cumsum(times, axis=1) - times
    return (below + (times + 1) / 2)[:, which]


def _weighted_pearson(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(R, N) weights and numbers of both sides, (R or 1, N) -> (R,)."""
    total = weights.sum(1, keepdims=True)
    sides = [side - (weights * side).sum(1, keepdims=True) / total for side in (first, second)]
    covariance = (weights * sides[0] * sides[1]).sum(1)
    spread = (weights * sides[0] ** 2).sum(1) * (weights * sides[1] ** 2).sum(1)
    known = spread > 1e-18
    return np.where(known, covariance / np.sqrt(np.where(known, spread, 1.0)), np.nan)


def perplexity(rows: PredictedRows, options: MetricOptions) -> Measurement:
    """exp of the mean nats a token; less is better, and comparable with the same tokenizer alone."""
    nats, tokens = (rows.likelihood(name, "perplexity") for name in ("nats", "tokens"))

    def exponential(sums: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.exp(sums[:, 0] / np.maximum(sums[:, 1], 1.0))

    figure = ComputedFigure.of_sums(np.stack([nats, tokens], axis=1), exponential)
    return Measurement(figure.value, figure, _of_likelihoods("perplexity", "tokens", rows))


def bits(unit: str) -> Callable[[PredictedRows, MetricOptions], Measurement]:
    """Bits of a text for each of its ``bytes`` (UTF-8) or ``characters`` (code points): less is better, and comparable
    across tokenizers."""
    name = f"bits_per_{unit.removesuffix('s')}"

    def measure(rows: PredictedRows, options: MetricOptions) -> Measurement:
        nats, sizes = (rows.likelihood(field, name) for field in ("nats", unit))
        figure = RowFigures.of(nats / NATS_PER_BIT, sizes)
        return Measurement(figure.value, figure, _of_likelihoods(name, unit, rows))

    return measure


def _of_likelihoods(name: str, unit: str, rows: PredictedRows) -> Signature:
    """The signature, in which that of the scores stands with commas."""
    return Signature(name).with_settings(per=unit, scored=rows.scored_by.replace("|", ",") or None)
