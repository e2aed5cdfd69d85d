"""Strengths are those of greatest likelihood: equal to published ones, to another algorithm, and to the closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, special

from lmworks.ratings.bradley_terry import Strengths, fit, separated

TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
WINS = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]
"""Baseball in the American League in 1987: row beats column (Agresti, Categorical Data Analysis, table 10.10)."""
PUBLISHED = {
    "Milwaukee": (1.5814, 0.3433),
    "Detroit": (1.4364, 0.3396),
    "Toronto": (1.2945, 0.3367),
    "New York": (1.2476, 0.3359),
    "Boston": (1.1077, 0.3339),
    "Cleveland": (0.6839, 0.3319),
}
"""Strengths beside Baltimore's, standard errors (Turner & Firth 2012, Bradley-Terry models in R, section 3)."""


def choices(wins: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """A row for each game."""
    shown, shares = [], []
    for first, second in itertools.permutations(range(len(wins)), 2):
        for _ in range(wins[first][second]):
            shown.append([model in (first, second) for model in range(len(wins))])
            shares.append([float(model == first) for model in range(len(wins))])
    return np.array(shown), np.array(shares)


def draw(random: np.random.Generator, strengths: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Choices between two models or more, some of them ties of two."""
    shown, shares = np.zeros((count, len(strengths)), bool), np.zeros((count, len(strengths)))
    for row in range(count):
        places = random.choice(len(strengths), random.integers(2, len(strengths) + 1), replace=False)
        shown[row, places] = True
        chances = np.exp(strengths[places]) / np.exp(strengths[places]).sum()
        best = random.choice(places, 1 + (random.random() < 0.1), replace=False, p=chances)
        shares[row, best] = 1 / len(best)
    return shown, shares


def error_of_difference(strengths: Strengths, first: int, second: int) -> float:
    c = strengths.covariance
    return math.sqrt(c[first, first] + c[second, second] - 2 * c[first, second])


def test_published_strengths_and_standard_errors():
    strengths = fit(*choices(WINS))
    last = TEAMS.index("Baltimore")
    for team, (value, error) in PUBLISHED.items():
        place = TEAMS.index(team)
        assert strengths.values[place] - strengths.values[last] == pytest.approx(value, abs=5e-5)
        assert error_of_difference(strengths, place, last) == pytest.approx(error, abs=5e-5)
    assert strengths.values.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(1, 1), (3, 1), (50, 1), (7, 93), (999, 1)])
def test_two_models_have_the_odds_of_their_games(wins, losses):
    strengths = fit(*choices([[0, wins], [losses, 0]]))
    assert strengths.values[0] - strengths.values[1] == pytest.approx(math.log(wins / losses))
    assert error_of_difference(strengths, 0, 1) == pytest.approx(math.sqrt(1 / wins + 1 / losses))
    low, high = strengths.interval(0)
    assert high - low == pytest.approx(2 * 1.959964 * math.sqrt(1 / wins + 1 / losses) / 2, rel=1e-6)


def by_mm(shown: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Hunter (2004), equation 30 for the first choice alone: a fixed point is a maximum of the likelihood."""
    values = np.ones(shown.shape[1])
    for _ in range(20_000):
        values = shares.sum(0) / (shown / (shown @ values)[:, None]).sum(0)
        values /= values.mean()
    logarithms = np.log(values)
    return logarithms - logarithms.mean()


def by_optimizer(shown: np.ndarray, shares: np.ndarray) -> np.ndarray:
    def loss(values: np.ndarray) -> float:
        logits = np.where(shown, values, -np.inf)
        return -float((shares[shown] * special.log_softmax(logits, axis=1)[shown]).sum()) + values.mean() ** 2

    return optimize.minimize(loss, np.zeros(shown.shape[1]), method="BFGS", options={"gtol": 1e-9}).x


@pytest.mark.parametrize("seed", range(6))
def test_choices_of_several_equal_two_other_algorithms(seed):
    random = np.random.default_rng(seed)
    shown, shares = draw(random, random.normal(0, 1.2, 4), 150)
    strengths = fit(shown, shares)
    assert strengths.values == pytest.approx(by_mm(shown, shares), abs=1e-8)
    assert strengths.values == pytest.approx(by_optimizer(shown, shares), abs=1e-4)


def test_the_covariance_is_the_inverse_of_the_second_derivatives():
    shown, shares = draw(np.random.default_rng(1), np.array([0.0, 1.0, -1.0]), 80)
    strengths = fit(shown, shares)
    basis = np.linalg.svd(np.ones((1, 3)))[2][1:]  # (2, 3) orthonormal, of sum 0

    def likelihood(step: np.ndarray) -> float:
        logits = np.where(shown, strengths.values + step @ basis, -np.inf)
        return float((shares[shown] * special.log_softmax(logits, axis=1)[shown]).sum())

    size, units = 1e-3, np.eye(2) * 1e-3
    second = np.array(
        [[likelihood(a + b) - likelihood(a - b) - likelihood(b - a) + likelihood(-a - b) for b in units] for a in units]
    ) / (4 * size**2)
    assert strengths.covariance == pytest.approx(basis.T @ np.linalg.inv(-second) @ basis, rel=1e-4)


def test_intervals_hold_the_truth_as_often_as_they_say():
    random, truth = np.random.default_rng(2), np.array([0.7, 0.1, -0.8])
    held = []
    for _ in range(400):
        shown = np.ones((60, 3), bool)
        best = random.choice(3, 60, p=np.exp(truth) / np.exp(truth).sum())
        strengths = fit(shown, np.eye(3)[best])
        ends = [strengths.interval(model) for model in range(3)]
        held += [low <= value <= high for value, (low, high) in zip(truth, ends, strict=True)]
    assert 0.93 <= np.mean(held) <= 0.975


def is_connected(shown: np.ndarray, shares: np.ndarray) -> bool:
    """Ford's condition by its words: however the models are divided, one of the second part was preferred to one of the
    first."""
    models = range(shown.shape[1])
    return all(
        any(
            row[winner] > 0 and seen[loser]
            for row, seen in zip(shares, shown, strict=True)
            for loser in part
            for winner in set(models) - set(part)
        )
        for size in range(1, len(models))
        for part in itertools.combinations(models, size)
    )


@pytest.mark.parametrize("seed", range(40))
def test_strengths_are_refused_exactly_where_none_are_finite(seed):
    random = np.random.default_rng(seed)
    shown, shares = draw(random, random.normal(0, 2, 4), int(random.integers(2, 14)))
    unbeaten = separated(shown, shares)
    assert (unbeaten is None) == is_connected(shown, shares)
    if unbeaten is None:
        assert np.isfinite(fit(shown, shares).values).all()
        return
    others = [model for model in range(4) if model not in unbeaten]
    assert unbeaten
    assert others
    assert not any(shares[row, others].sum() > 0 and shown[row, unbeaten].any() for row in range(len(shown)))
    with pytest.raises(ValueError, match="connected"):
        fit(shown, shares)


def test_both_kinds_of_tables_occur_among_these():
    kinds = set()
    for seed in range(40):
        random = np.random.default_rng(seed)
        shown, shares = draw(random, random.normal(0, 2, 4), int(random.integers(2, 14)))
        kinds.add(separated(shown, shares) is None)
    assert kinds == {True, False}


def test_a_tie_is_half_a_choice_of_either():
    shown = np.ones((3, 2), bool)
    tied = fit(shown, np.array([[0.5, 0.5], [0.5, 0.5], [1, 0]]))
    assert tied.values == pytest.approx(fit(*choices([[0, 2], [1, 0]])).values)


@pytest.mark.parametrize("shares", [[[0.5, 0.4]], [[-0.5, 1.5]], [[1.0]], np.zeros((0, 2))])
def test_shares_that_are_none_are_refused(shares):
    shares = np.array(shares)
    with pytest.raises(ValueError, match=r"shares|choices"):
        fit(np.ones(shares.shape, bool), shares)
