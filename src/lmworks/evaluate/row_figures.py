"""Figures of the rows that a model was evaluated on, in a form that can be computed over resampled rows.

A bootstrap interval, a paired test and a permutation test ask one thing of a figure: its value where each row occurs a
given number of times. For a mean, for F1, BLEU or a correlation that is a function of sums over rows, so that all
resamples are one product of matrices; an area under a curve asks for the order of the rows besides.

Shapes: R resamples, N rows, C columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

from lmworks.evaluate.metrics import RESAMPLES, resample_weights


class RowFigure(Protocol):
    """A figure of N rows.

    Attributes:
        columns: (N, C) float64, what each row contributes.
        is_right_or_wrong: whether the figure is the share of rows that are right.
        has_joined_rows: whether :meth:`joined` gives the figure of the rows of two models.
    """

    @property
    def columns(self) -> np.ndarray: ...

    @property
    def is_right_or_wrong(self) -> bool: ...

    @property
    def has_joined_rows(self) -> bool: ...

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """(R, N) times that each row occurs -> (R,) figures; NaN where such rows have none."""
        ...

    def joined(self, other: Self) -> Self:
        """The figure of the rows of both, one after the other: (2N, C)."""
        ...

    @property
    def value(self) -> float:
        """The figure of the rows as they are."""
        ...


@dataclass(frozen=True)
class RowFigures:
    """A mean over columns of ratios of sums.

    Attributes:
        numerators: (N, C) float64.
        denominators: (N, C) float64. A column whose denominators sum to 0 is left out of the mean over columns.
    """

    numerators: np.ndarray
    denominators: np.ndarray

    @classmethod
    def of(
        cls, values: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray | None = None
    ) -> RowFigures:
        """A mean over rows, or sum(values) / sum(weights): nats over tokens, for instance.

        Args:
            values: (N,) one number a row.
            weights: (N,) denominators.

        Raises:
            ValueError: no rows, other shapes, or a number that is not finite.
        """
        numerators = np.asarray(values, dtype=np.float64)
        denominators = np.ones_like(numerators) if weights is None else np.asarray(weights, dtype=np.float64)
        if numerators.ndim != 1 or not len(numerators) or numerators.shape != denominators.shape:
            raise ValueError(f"figures need rows, and as many weights: {numerators.shape} and {denominators.shape}")
        if not (np.isfinite(numerators).all() and np.isfinite(denominators).all()):
            raise ValueError("a row's figure is no finite number")
        return cls(numerators[:, None], denominators[:, None])

    @classmethod
    def macro_f1(
        cls, answers: Sequence[object], references: Sequence[object], labels: Sequence[object] | None = None
    ) -> RowFigures:
        """The mean over labels of each label's F1: 2 hits / (times it is the answer + times it is the reference).

        Args:
            answers, references: (N,) one label a row.
            labels: all that occur, here or among the answers of another model to compare with; None: those here.

        Raises:
            ValueError: no rows, or other numbers of answers and references.
        """
        if not answers or len(answers) != len(references):
            raise ValueError(f"{len(answers)} answers to {len(references)} rows")
        if labels is None:
            labels = sorted({*answers, *references}, key=str)
        given, expected = (
            np.array([[side == label for label in labels] for side in rows]) for rows in (answers, references)
        )
        return cls(2.0 * (given & expected), given.astype(np.float64) + expected)

    @property
    def columns(self) -> np.ndarray:
        """(N, 2C) numerators and denominators."""
        return np.concatenate([self.numerators, self.denominators], axis=1)

    @property
    def value(self) -> float:
        """The figure."""
        return float(_ratios(self.numerators.sum(0)[None], self.denominators.sum(0)[None])[0])

    @property
    def is_right_or_wrong(self) -> bool:
        """Whether each row counts once, as 1 or 0."""
        return self.numerators.shape[1] == 1 and bool(
            np.isin(self.numerators, (0.0, 1.0)).all() and (self.denominators == 1.0).all()
        )

    @property
    def has_joined_rows(self) -> bool:
        """Sums of the rows of two models have the same columns, unless these are of other labels."""
        return True

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """See :class:`RowFigure`; 0 where no column counts."""
        return _ratios(weights @ self.numerators, weights @ self.denominators)

    def joined(self, other: RowFigures) -> RowFigures:
        """See :class:`RowFigure`.

        Raises:
            ValueError: the columns are of other labels.
        """
        if self.numerators.shape != other.numerators.shape:
            raise ValueError(f"columns of other labels: {self.numerators.shape} and {other.numerators.shape}")
        return RowFigures(
            np.concatenate([self.numerators, other.numerators]), np.concatenate([self.denominators, other.denominators])
        )

    def influence(self) -> np.ndarray:
        """(N,) derivatives of the figure with respect to each row's weight, times N (the delta method): their standard
        deviation, divided by sqrt(N), is the figure's standard error."""
        sums = self.denominators.sum(0)
        counted = sums > 0
        if not counted.any():
            return np.zeros(len(self.numerators))
        numerators, denominators = self.numerators[:, counted], self.denominators[:, counted]
        ratios = numerators.sum(0) / sums[counted]
        return ((numerators - ratios * denominators) / (sums[counted] / len(numerators))).mean(1)


