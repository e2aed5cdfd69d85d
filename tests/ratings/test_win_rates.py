"""Exact tests and intervals equal scipy's and do what their names promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from lmworks.ratings.win_rates import WinRate, clopper_pearson

COUNTS = [*itertools.product(range(9), range(9)), (40, 60), (1, 500), (700, 3)]


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_intervals_are_those_of_scipy(level):
    for wins, losses in COUNTS:
        if wins + losses:
            expected = stats.binomtest(wins, wins + losses).proportion_ci(level, method="exact")
            assert WinRate(wins, losses).interval(level) == pytest.approx(tuple(expected), abs=1e-9)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("trials", [5, 20, 61])
def test_intervals_hold_the_truth_at_least_as_often_as_they_say(trials):
    ends = [clopper_pearson(successes, trials) for successes in range(trials + 1)]
    for share in np.linspace(0.001, 0.999, 97):
        chances = stats.binom.pmf(range(trials + 1), trials, share)
        held = sum(chance for chance, (low, high) in zip(chances, ends, strict=True) if low <= share <= high)
        assert held >= 0.95 - 1e-12


def test_p_values_are_those_of_the_binomial_test():
    for wins, losses in COUNTS:
        expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        assert WinRate(wins, losses, ties=3).p_value == pytest.approx(expected)


def test_ties_are_left_out_of_rates():
    assert (WinRate(3, 1, 10).rate, WinRate(3, 1, 10).decided) == (0.75, 4)
    assert WinRate(0, 0, 10).rate is None


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(successes, trials)
