"""A number of an audit: its value with an interval, how it was computed, and what it does not say.

Every number keeps the rows that it was computed of, so that the same number of another model is compared with it on
the same rows.

- A share of rows has the exact interval of Clopper & Pearson (1934), which is not of width 0 where no row, or every
  row, counts; a difference of two shares the adjusted interval of Agresti & Min (2005) for pairs.
- Means and ratios have bootstrap intervals over rows, or over groups of rows that were written together.
- An area under the ROC curve has a bootstrap interval over both sides.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from lmworks.evaluate.metric_score import Signature
from lmworks.evaluate.metrics import RESAMPLES, Interval, bootstrap_interval, paired_ratios, resample_weights
from lmworks.ratings.win_rates import clopper_pearson

LEVEL = 0.95
VERSION = 1
"""Of the definitions of all figures; rises when any of them would change."""
SHARE, NATS, BITS, PLAIN = "share", "nats", "bits", ""
"""Units: a fraction that is shown as percent, natural units and bits of information, and numbers without a unit."""


class Sample(ABC):
    """The rows behind a number."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many rows count."""

    @abstractmethod
    def interval(self) -> Interval:
        """The value with the ends of its 95 % interval."""

    @abstractmethod
    def difference(self, before: Any) -> Interval | None:
        """This value minus another one of the same rows, with its interval; None where the rows are not the same.

        Args:
            before: a sample of the same class.
        """


@dataclass(frozen=True)
class Share(Sample):
    """The share of rows of which something holds.

    Attributes:
        hits: (N,) bool; at least one row.
    """

    hits: np.ndarray

    @property
    def rows(self) -> int:
        """See :class:`Sample`."""
        return len(self.hits)

    def interval(self) -> Interval:
        """See :class:`Sample`; exact."""
        count = int(self.hits.sum())
        return Interval(count / self.rows, *clopper_pearson(count, self.rows, LEVEL))

    def difference(self, before: Share) -> Interval | None:
        """See :class:`Sample`; Agresti & Min 2005, section 3: half a row more of each of the four kinds of pairs."""
        if len(before.hits) != len(self.hits):
            return None
        only_after, only_before = (int((self.hits & ~before.hits).sum()), int((before.hits & ~self.hits).sum()))
        rows = self.rows + 2
        gained, lost = only_after + 0.5, only_before + 0.5
        middle = (gained - lost) / rows
        error = math.sqrt(gained + lost - (gained - lost) ** 2 / rows) / rows
        reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * error
        value = (only_after - only_before) / self.rows
        return Interval(value, max(-1.0, middle - reach), min(1.0, middle + reach))


@dataclass(frozen=True)
class Mean(Sample):
    """A mean over rows, or sum(values) / sum(weights).

    Attributes:
        values: (N,) float64.
        weights: (N,) denominators, such as tokens; None: every row counts once. Rows of weight 0 do not count.
        groups: (N,) what each row belongs to, where rows are not independent of each other; None: each is.
    """

    values: np.ndarray
    weights: np.ndarray | None = None
    groups: Sequence[str] | None = None

    @property
    def rows(self) -> int:
        """See :class:`Sample`."""
        return len(self.values) if self.weights is None else int((self.weights > 0).sum())

    def interval(self) -> Interval:
        """See :class:`Sample`; by bootstrap."""
        values, weights = self._sums()
        return bootstrap_interval(values, weights=weights)

    def difference(self, before: Mean) -> Interval | None:
        """See :class:`Sample`; by paired bootstrap."""
        first, second = before._sums(), self._sums()
        if len(first[0]) != len(second[0]):
            return None
        return paired_ratios(_lists(*first), _lists(*second))

    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators by group."""
        weights = np.ones(len(self.values)) if self.weights is None else self.weights
        if self.groups is None:
            return self.values, weights
        _, places = np.unique(np.asarray(self.groups), return_inverse=True)
        return np.bincount(places, self.values), np.bincount(places, weights)


@dataclass(frozen=True)
class Area(Sample):
    """The area under the ROC curve: how often a positive has the larger score than a negative; equal ones count half.

    Attributes:
        positives: (N,) scores.
        negatives: (M,) scores.
    """

    positives: np.ndarray
    negatives: np.ndarray

    @property
    def rows(self) -> int:
        """See :class:`Sample`."""
        return len(self.positives) + len(self.negatives)

    def interval(self) -> Interval:
        """See :class:`Sample`; by bootstrap over both sides."""
        return _ends(self._wins().mean(), self._draws())

    def difference(self, before: Area) -> Interval | None:
        """See :class:`Sample`; by paired bootstrap."""
        if (len(before.positives), len(before.negatives)) != (len(self.positives), len(self.negatives)):
            return None
        return _ends(self._wins().mean() - before._wins().mean(), self._draws() - before._draws())

    def _wins(self) -> np.ndarray:
        """(N, M): 1 where the positive's score is larger, 1/2 where both are equal."""
        gaps = self.positives[:, None] - self.negatives[None]
        return np.asarray((gaps > 0) + 0.5 * (gaps == 0))

    def _draws(self) -> np.ndarray:
        """(R,) areas of resampled rows."""
        wins = self._wins()
        sides = (resample_weights(len(side), RESAMPLES, seed) for seed, side in enumerate((self.positives, wins.T)))
        ours, others = (np.concatenate(list(weights)) for weights in sides)
        return np.asarray(((ours @ wins) * others).sum(1) / (len(self.positives) * len(self.negatives)))


