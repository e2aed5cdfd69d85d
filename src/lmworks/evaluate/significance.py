"""Which of several models differ on the same rows: paired tests, corrected for their number; the rows that they need.

A figure is the mean over its columns of sum(numerators) / sum(denominators) over rows, or any other function of rows
(evaluate/row_figures). Accuracy, exact match and the F1 of answers have one column of which every row counts once; nats
per token has one whose denominators are tokens; macro-F1 has a column for each label.

- Right or wrong, row by row: McNemar's exact test (McNemar 1947; the binomial distribution of the rows on which the
  two differ). Everything else: the paired bootstrap over rows (Efron & Tibshirani 1993, chapter 13): twice the smaller
  share of resamples in which the difference has the other sign or is zero. Where it is asked for, the permutation test:
  the share of random exchanges of the two models' rows with a difference as large.
- Holm's step-down correction (Holm 1979). Where the reference is the best by these very rows, it was chosen by all
  comparisons of two models, and so all of them are corrected for; where it was named beforehand, those with it alone.

Shapes: R resamples, N rows, C columns, M models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Literal

import numpy as np

from lmworks.evaluate.metrics import WEIGHTS_AT_ONCE, resample_weights
from lmworks.evaluate.row_figures import RowFigure, RowFigures

LEVEL, POWER = 0.95, 0.8
FEWEST_RESAMPLES = 2000
RESAMPLES_PER_TEST = 400  # the least p-value, twice one resample, is then a tenth of the level corrected for all tests
MAX_RESAMPLED_NUMBERS = 400_000_000  # R N; of more there are fewer resamples, but still RESAMPLES_PER_TEST / 4
PERMUTATIONS = 10_000
Direction = Literal["higher", "lower"]
PairedTest = Literal["mcnemar", "bootstrap", "permutation"]


@dataclass(frozen=True)
class PowerAnalysis:
    """How surely tests tell figures apart, and what that asks of the rows.

    Differences are taken as normally distributed; the level is divided by the number of tests, as Holm's correction
    does it for the smallest p-value.

    Attributes:
        comparisons: tests that are corrected for.
        level: one minus the probability that any difference is found where there is none.
        power: probability that a difference is found where it is.
    """

    comparisons: int = 1
    level: float = LEVEL
    power: float = POWER

    @property
    def fewest_rows(self) -> int:
        """Rows below which no test reaches the level: all rows differing in one way are chance in 2 / 2^N of cases."""
        return math.ceil(math.log2(2 * self.comparisons / (1 - self.level)))

    @property
    def standard_errors(self) -> float:
        """Standard errors of a difference that is found with this power."""
        normal = NormalDist()
        return normal.inv_cdf(1 - (1 - self.level) / (2 * self.comparisons)) + normal.inv_cdf(self.power)

    def smallest_difference(self, rows: int, deviation: float) -> float:
        """The difference that so many rows would tell apart.

        Args:
            rows: N.
            deviation: standard deviation of the difference by row (:func:`paired_deviation`).
        """
        return self.standard_errors * deviation / math.sqrt(rows)

    def rows_needed(self, difference: float, deviation: float) -> int:
        """The rows that would tell a difference apart, which is not 0; arguments as above."""
        return max(self.fewest_rows, math.ceil((self.standard_errors * deviation / difference) ** 2))


@dataclass(frozen=True)
class ModelFigures:
    """One model among others on the same rows.

    Attributes:
        name: of the model.
        value: its figure.
        interval: [low, high] of the figure, by bootstrap over rows.
        difference: its figure minus the reference's; 0 of the reference itself.
        difference_interval: [low, high] of the difference, by paired bootstrap; None of the reference.
        test: "mcnemar", "bootstrap" or "permutation"; None of the reference.
        p_value: of the difference, by itself.
        adjusted_p_value: the same after Holm's correction.
        differs: whether the adjusted p-value is at most 1 - level.
        smallest_difference: that these rows would tell apart from the reference, with the power asked for.
        rows_needed: rows of this kind that would tell the measured difference apart; None where there is none.
    """

    name: str
    value: float
    interval: list[float]
    difference: float = 0.0
    difference_interval: list[float] | None = None
    test: str | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    differs: bool = False
    smallest_difference: float | None = None
    rows_needed: int | None = None


@dataclass(frozen=True)
class PairedComparison:
    """Several models on the same rows.

    Attributes:
        reference: the model with which all are compared.
        better: "higher" or "lower".
        rows: N.
        analysis: of the tests: their number, level and power.
        fewest_rows: rows below which no test reaches the corrected level.
        contenders: the best first.
    """

    reference: str
    better: Direction
    rows: int
    analysis: PowerAnalysis
    fewest_rows: int
    contenders: list[ModelFigures]

    @property
    def can_tell(self) -> bool:
        """Whether there are rows enough for any difference to be told apart."""
        return self.rows >= self.fewest_rows

    @property
    def within_noise(self) -> list[str]:
        """The models that were not told apart from the reference, itself among them."""
        return [contender.name for contender in self.contenders if not contender.differs]


def compare(
    figures: Mapping[str, RowFigure],
    better: Direction = "higher",
    reference: str | None = None,
    seed: int = 0,
    level: float = LEVEL,
    power: float = POWER,
    test: PairedTest | None = None,
) -> PairedComparison:
    """Compare models on the same rows.

    Args:
        figures: of each model, by name; all of the same rows in the same order.
        better: whether higher or lower figures are better.
        reference: the model with which the others are compared, if it was named before its figures were known; None:
            the best one.
        seed: of the resampling; the same rows and seed give the same p-values.
        level: of intervals and tests.
        power: probability with which ``rows_needed`` would tell a difference apart.
        test: of all pairs; None: McNemar's where rows are right or wrong, else the bootstrap.

    Raises:
        ValueError: no model, no model of the reference's name, other numbers of rows, or a test that does not fit.
    """
    names = sorted(figures, key=lambda name: figures[name].value, reverse=better == "higher")
    counts = {len(figures[name].columns) for name in names}
    if len(counts) != 1:
        raise ValueError(f"models are compared on the same rows, not on {sorted(counts)}")
    if reference is not None and reference not in figures:
        raise ValueError(f"there is no model {reference!r} among {names}")
    best = names[0] if reference is None else reference
    pairs = list(combinations(names, 2)) if reference is None else [(best, name) for name in names if name != best]
    analysis = PowerAnalysis(max(len(pairs), 1), level, power)
    draws = _resampled([figures[name] for name in names], analysis, seed)
    models = {name: _Model(name, figures[name], own) for name, own in zip(names, draws, strict=True)}
    tests = _tests([(models[first], models[second]) for first, second in pairs], test, seed)
    contenders = [
        own.beside(models[best], tests[frozenset((name, best))], analysis) if name != best else own.alone(level)
        for name, own in models.items()
    ]
    return PairedComparison(best, better, max(counts), analysis, analysis.fewest_rows, contenders)


@dataclass(frozen=True)
class _Test:
    """The test of two models: its name, the p-value by itself and after Holm's correction."""

    name: str
    p_value: float
    adjusted_p_value: float


