"""Figures of audits: intervals that are known, differences of the same rows, and none of other rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from lmworks.audits.figure import PLAIN, Area, Figure, Mean, Share, mean, share

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("hits", "rows"), [(0, 50), (3, 20), (50, 50)])
def test_a_share_has_the_exact_interval(hits, rows):
    value, low, high = Share(np.arange(rows) < hits).interval()
    expected = binomtest(hits, rows).proportion_ci(0.95, "exact")
    assert value == hits / rows
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_a_difference_of_shares_is_that_of_pairs():
    """Agresti & Min 2005: half a row more of each kind of pairs, then Wald's interval."""
    before = np.array([1] * 40 + [0] * 60, dtype=bool)
    after = np.array([1] * 30 + [0] * 10 + [1] * 25 + [0] * 35, dtype=bool)
    value, low, high = Share(after).difference(Share(before))
    gained, lost, rows = 25.5, 10.5, 102
    middle = (gained - lost) / rows
    reach = 1.959964 * np.sqrt(gained + lost - (gained - lost) ** 2 / rows) / rows
    assert value == pytest.approx(0.15)
    assert (low, high) == pytest.approx((middle - reach, middle + reach), rel=1e-5)


def test_intervals_of_differences_hold_the_true_one_nearly_always():
    """Of two shares that depend on each other by row, with 0.3 and 0.4 as their true values."""
    holds = 0
    for _ in range(400):
        common = RANDOM.random(60) < 0.25
        before, after = ((common | (RANDOM.random(60) < (p - 0.25) / 0.75)) for p in (0.3, 0.4))
        _, low, high = Share(after).difference(Share(before))
        holds += low <= 0.1 <= high
    assert holds >= 368  # 92 %


def test_no_difference_at_all_has_an_interval_of_some_width():
    nothing = Share(np.zeros(30, dtype=bool))
    value, low, high = nothing.difference(nothing)
    assert value == 0
    assert low < 0 < high


def test_rows_of_a_group_count_as_one():
    values = np.repeat(RANDOM.random(10), 20)
    groups = [str(number // 20) for number in range(200)]
    alone, grouped = Mean(values).interval(), Mean(values, groups=groups).interval()
    assert alone.value == pytest.approx(grouped.value)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_rows_of_weight_zero_do_not_count():
    sample = Mean(np.array([1.0, 0.0, 5.0]), np.array([1.0, 1.0, 0.0]))
    assert sample.rows == 2
    assert Mean(np.array([2.0, 4.0, 0.0]), np.array([1.0, 3.0, 0.0])).interval().value == 1.5


def test_the_area_is_that_of_scikit_learn():
    ours, others = RANDOM.normal(0.5, 1, 60).round(1), RANDOM.normal(0, 1, 40).round(1)
    sample = Area(ours, others)
    value, low, high = sample.interval()
    assert value == pytest.approx(roc_auc_score([1] * 60 + [0] * 40, [*ours, *others]))
    assert low < value < high
    assert sample.difference(sample) == (0.0, 0.0, 0.0)
    assert sample.difference(Area(ours + 9, others)).value == pytest.approx(value - 1)


def test_figures_of_other_rows_or_other_ways_are_not_compared():
    first = mean("a", "A", [1.0, 2.0], "way 1", "nothing")
    assert mean("a", "A", [2.0, 4.0], "way 1", "nothing").change_from(first).value == 1.5
    assert mean("a", "A", [2.0, 4.0], "way 2", "nothing").change_from(first) is None
    assert mean("a", "A", [2.0, 4.0, 5.0], "way 1", "nothing").change_from(first) is None
    assert share("a", "A", [True, False], "way 1", "nothing").change_from(first) is None


def test_a_figure_says_what_it_is():
    figure = Figure("auc", "area", PLAIN, Area(np.array([1.0]), np.array([0.0])), "way", "all else", neutral=0.5)
    said = figure.as_dict()
    assert (said["value"], said["interval"], said["rows"]) == (1.0, [1.0, 1.0], 2)
    assert (said["signature"], said["does_not_say"], said["neutral"]) == ("way", "all else", 0.5)
