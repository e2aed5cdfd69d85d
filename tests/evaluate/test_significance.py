"""Paired tests of several models equal their definitions and scipy, and find by chance no more than they say."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from lmworks.evaluate import metrics
from lmworks.evaluate.significance import (
    PowerAnalysis,
    RowFigures,
    compare,
    deviation_of_accuracies,
    holm,
    mcnemar,
    paired_deviation,
)


def accuracies(random: np.random.Generator, rows: int, *shares: float) -> dict[str, RowFigures]:
    return {f"model {n}": RowFigures.of(random.random(rows) < share) for n, share in enumerate(shares)}


@pytest.mark.parametrize(("first", "second"), itertools.product((0, 1, 3, 10, 200), (0, 1, 4, 10, 260)))
def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ(first, second):
    expected = stats.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def holm_by_definition(p_values: list[float]) -> list[float]:
    """The smallest level at which the step-down procedure rejects each hypothesis, found by trying levels."""
    order = np.argsort(p_values, kind="stable")
    levels = sorted({min(1.0, k * p) for p in p_values for k in range(1, len(p_values) + 1)} | {1.0})
    adjusted = [1.0] * len(p_values)
    for level in reversed(levels):
        for rank, place in enumerate(order):
            if p_values[place] * (len(p_values) - rank) > level * (1 + 1e-12):
                break
            adjusted[place] = level
    return adjusted


@pytest.mark.parametrize("seed", range(5))
def test_holm_gives_the_smallest_level_at_which_its_procedure_rejects(seed):
    p_values = list(np.random.default_rng(seed).random(7) ** 3)
    assert holm(p_values) == pytest.approx(holm_by_definition(p_values))


def test_holm_of_known_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_figures_are_the_usual_ones():
    random = np.random.default_rng(0)
    references, answers = random.choice(list("abcd"), (2, 60))
    macro = RowFigures.macro_f1(list(answers), list(references))
    expected = sklearn_metrics.f1_score(references, answers, average="macro")
    assert macro.value == pytest.approx(expected)
    assert macro.value == pytest.approx(metrics.macro_f1(list(answers), list(references)))
    nats, tokens = random.random(60) * 9, random.integers(1, 9, 60)
    assert RowFigures.of(nats, tokens).value == pytest.approx(nats.sum() / tokens.sum())
    assert RowFigures.of([1, 0, 1, 1]).value == 0.75


def test_intervals_are_those_of_the_report_card_but_for_chance():
    random = np.random.default_rng(1)
    first, second = random.normal(0, 1, 300), random.normal(0.1, 1, 300)
    result = compare({"first": RowFigures.of(first), "second": RowFigures.of(second)}, reference="first")
    second_of_both = next(one for one in result.contenders if one.name == "second")
    expected = metrics.paired_difference(first, second)
    assert second_of_both.difference == pytest.approx(expected.value)
    assert second_of_both.difference_interval == pytest.approx([expected.low, expected.high], abs=0.02)


def test_the_bootstrap_agrees_with_the_t_test_on_many_rows():
    random = np.random.default_rng(2)
    first = random.normal(0, 1, 400)
    second = first + random.normal(0.1, 1, 400)
    result = compare({"a": RowFigures.of(first), "b": RowFigures.of(second)}, reference="a")
    (b,) = (one for one in result.contenders if one.name == "b")
    assert b.test == "bootstrap"
    assert b.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.01)


def test_right_and_wrong_are_compared_by_mcnemar():
    first, second = np.array([1] * 30 + [0] * 10), np.array([1] * 18 + [0] * 12 + [1] * 2 + [0] * 8)
    result = compare({"first": RowFigures.of(first), "second": RowFigures.of(second)})
    best, other = result.contenders
    assert (best.name, best.test, best.adjusted_p_value) == ("first", None, None)
    assert other.test == "mcnemar"
    assert other.p_value == pytest.approx(stats.binomtest(2, 14, 0.5).pvalue)
    assert other.adjusted_p_value == other.p_value  # one comparison
    assert other.differs
    assert result.within_noise == ["first"]


def test_lower_is_better_where_it_is():
    random = np.random.default_rng(3)
    tokens = random.integers(5, 20, 80)
    nats = tokens * random.normal(2, 0.1, 80)
    result = compare({"worse": RowFigures.of(nats * 1.1, tokens), "better": RowFigures.of(nats, tokens)}, "lower")
    assert [one.name for one in result.contenders] == ["better", "worse"]
    assert result.contenders[1].differs
    assert result.contenders[1].difference > 0


def test_equal_models_are_within_noise():
    values = np.random.default_rng(4).random(50)
    result = compare({name: RowFigures.of(values) for name in "abc"})
    assert sorted(result.within_noise) == ["a", "b", "c"]
    for one in result.contenders:
        assert one.rows_needed is None
        assert one.adjusted_p_value in (None, 1.0)


def test_models_that_are_equal_in_truth_are_seldom_told_apart():
    """Of the best by the data and the others: the probability of any false difference is at most 0.05."""
    wrong = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        figures = {str(n): RowFigures.of(random.normal(0, 1, 80)) for n in range(6)}
        wrong += any(one.differs for one in compare(figures, seed=seed).contenders)
    assert wrong <= 7  # 3 expected; more than 7 of 60 are chance once in a hundred


def test_all_pairs_are_corrected_for_if_the_best_was_not_named_beforehand():
    figures = accuracies(np.random.default_rng(5), 100, 0.5, 0.6, 0.7, 0.8)
    assert compare(figures).analysis.comparisons == 6
    assert compare(figures, reference="model 0").analysis.comparisons == 3


def test_few_rows_tell_nothing_apart_and_say_how_many_would():
    figures = {"right": RowFigures.of([1.0] * 5), "wrong": RowFigures.of([0.0] * 5)}
    result = compare(figures)
    assert not result.can_tell
    assert result.fewest_rows == metrics.FEWEST_ROWS
    assert not result.contenders[1].differs
    more = compare({name: RowFigures.of([value] * 6) for name, value in (("right", 1.0), ("wrong", 0.0))})
    assert more.can_tell
    assert more.contenders[1].differs


@pytest.mark.parametrize("comparisons", [1, 3, 45, 105])
def test_the_fewest_rows_are_those_of_the_sign_test(comparisons):
    fewest = PowerAnalysis(comparisons).fewest_rows
    assert mcnemar(fewest, 0) * comparisons <= 0.05
    assert mcnemar(fewest - 1, 0) * comparisons > 0.05


def test_few_rows_whose_bootstrap_never_crosses_zero_are_still_few():
    ones = {"a": RowFigures.of([1.5, 1.2, 1.9, 1.4]), "b": RowFigures.of([0.5, 0.1, 0.3, 0.2])}
    assert compare(ones).contenders[1].p_value == 2 / 2**4


def test_the_rows_needed_find_the_difference_as_often_as_the_power_says():
    difference, disagreement = 0.1, 0.3
    analysis = PowerAnalysis(power=0.8)
    deviation = deviation_of_accuracies(disagreement, difference)
    rows = analysis.rows_needed(difference, deviation)
    assert analysis.smallest_difference(rows, deviation) == pytest.approx(difference, rel=0.02)
    random = np.random.default_rng(6)
    shares = [(disagreement + difference) / 2, (disagreement - difference) / 2, 1 - disagreement]
    counts = random.multinomial(rows, shares, size=2000)
    found = np.mean([mcnemar(int(b), int(c)) <= 0.05 for b, c, _ in counts])
    assert found == pytest.approx(0.8, abs=0.05)


def test_the_deviation_is_that_of_the_difference_over_other_rows():
    random = np.random.default_rng(7)

    def drawn() -> tuple[RowFigures, RowFigures]:
        tokens = random.integers(1, 30, 200)
        hard = random.normal(2, 0.5, 200)
        return tuple(RowFigures.of(tokens * (hard + random.normal(0, 0.3, 200)), tokens) for _ in range(2))

    pairs = [drawn() for _ in range(400)]
    differences = [first.value - second.value for first, second in pairs]
    errors = [paired_deviation(first, second) / math.sqrt(200) for first, second in pairs]
    assert np.std(differences) == pytest.approx(np.mean(errors), rel=0.1)


def test_a_label_each_gives_an_influence_too():
    random = np.random.default_rng(8)
    values, errors = [], []
    for _ in range(300):
        references = random.choice(3, 150, p=[0.6, 0.3, 0.1])
        answers = np.where(random.random(150) < 0.7, references, random.choice(3, 150))
        figure = RowFigures.macro_f1(list(answers), list(references))
        values.append(figure.value)
        errors.append(figure.influence().std() / math.sqrt(150))
    assert np.std(values) == pytest.approx(np.mean(errors), rel=0.15)


def test_results_go_into_json_and_repeat():
    figures = accuracies(np.random.default_rng(9), 60, 0.5, 0.7)
    figures["third"] = RowFigures.of(np.random.default_rng(10).random(60))
    first, second = (json.dumps(dataclasses.asdict(compare(figures))) for _ in range(2))
    assert first == second


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="same rows"):
        compare({"a": RowFigures.of([1.0]), "b": RowFigures.of([1.0, 0.0])})
    with pytest.raises(ValueError, match="no model 'c'"):
        compare({"a": RowFigures.of([1.0])}, reference="c")
    with pytest.raises(ValueError, match="finite"):
        RowFigures.of([1.0, math.nan])
    with pytest.raises(ValueError, match="need rows"):
        RowFigures.of([])
    with pytest.raises(ValueError, match="same rows"):
        compare({})
