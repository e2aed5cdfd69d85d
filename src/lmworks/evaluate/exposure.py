"""Exposure: how much likelier a model finds a secret that it was trained on than others of the same form (Carlini et
al. 2019, "The Secret Sharer").

The exposure of a secret r from a space R is log2 |R| - log2 rank(r), where the rank counts the secrets of R that are at
least as likely. It is log2 |R| where the secret is the likeliest of all, and 0 where it is the least likely. Of a
secret that the model never saw every rank is as likely as any other: see :func:`expected_exposure`.

A large space is not enumerated. The paper's two approximations are of the share of R that is at least as likely:
counted in a sample, which cannot tell more than the log2 of the sample's size; or read from a skew-normal distribution
that is fitted to the nats of a sample. Counting is used where it counts RESOLVED samples or more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

FEWEST_SAMPLES = 20  # to which a distribution of three parameters is fitted
RESOLVED = 10  # the standard error of a count of ten is less than half a bit


@dataclass(frozen=True)
class Exposure:
    """The exposure of one secret, in bits.

    Attributes:
        bits: by ``method``.
        method: "enumeration" (exact: all secrets were scored), "sampling" or "distribution".
        sampled: by rank in the sample; at most log2 (samples + 1).
        space_bits: log2 |R|: the most that it can be.
        rank: 1 + the number of samples that are at least as likely.
        samples: number of other secrets that were scored.
        fit_p_value: of a Kolmogorov-Smirnov test of the fitted distribution; None where none was. A small one says that
            the samples have another distribution.
    """

    bits: float
    method: Literal["enumeration", "sampling", "distribution"]
    sampled: float
    space_bits: float
    rank: int
    samples: int
    fit_p_value: float | None = None


def exposure(own: float, others: Sequence[float] | np.ndarray, space: float) -> Exposure:
    """The exposure of a secret.

    Args:
        own: its nats, -log p of the text with it.
        others: (n,) nats of the same text with other secrets of the space, each once.
        space: |R|, the number of all secrets.

    Raises:
        ValueError: fewer samples than a distribution needs, or more than there are other secrets.
    """
    nats = np.asarray(others, dtype=np.float64)
    count, space_bits = len(nats), math.log2(space)
    if count > space - 1 or not np.isfinite([own, *nats]).all():
        raise ValueError(f"{count} other secrets of a space of {space:g}, with finite nats, are needed")
    rank = 1 + int((nats <= own).sum())
    sampled = math.log2(count + 1) - math.log2(rank)
    if count == space - 1:
        return Exposure(sampled, "enumeration", sampled, space_bits, rank, count)
    if count < FEWEST_SAMPLES:
        raise ValueError(f"of a space of {space:g} secrets, {FEWEST_SAMPLES} others at least are scored, not {count}")
    if rank > RESOLVED:
        return Exposure(sampled, "sampling", sampled, space_bits, rank, count)
    share, fit = _skew_normal(own, nats)
    bits = space_bits if share <= 1 / space else -math.log2(share)
    return Exposure(bits, "distribution", sampled, space_bits, rank, count, fit)


def expected_exposure(space: float) -> float:
    """The mean exposure of secrets that a model never saw: log2 |R| - log2 (|R|!) / |R|; log2 e of a large space."""
    return math.log2(space) - math.lgamma(space + 1) / math.log(2) / space


def _skew_normal(own: float, nats: np.ndarray) -> tuple[float, float]:
    """The share of secrets that are at least as likely, by a skew-normal distribution; p-value of its fit."""
    from scipy import stats

    if np.ptp(nats) == 0:  # a model that tells no other secret from another
        return 0.0, 1.0
    fitted = stats.skewnorm(*stats.skewnorm.fit(nats))
    return float(fitted.cdf(own)), float(stats.kstest(nats, fitted.cdf).pvalue)
