"""Metrics of answers against references, and confidence intervals of their means. Knows no model and no file.

A metric gives one number per row, so that every mean has a bootstrap interval and two runs over the same rows can be
compared by a paired bootstrap (Efron & Tibshirani 1993, chapter 13, percentile intervals; Koehn 2004 for the paired
test). Its signature says what was counted, so that only numbers of the same meaning are compared. Macro-F1 has no
number per row.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from lmworks.evaluate.metric_score import Signature

FEWEST_ROWS = 6
"""Rows from which on a change is tested: of five, even five changes of one sign are chance more often than once in
twenty (2 / 2^5)."""
RESAMPLES = 2000  # resamples; the ends of a 95 % interval then rest on 50 of them each
WEIGHTS_AT_ONCE = 4_000_000  # of resamples, that exist at a time
_NUMBER = re.compile(r"(?:(?<![\w.)])[-+\u2212])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)")
_NUMBER_AT_END = re.compile(rf"{_NUMBER.pattern}\s*[%$€£°)}}\]*]*\.?\s*$")


class Interval(NamedTuple):
    """A figure and the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether both ends lie on the same side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Metric:
    """How one answer is scored.

    Attributes:
        title: its name as a person reads it.
        signature: what is compared, how it is normalised and by which version: equal signatures, comparable numbers.
        row: (answer, reference) -> number; more is better for all of them.
    """

    title: str
    signature: str
    row: Callable[[str, str], float]


def exact_match(answer: str, reference: str) -> float:
    """1.0 where both are the same string once white space at the ends is cut off, else 0.0."""
    return float(answer.strip() == reference.strip())


def chrf(answer: str, reference: str) -> float:
    """Character n-gram F-score of one answer, 0..100 (Popovic 2015): sacrebleu's sentence chrF2."""
    return float(_sacrebleu_chrf().sentence_score(answer, [reference]).score)


@functools.cache
def _sacrebleu_chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def _chrf_signature() -> Signature:
    settings = {"average": "rows", "nrefs": 1, "case": "mixed", "eff": "yes", "nc": 6, "nw": 0, "space": "no"}
    return Signature.of_library("sacrebleu", "chrf", **settings)


def final_number(text: str) -> Decimal | None:
    """The number that an answer ends in: the first after its last ``####``, else the last of the text, else None.

    Thousands commas, currency and percent signs and a full stop after the number do not count. Source: GSM8K (Cobbe et
    al. 2021), whose answers close with ``#### 18``.
    """
    marked = _NUMBER.findall(text.rpartition("####")[2]) if "####" in text else []
    numbers = marked[:1] or _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "").replace("\u2212", "-")) if numbers else None


def number_match(answer: str, reference: str) -> float:
    """1.0 where both end in the same number (18, 18.0 and $18 are the same), else 0.0."""
    predicted, expected = final_number(answer), final_number(reference)
    return float(predicted is not None and predicted == expected)


def end_in_numbers(references: Sequence[str]) -> bool:
    """Whether every reference closes with a number, so that `number_match` says something of each answer."""
    return bool(references) and all(_NUMBER_AT_END.search(reference) for reference in references)


def metric(name: str) -> Metric:
    """The metric of that name: ``chrf``, ``number_match`` or ``accuracy``."""
    if name == "chrf":
        return Metric("chrF", str(_chrf_signature()), chrf)
    numbers = Signature("number_match").with_settings(number="after #### or the last", equal="decimal")
    labels = Signature("accuracy").with_settings(equal="label", ends="stripped")
    known = {
        "number_match": Metric("final number", str(numbers), number_match),
        "accuracy": Metric("accuracy", str(labels), exact_match),
    }
    if name not in known:
        raise ValueError(f"no metric {name!r}; there are chrf, {', '.join(known)}")
    return known[name]