@dataclass(frozen=True)
class _Model:
    """A model: its figures by row, and the figure of (R,) resamples, which are of the same rows for all models."""

    name: str
    figures: RowFigure
    draws: np.ndarray

    def alone(self, level: float) -> ModelFigures:
        """The figures of the reference."""
        return ModelFigures(self.name, self.figures.value, _ends(self.draws, level))

    def beside(self, reference: _Model, test: _Test, analysis: PowerAnalysis) -> ModelFigures:
        """The figures of a model that is compared with the reference."""
        difference = self.figures.value - reference.figures.value
        deviation, rows = self._deviation_from(reference), len(self.figures.columns)
        return ModelFigures(
            self.name,
            self.figures.value,
            _ends(self.draws, analysis.level),
            difference,
            _ends(self.draws - reference.draws, analysis.level),
            test.name,
            test.p_value,
            test.adjusted_p_value,
            differs=test.adjusted_p_value <= 1 - analysis.level,
            smallest_difference=analysis.smallest_difference(rows, deviation) if deviation else None,
            rows_needed=analysis.rows_needed(difference, deviation) if difference else None,
        )

    def _deviation_from(self, reference: _Model) -> float:
        """Standard deviation of the difference by row; of figures without an influence from the resamples."""
        if isinstance(self.figures, RowFigures) and isinstance(reference.figures, RowFigures):
            return paired_deviation(self.figures, reference.figures)
        return float(np.nanstd(self.draws - reference.draws)) * math.sqrt(len(self.figures.columns))


def _tests(pairs: Sequence[tuple[_Model, _Model]], test: PairedTest | None, seed: int) -> dict[frozenset[str], _Test]:
    """The tests of pairs of models, by the names of each pair."""
    tests = [_test(first, second, test, seed) for first, second in pairs]
    adjusted = holm([p_value for _, p_value in tests])
    return {
        frozenset((first.name, second.name)): _Test(name, p_value, after)
        for (first, second), (name, p_value), after in zip(pairs, tests, adjusted, strict=True)
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): the i-th smallest of m, times m - i + 1, and never below a smaller one's.

    Rejecting those at most alpha keeps the probability of any false rejection at alpha, however the tests depend on
    each other.
    """
    adjusted, largest, count = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, place in enumerate(sorted(range(count), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def mcnemar(first_alone: int, second_alone: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    Args:
        first_alone, second_alone: rows on which only the one, or only the other, is right.
    """
    count, term, total = first_alone + second_alone, 1, 0
    for wins in range(min(first_alone, second_alone) + 1):
        total += term
        term = term * (count - wins) // (wins + 1)
    return min(1.0, 2 * total / 2**count)


