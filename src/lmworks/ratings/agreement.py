"""Krippendorff's alpha: how far several raters agree beyond chance.

alpha = 1 - observed disagreement / disagreement expected by chance; 1: all agree, 0: as by chance, below 0: they
disagree systematically. Any number of raters, any gaps. Source: Krippendorff (2011), "Computing Krippendorff's
alpha-reliability"; Content Analysis, 4th edition (2018), chapter 12.

Shapes: U units (what was rated), V different values, R resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmworks.evaluate.metrics import RESAMPLES, resample_weights

Level = Literal["nominal", "interval"]
RELIABLE, TENTATIVE = 0.8, 0.667
"""From the first on conclusions may be drawn, from the second on tentative ones (Krippendorff 2004, page 241)."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of several raters.

    Attributes:
        alpha: Krippendorff's alpha.
        low, high: ends of its interval, by bootstrap over units (percentiles; resamples in which all values are equal,
            where alpha is not defined, are left out).
        units: how many units two raters or more gave values to; others say nothing of agreement.
        values: how many values these have.
    """

    alpha: float
    low: float
    high: float
    units: int
    values: int


def agreement(
    units: Sequence[Sequence[Hashable]], level: Level, seed: int = 0, confidence: float = 0.95
) -> Agreement | None:
    """Krippendorff's alpha and its interval.

    Args:
        units: of each unit the values that raters gave to it, in any order.
        level: "nominal": values are equal or not; "interval": numbers, whose disagreement is their squared difference.
        seed: of the resampling.
        confidence: of the interval.

    Returns:
        None where alpha is not defined: no unit has two values, or all values are equal.
    """
    pairable = [list(unit) for unit in units if len(unit) > 1]
    different = list(dict.fromkeys(value for unit in pairable for value in unit))
    if len(different) < 2:
        return None
    place = {value: number for number, value in enumerate(different)}
    counts = np.zeros((len(pairable), len(different)))  # (U, V)
    for row, unit in zip(counts, pairable, strict=True):
        for value in unit:
            row[place[value]] += 1
    distance = _distance(different, level)
    # a unit's pairs of values of different raters, each divided by the number of its other raters
    observed = np.einsum("uv,vw,uw->u", counts, distance, counts) / (counts.sum(1) - 1)
    draws = np.concatenate(
        [
            _alphas(weights @ observed, weights @ counts, distance)
            for weights in resample_weights(len(counts), RESAMPLES, seed)
        ]
    )
    alpha = float(_alphas(observed.sum(0)[None], counts.sum(0)[None], distance)[0])
    low, high = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Agreement(alpha, float(low), float(high), len(pairable), int(counts.sum()))


def _distance(values: Sequence[Hashable], level: Level) -> np.ndarray:
    """(V, V) disagreements of two values."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    numbers = np.array(values, dtype=np.float64)
    return (numbers[:, None] - numbers) ** 2


def _alphas(observed: np.ndarray, counts: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(R,) summed disagreements and (R, V) counts of values -> (R,) alphas; NaN where all values are equal."""
    expected = np.einsum("rv,vw,rw->r", counts, distance, counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - (counts.sum(1) - 1) * observed / expected, np.nan)