def macro_f1(answers: Sequence[object], references: Sequence[object], labels: Sequence[object] | None = None) -> float:
    """Mean over labels of each label's F1, in 0..1, by scikit-learn; a label on neither side counts 0.

    Args:
        answers, references: one label a row.
        labels: the labels to average over; None: those that occur on either side.
    """
    from sklearn.metrics import f1_score

    if labels is None:
        labels = sorted({*answers, *references}, key=str)
    if not labels:
        return 0.0
    number = {label: place for place, label in enumerate(labels)}
    expected, predicted = ([number.get(label, len(number)) for label in side] for side in (references, answers))
    places = list(range(len(labels)))
    return float(f1_score(expected, predicted, labels=places, average="macro", zero_division=0.0))


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    seed: int = 0,
    level: float = 0.95,
    weights: Sequence[float] | np.ndarray | None = None,
) -> Interval:
    """Mean of rows, and its confidence interval for other rows from the same source.

    Args:
        values: (n,) one number a row.
        seed: of the resampling; the same seed gives the same interval.
        level: fraction of resamples inside the interval.
        weights: (n,) denominators: the figure is then sum(values) / sum(weights), for instance nats over tokens.

    Raises:
        ValueError: no rows.
    """
    numerators, denominators = _columns(values, weights)
    figures = _resampled(numerators, denominators, seed)
    return _interval(_ratio(numerators, denominators), figures, level)


def paired_difference(
    before: Sequence[float] | np.ndarray,
    after: Sequence[float] | np.ndarray,
    seed: int = 0,
    level: float = 0.95,
    weights: Sequence[float] | np.ndarray | None = None,
) -> Interval:
    """After minus before over the same rows, resampled as pairs.

    The difference of each row does not contain what makes the row hard for both sides, so the interval is narrower than
    that of two separate samples. Arguments as in :func:`bootstrap_interval`.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a paired difference needs the same rows on both sides, not {len(first)} and {len(second)}")
    return bootstrap_interval(second - first, seed, level, weights)


def paired_ratios(
    before: tuple[Sequence[float], Sequence[float]],
    after: tuple[Sequence[float], Sequence[float]],
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """After minus before of figures whose denominators differ too, as F1's do: the rows are resampled as pairs.

    Args:
        before, after: (n,) numerators and (n,) denominators of the same rows; a figure without any denominator is 0.
        seed, level: as in :func:`bootstrap_interval`.

    Raises:
        ValueError: other rows on one side, or none.
    """
    sides = [_columns(*side) for side in (before, after)]
    count = len(sides[0][0])
    if len(sides[1][0]) != count:
        raise ValueError(f"a paired difference needs the same rows on both sides, not {count} and {len(sides[1][0])}")
    random = np.random.default_rng(seed)
    figures = np.empty(RESAMPLES)
    for draw in range(RESAMPLES):
        rows = random.integers(0, count, count)
        old, new = (_ratio(numerators[rows], denominators[rows]) for numerators, denominators in sides)
        figures[draw] = new - old
    return _interval(_ratio(*sides[1]) - _ratio(*sides[0]), figures, level)


def resample_weights(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row occurs in each resample: (some resamples, rows) float64 at a time.

    Args:
        rows: number of rows.
        resamples: number of resamples.
        seed: of the resampling; the same rows and seed give the same weights.
    """
    random = np.random.default_rng(seed)
    while resamples:
        some = min(resamples, max(WEIGHTS_AT_ONCE // rows, 1))
        places = random.integers(0, rows, (some, rows)) + np.arange(some)[:, None] * rows
        yield np.bincount(places.ravel(), minlength=some * rows).reshape(some, rows).astype(np.float64)
        resamples -= some


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> float:
    total = float(denominators.sum())
    return float(numerators.sum()) / total if total else 0.0


def _columns(values: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    numerators = np.asarray(values, dtype=np.float64)
    denominators = np.ones_like(numerators) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(numerators):
        raise ValueError("an interval needs at least one row")
    if numerators.shape != denominators.shape:
        raise ValueError(f"{len(numerators)} values need as many weights, not {len(denominators)}")
    return numerators, denominators


def _resampled(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    figures = np.empty(RESAMPLES)
    for draw in range(RESAMPLES):  # row by row: a matrix of all draws would take RESAMPLES times the memory
        rows = random.integers(0, len(numerators), len(numerators))
        figures[draw] = _ratio(numerators[rows], denominators[rows])
    return figures


def _interval(value: float, figures: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
