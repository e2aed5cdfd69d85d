"""Strengths of models from choices between their answers.

An answer of strength s is chosen from those beside it with probability exp(s) / (sum of exp over all of them): of two,
the model of Bradley & Terry (1952); of more, Luce's choice axiom (1959). The likelihood is concave, and has a maximum
if and only if every two models are connected by choices in both directions (Ford 1957; Hunter 2004, assumption 1):
otherwise some strength is infinite. It is found by Newton's method; Hunter's MM algorithm has the same fixed point.

Shapes: C choices, M models.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

SMALLEST_STEP = 1e-10
MOST_STEPS = 200


@dataclass(frozen=True)
class Strengths:
    """Strengths of models, natural logarithms of odds, with mean 0.

    A difference of 1 means that the stronger one of two is chosen in exp(1) / (1 + exp(1)) = 73 % of cases.

    Attributes:
        values: (M,).
        covariance: (M, M), the inverse of the Fisher information where strengths have mean 0.
    """

    values: np.ndarray
    covariance: np.ndarray

    def interval(self, model: int, level: float = 0.95) -> tuple[float, float]:
        """The ends of the interval of a model's strength, taken as normally distributed."""
        width = NormalDist().inv_cdf((1 + level) / 2) * float(np.sqrt(self.covariance[model, model]))
        return float(self.values[model]) - width, float(self.values[model]) + width


def fit(shown: np.ndarray, shares: np.ndarray) -> Strengths:
    """The strengths of greatest likelihood.

    Args:
        shown: (C, M) bool, the models whose answers stood side by side.
        shares: (C, M) float64, what part of each choice a model has: rows sum to 1. A tie of two is half a choice of
            either.

    Raises:
        ValueError: a row of shares is none, or there are no finite strengths (:func:`separated`).
    """
    shown, shares = np.asarray(shown, dtype=bool), np.asarray(shares, dtype=np.float64)
    _check(shown, shares)
    if separated(shown, shares) is not None:
        raise ValueError("no strengths of finite size are likeliest: not all models are connected by choices")
    models = shown.shape[1]
    values = np.zeros(models)
    for _ in range(MOST_STEPS):
        chances, likelihood = _chances(values, shown, shares)
        gradient = (shares - chances).sum(0)
        information = np.diag(chances.sum(0)) - chances.T @ chances
        # adding a constant to all strengths changes nothing: the information has rank M - 1, and this fills the gap
        covariance = np.linalg.inv(information + 1 / models) - 1 / models
        step = covariance @ gradient
        while np.abs(step).max() > SMALLEST_STEP and _chances(values + step, shown, shares)[1] < likelihood:
            step = step / 2
        if np.abs(step).max() <= SMALLEST_STEP:
            return Strengths(values - values.mean(), covariance)
        values = values + step
    raise ArithmeticError(f"the strengths have not settled after {MOST_STEPS} steps")


def separated(shown: np.ndarray, shares: np.ndarray) -> list[int] | None:
    """The models, some but not all, to whose answers no other's was ever preferred; None where there are none.

    Arguments as of :func:`fit`. Where there are such models, no strengths of finite size are likeliest.
    """
    models = shown.shape[1]
    preferred = (np.asarray(shares) > 0).astype(np.int64).T @ np.asarray(shown, dtype=np.int64) > 0  # (M, M)
    reaches = preferred | np.eye(models, dtype=bool)
    for between in range(models):  # Warshall (1962)
        reaches |= reaches[:, between, None] & reaches[None, between, :]
    together = reaches & reaches.T
    for model in range(models):
        group = together[model]
        if not group.all() and not reaches[~group][:, group].any():
            return np.flatnonzero(group).tolist()
    return None


def _chances(values: np.ndarray, shown: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, float]:
    """(C, M) probabilities of being chosen, and the logarithm of the likelihood of the choices."""
    logits = np.where(shown, values, -np.inf)
    logits = logits - logits.max(1, keepdims=True)
    logarithms = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return np.exp(logarithms), float((shares[shown] * logarithms[shown]).sum())


def _check(shown: np.ndarray, shares: np.ndarray) -> None:
    if shown.shape != shares.shape or shown.ndim != 2 or not len(shown) or shown.shape[1] < 2:
        raise ValueError(f"choices between two models or more are needed, not {shown.shape} and {shares.shape}")
    if (shares < 0).any() or (shares[~shown] != 0).any() or not np.allclose(shares.sum(1), 1):
        raise ValueError("the shares of a choice are those of the models that were shown, and sum to 1")