def permutation(first: RowFigure, second: RowFigure, seed: int = 0, permutations: int = PERMUTATIONS) -> float:
    """The two-sided p-value of the paired permutation test, also called approximate randomization (Noreen 1989; of
    translations Riezler and Maxwell 2005): were the models equal, each row might have come from either.

    Args:
        first, second: figures of the same N rows.
        seed: of the exchanges; the same rows and seed give the same p-value.
        permutations: random exchanges of rows between the models.

    Raises:
        ValueError: other numbers of rows, or figures of which the rows of two models make none.
    """
    rows = len(first.columns)
    if len(second.columns) != rows:
        raise ValueError(f"models are compared on the same rows, not on {rows} and {len(second.columns)}")
    if not (first.has_joined_rows and second.has_joined_rows):
        raise ValueError("the permutation test does not fit a figure of all texts together; take the bootstrap")
    joined: RowFigure = first.joined(second)
    observed = abs(first.value - second.value)
    random = np.random.default_rng(seed)
    as_large, left = 0, permutations
    while left:
        some = min(left, max(WEIGHTS_AT_ONCE // rows, 1))
        exchanged = random.integers(0, 2, (some, rows)).astype(np.float64)
        weights = np.concatenate([1.0 - exchanged, exchanged], axis=1)
        differences = joined.resampled(weights) - joined.resampled(1.0 - weights)
        as_large += int((np.abs(differences) >= observed * (1 - 1e-9)).sum())  # sums are rounded in another order
        left -= some
    return (as_large + 1) / (permutations + 1)


def paired_deviation(first: RowFigures, second: RowFigures) -> float:
    """The standard deviation of the difference by row: that of two figures is it, divided by sqrt(N)."""
    differences = first.influence() - second.influence()
    return float(differences.std(ddof=1)) if len(differences) > 1 else 0.0


def deviation_of_accuracies(disagreement: float, difference: float = 0.0) -> float:
    """Standard deviation, by row, of the difference of two accuracies.

    Args:
        disagreement: the share of rows on which one alone is right, estimated before anything is measured.
        difference: of the accuracies.
    """
    return math.sqrt(max(disagreement - difference**2, 0.0))


def _test(first: _Model, second: _Model, test: PairedTest | None, seed: int) -> tuple[str, float]:
    """Name and p-value of the test of two models."""
    one, other = first.figures, second.figures
    if test is None:
        test = "mcnemar" if one.is_right_or_wrong and other.is_right_or_wrong else "bootstrap"
    if test == "mcnemar":
        if not (one.is_right_or_wrong and other.is_right_or_wrong):
            raise ValueError("McNemar's test fits shares of right rows alone; take the bootstrap")
        right, also = one.columns[:, 0] > 0, other.columns[:, 0] > 0
        return test, mcnemar(int((right & ~also).sum()), int((also & ~right).sum()))
    if test == "permutation":
        return test, permutation(one, other, seed)
    differences = second.draws - first.draws
    differences = differences[np.isfinite(differences)]
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    # resamples of few rows that all lie on one side never cross zero: their signs alone are chance this often
    least = 2.0 ** (1 - min(_rows_apart(one.columns, other.columns), 1000))
    return "bootstrap", min(1.0, max(2 * (int(tail) + 1) / (len(differences) + 1), least))


def _rows_apart(first: np.ndarray, second: np.ndarray) -> int:
    """Rows that contribute differently; all where columns are of other labels."""
    return int((first != second).any(1).sum()) if first.shape == second.shape else len(first)


def _resampled(figures: Sequence[RowFigure], analysis: PowerAnalysis, seed: int) -> np.ndarray:
    """(M, R): each model's figure over resampled rows, the same rows for all."""
    rows, most = len(figures[0].columns), RESAMPLES_PER_TEST * analysis.comparisons
    resamples = max(FEWEST_RESAMPLES, min(most, max(MAX_RESAMPLED_NUMBERS // rows, most // 4)))
    weighted = resample_weights(rows, resamples, seed)
    return np.concatenate([np.stack([one.resampled(weights) for one in figures]) for weights in weighted], axis=1)


def _ends(draws: np.ndarray, level: float) -> list[float]:
    return [float(end) for end in np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])]