@dataclass(frozen=True)
class ComputedFigure:
    """A figure that a function computes.

    Attributes:
        columns: (N, C) float64, what each row contributes.
        compute: (R, N) weights and the columns -> (R,) figures.
        has_joined_rows: whether the function holds for the rows of two models too.
    """

    columns: np.ndarray
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray]
    has_joined_rows: bool = True

    @classmethod
    def of_sums(cls, columns: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> ComputedFigure:
        """A function of sums over rows.

        Args:
            columns: (N, C).
            function: (R, C) sums -> (R,) figures.
        """
        return cls(np.asarray(columns, dtype=np.float64), lambda weights, rows: function(weights @ rows))

    @classmethod
    def of_influence(cls, value: float, influence: np.ndarray) -> ComputedFigure:
        """A figure that resampled rows distort, as the number of different words in texts, by its first-order change.

        Args:
            value: the figure.
            influence: (N,) change with each row's weight, times N: (N - 1) (figure - figure without the row), the
                jackknife's (Efron and Tibshirani 1993, chapter 11).
        """

        def linear(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return value + ((weights - 1.0) @ rows)[:, 0] / len(rows)

        return cls(influence[:, None].astype(np.float64), linear, has_joined_rows=False)

    @property
    def value(self) -> float:
        """The figure of the rows as they are."""
        return float(self.resampled(np.ones((1, len(self.columns))))[0])

    @property
    def is_right_or_wrong(self) -> bool:
        """A share of right rows is a :class:`RowFigures`."""
        return False

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """See :class:`RowFigure`."""
        return self.compute(weights, self.columns)

    def joined(self, other: ComputedFigure) -> ComputedFigure:
        """See :class:`RowFigure`."""
        return replace(self, columns=np.concatenate([self.columns, other.columns]))


def interval(
    figure: RowFigure, seed: int = 0, level: float = 0.95, within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float] | None:
    """The bootstrap interval of a figure for other rows of the same source.

    The percentiles are moved by the bias of the resamples (Efron and Tibshirani 1993, chapter 10): a calibration
    error, a mean of absolute values, is larger over resampled rows.

    Args:
        figure: of N rows.
        seed: of the resampling; the same rows and seed give the same interval.
        level: fraction of resamples inside.
        within: the least and the greatest value that the figure can have.

    Returns:
        Both ends; None where the rows, or nearly all resamples of them, have no such figure.
    """
    value = figure.value
    parts = [figure.resampled(weights) for weights in resample_weights(len(figure.columns), RESAMPLES, seed)]
    draws = np.concatenate(parts)
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(draws) < RESAMPLES // 2:
        return None
    ends = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) - (draws.mean() - value)
    low, high = np.clip(ends, *within)
    return float(low), float(high)


def _ratios(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """(R, C) sums -> (R,) means of their ratios over the columns that count; 0 where none does."""
    counted = denominators > 0
    ratios = np.where(counted, numerators / np.where(counted, denominators, 1.0), 0.0)
    return ratios.sum(1) / np.maximum(counted.sum(1), 1)