@dataclass(frozen=True)
class Figure:
    """A number of an audit.

    Attributes:
        name: in JSON; figures of one name and one signature are compared.
        title: as a person reads it.
        unit: SHARE, NATS, BITS or PLAIN.
        sample: the rows behind it.
        signature: how it was computed.
        hides: what it does not say, in a sentence.
        neutral: what it is where nothing of what it looks for is there; None: no such value is known.
        value, low, high: of the sample.
    """

    name: str
    title: str
    unit: str
    sample: Sample
    signature: str
    hides: str
    neutral: float | None = None
    value: float = field(init=False)
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        for name, number in zip(("value", "low", "high"), self.sample.interval(), strict=True):
            object.__setattr__(self, name, float(number))

    def change_from(self, before: Figure) -> Interval | None:
        """This number minus that of another model, with its interval; None where they are not comparable."""
        is_same = (self.signature, type(self.sample)) == (before.signature, type(before.sample))
        return self.sample.difference(before.sample) if is_same else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "value": self.value,
            "interval": [self.low, self.high],
            "unit": self.unit,
            "rows": self.sample.rows,
            "neutral": self.neutral,
            "signature": self.signature,
            "does_not_say": self.hides,
        }


def sign(metric: str, **settings: object) -> str:
    """How a figure was computed, as a signature of evaluate/metric_score: ``exposure|rows:8|lmworks:1``.

    Args:
        metric: what it is.
        settings: key and value; None is left out.
    """
    said = {key: str(value).replace("|", "/") for key, value in settings.items() if value is not None}
    return str(Signature(metric, version=str(VERSION)).with_settings(**said))


def share(name: str, title: str, hits: Sequence[bool] | np.ndarray, signature: str, hides: str, **more: Any) -> Figure:
    """The share of rows of which something holds; further arguments as of :class:`Figure`."""
    return Figure(name, title, SHARE, Share(np.asarray(hits, dtype=bool)), signature, hides, **more)


def mean(
    name: str,
    title: str,
    values: Sequence[float] | np.ndarray,
    signature: str,
    hides: str,
    *,
    unit: str = PLAIN,
    weights: Sequence[float] | np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    neutral: float | None = None,
) -> Figure:
    """A mean over rows, or a ratio; arguments as of :class:`Mean` and :class:`Figure`."""
    denominators = None if weights is None else np.asarray(weights, dtype=np.float64)
    sample = Mean(np.asarray(values, dtype=np.float64), denominators, groups)
    return Figure(name, title, unit, sample, signature, hides, neutral)


def _lists(values: np.ndarray, weights: np.ndarray) -> tuple[list[float], list[float]]:
    return values.tolist(), weights.tolist()


def _ends(value: float, draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
