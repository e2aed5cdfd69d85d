"""Intervals of figures, and the permutation test, against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from lmworks.evaluate.metrics import bootstrap_interval
from lmworks.evaluate.row_figures import ComputedFigure, RowFigures, interval
from lmworks.evaluate.significance import compare, permutation


def product_of_means(columns: np.ndarray) -> ComputedFigure:
    return ComputedFigure.of_sums(columns, lambda sums: sums[:, 0] * sums[:, 1] / sums[:, 2] ** 2)


def pairs(seed: int, rows: int) -> np.ndarray:
    return np.concatenate([np.random.default_rng(seed).normal(1, 1, (rows, 2)), np.ones((rows, 1))], axis=1)


def test_of_a_mean_the_interval_is_the_bootstraps() -> None:
    values = np.random.default_rng(0).normal(size=200)
    expected = bootstrap_interval(values)
    low, high = interval(RowFigures.of(values)) or (0, 0)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_intervals_of_a_function_of_sums_hold_the_truth_as_often_as_they_say() -> None:
    inside = 0
    for seed in range(100):
        low, high = interval(product_of_means(pairs(seed, 60)), seed) or (0, 0)
        inside += low <= 1.0 <= high
    assert 88 <= inside <= 100  # 95 expected; fewer than 88 are chance once in 200


def test_an_interval_stays_within_what_the_figure_can_be() -> None:
    figure = ComputedFigure.of_sums(np.eye(8), lambda sums: (sums > 0).mean(1))
    assert interval(figure, within=(0.0, 1.0)) == pytest.approx((1.0, 1.0), abs=0.3)
    low, high = interval(figure, within=(0.0, 1.0)) or (0, 0)
    assert 0 <= low <= high <= 1


def test_what_nearly_no_resample_has_gets_no_interval() -> None:
    figure = ComputedFigure(np.ones((9, 1)), lambda weights, columns: np.full(len(weights), np.nan))
    assert interval(figure) is None


def test_the_influence_gives_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=100)
    low, high = interval(ComputedFigure.of_influence(float(values.mean()), values - values.mean())) or (0, 0)
    expected = bootstrap_interval(values)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_permutation_test_is_its_definition() -> None:
    dice = np.random.default_rng(2)
    first, second = dice.normal(0, 1, 10), dice.normal(0.7, 1, 10)
    observed = abs((first - second).mean())
    signs = np.array(list(itertools.product((1, -1), repeat=10)))
    exact = (np.abs((signs * (first - second)).mean(1)) >= observed - 1e-12).mean()
    assert permutation(RowFigures.of(first), RowFigures.of(second)) == pytest.approx(exact, abs=0.015)


def test_the_permutation_test_of_a_function_of_sums_finds_chance_no_more_often_than_it_says() -> None:
    found = 0
    for seed in range(100):
        figures = [product_of_means(pairs(2 * seed + side, 30)) for side in (0, 1)]
        found += permutation(*figures, permutations=400) <= 0.05
    assert found <= 12  # 5 expected; more than 12 are chance once in 600


def test_the_permutation_test_agrees_with_the_t_test_on_many_rows() -> None:
    dice = np.random.default_rng(3)
    first = dice.normal(0, 1, 300)
    second = first + dice.normal(0.12, 1, 300)
    result = compare({"a": RowFigures.of(first), "b": RowFigures.of(second)}, reference="a", test="permutation")
    (b,) = (one for one in result.contenders if one.name == "b")
    assert b.test == "permutation"
    assert b.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.015)


def test_equal_models_are_never_told_apart_by_exchanging_rows() -> None:
    values = np.random.default_rng(4).random(20)
    assert permutation(RowFigures.of(values), RowFigures.of(values)) == 1.0


def test_figures_that_are_functions_are_compared_too() -> None:
    columns = pairs(5, 80)
    better = columns + np.array([0.6, 0.6, 0.0])
    result = compare({"a": product_of_means(columns), "b": product_of_means(better)}, reference="a")
    (b,) = (one for one in result.contenders if one.name == "b")
    assert b.differs
    assert b.difference_interval[0] < b.difference < b.difference_interval[1]
    assert b.smallest_difference > 0


def test_tests_that_do_not_fit_are_refused() -> None:
    values = {"a": RowFigures.of([0.5, 1.0]), "b": RowFigures.of([0.1, 0.2])}
    with pytest.raises(ValueError, match="right rows alone"):
        compare(values, test="mcnemar")
    whole = ComputedFigure.of_influence(0.5, np.ones(2))
    with pytest.raises(ValueError, match="all texts together"):
        permutation(whole, whole)
    with pytest.raises(ValueError, match="same rows"):
        permutation(RowFigures.of([1.0]), RowFigures.of([1.0, 0.0]))
    with pytest.raises(ValueError, match="other labels"):
        RowFigures.macro_f1(["a"], ["a"]).joined(RowFigures.macro_f1(["b"], ["a"]))
