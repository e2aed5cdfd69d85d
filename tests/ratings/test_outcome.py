"""What a test came to equals what its ratings say, counted by hand; a prompt counts once; too little is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rated_tests import by_strength, make_test, rate_all
from scipy import stats

from lmworks.evaluate.significance import holm
from lmworks.ratings.answers import Answer
from lmworks.ratings.blind_test import BlindTest
from lmworks.ratings.blind_test_settings import BlindTestSettings
from lmworks.ratings.outcome import MEAN, outcome
from lmworks.ratings.outcome_warnings import warnings_of


def rated(tmp_path, best: dict[str, list[str]], models=("base", "tuned"), **settings):
    """A test in which each rater says, prompt by prompt, which models are best: ``{"anna": ["t", "b"]}``, by their
    first letters; "-" skips."""
    test = make_test(tmp_path / "test", models, max(map(len, best.values())), **settings)
    letters = {model[0]: model for model in models}
    for rater, words in best.items():
        for prompt, word in enumerate(words):
            order = test.order(prompt, rater)
            test.rate(rater, prompt, None if word == "-" else [order.index(letters[letter]) for letter in word])
    return test


def test_wins_ties_and_skips_of_one_rater_are_counted(tmp_path):
    result = outcome(rated(tmp_path, {"anna": ["t", "t", "b", "t", "bt", "-", "t"]}))
    (pair,) = result.pairs
    assert (pair.first, pair.second) == ("tuned", "base")
    assert (pair.wins.wins, pair.wins.losses, pair.wins.ties) == (4, 1, 1)
    assert pair.wins.p_value == pair.adjusted_p_value == pytest.approx(stats.binomtest(4, 5).pvalue)
    assert result.raters == {"anna": 6}
    assert (result.progress.rated, result.progress.skipped) == (6, 1)
    strongest, weakest = result.strengths
    assert (strongest.name, weakest.name) == ("tuned", "base")
    assert strongest.value - weakest.value == pytest.approx(math.log(4.5 / 1.5))  # a tie is half a win of either


def test_a_prompt_counts_once_for_the_model_that_more_raters_prefer(tmp_path):
    words = {"anna": ["t", "t", "b", "t"], "ben": ["t", "b", "b", "bt"], "carl": ["t", "t", "t", "-"]}
    result = outcome(rated(tmp_path, words))
    (pair,) = result.pairs
    assert (pair.wins.wins, pair.wins.losses, pair.wins.ties) == (3, 1, 0)
    shares = [1, 2 / 3, 1 / 3, 3 / 4]  # of tuned, by prompt
    assert result.strengths[0].value * 2 == pytest.approx(math.log(sum(shares) / (4 - sum(shares))))
    width = result.strengths[0].high - result.strengths[0].low
    mean = sum(shares) / 4
    assert width == pytest.approx(2 * 1.959964 * math.sqrt(1 / (4 * mean * (1 - mean))) / 2, rel=1e-5)


def test_identical_answers_count_as_ties(tmp_path):
    test = BlindTest.create(
        tmp_path / "test", BlindTestSettings(models=["base", "tuned"]), [[{"role": "user", "content": "?"}]] * 3
    )
    for prompt in range(3):
        test.answers.add(prompt, "base", Answer("same", "stop"))
        test.answers.add(prompt, "tuned", Answer("same" if prompt else "other", "stop"))
    order = test.order(0, "anna")
    test.rate("anna", 0, [order.index("tuned")])
    result = outcome(test)
    assert (result.pairs[0].wins.wins, result.pairs[0].wins.ties) == (1, 2)
    assert result.strengths[0].value * 2 == pytest.approx(math.log(2 / 1))


def test_three_models_are_told_apart_as_they_are(tmp_path):
    truth = {"good": 1.0, "fair": 0.0, "poor": -1.0}
    test = make_test(tmp_path / "test", list(truth), prompts=250)
    rate_all(test, "anna", by_strength(truth, 1, ties=0.05))
    result = outcome(test)
    assert [strength.name for strength in result.strengths] == ["good", "fair", "poor"]
    for strength in result.strengths:
        assert strength.low - 0.15 <= truth[strength.name] <= strength.high + 0.15  # ties draw strengths together
    assert [(pair.first, pair.second) for pair in result.pairs] == [
        ("good", "fair"),
        ("good", "poor"),
        ("fair", "poor"),
    ]
    assert [pair.adjusted_p_value for pair in result.pairs] == holm([pair.wins.p_value for pair in result.pairs])
    assert all(pair.adjusted_p_value < 0.05 for pair in result.pairs)


def test_models_that_are_never_preferred_have_no_finite_strength(tmp_path):
    result = outcome(rated(tmp_path, {"anna": ["a", "a", "b", "a"]}, ["a-model", "b-model", "c-model"]))
    assert result.strengths is None
    assert result.unbeaten == ["a-model", "b-model"]
    assert "no strengths of finite size" in warnings_of(result)[0]
    assert "a-model, b-model" in warnings_of(result)[0]


def test_agreement_on_the_best_answer(tmp_path):
    meg, owen = "0100000010", "1110010000"  # Krippendorff (2011), section B
    words = {name: ["bt"[int(value)] for value in values] for name, values in (("anna", meg), ("ben", owen))}
    result = outcome(rated(tmp_path, words))
    alpha = result.agreement["best answer"]
    assert alpha.alpha == pytest.approx(0.095, abs=5e-4)
    assert alpha.units == 10
    assert any("raters agree little on best answer: alpha 0.10" in warning for warning in warnings_of(result))


def scored(tmp_path, tables: dict[str, list[dict[str, list[int]]]]):
    """A test in which each rater gives, prompt by prompt, each model's scores by the two criteria."""
    test = make_test(tmp_path / "test", prompts=max(map(len, tables.values())), by="scores", criteria=["clear", "true"])
    for rater, rows in tables.items():
        for prompt, row in enumerate(rows):
            order = test.order(prompt, rater)
            test.rate(rater, prompt, scores=[dict(zip(["clear", "true"], row[model], strict=True)) for model in order])
    return test


def test_scores_are_means_over_prompts_of_means_over_raters(tmp_path):
    rows = {
        "anna": [{"base": [1, 2], "tuned": [5, 2]}, {"base": [3, 3], "tuned": [3, 3]}],
        "ben": [{"base": [2, 2], "tuned": [4, 1]}],
    }
    result = outcome(scored(tmp_path, rows))
    values = {
        criterion: {model.name: model.value for model in table.contenders} for criterion, table in result.scores.items()
    }
    assert values["clear"] == pytest.approx({"base": (1.5 + 3) / 2, "tuned": (4.5 + 3) / 2})
    assert values["true"] == pytest.approx({"base": (2 + 3) / 2, "tuned": (1.5 + 3) / 2})
    assert values[MEAN] == pytest.approx({"base": (1.75 + 3) / 2, "tuned": (3 + 3) / 2})
    (pair,) = result.pairs
    assert (pair.first, pair.wins.wins, pair.wins.losses, pair.wins.ties) == ("tuned", 1, 0, 1)
    assert set(result.agreement) == {"clear", "true"}
    assert result.agreement["clear"].units == 2  # the answers to the first prompt


def test_a_rater_who_looks_at_places_is_found(tmp_path):
    test = make_test(tmp_path / "test", prompts=40)
    rate_all(test, "anna", lambda prompt, order: order[:1] if prompt % 8 else order[1:])
    result = outcome(test)
    assert (result.first_shown.chosen, result.first_shown.ratings, result.first_shown.expected) == (35, 40, 0.5)
    assert any("shown first was chosen 35 of 40 times, where 50 %" in warning for warning in warnings_of(result))


def test_one_who_looks_at_answers_is_not(tmp_path):
    test = make_test(tmp_path / "test", prompts=60)
    rate_all(test, "anna", by_strength({"base": 0.0, "tuned": 1.0}, 3))
    assert not outcome(test).first_shown.is_biased


def test_too_few_prompts_and_raters_are_said(tmp_path):
    warnings = warnings_of(outcome(rated(tmp_path, {"anna": ["t", "b", "t"]})))
    assert "3 prompts decided between tuned and base: with fewer than 6 no test can tell them apart" in warnings[0]
    assert "197 are needed to find one of 60 %" in warnings[0]
    assert any("one rater" in warning for warning in warnings)


@pytest.mark.parametrize(("prompts", "is_few"), [(20, True), (40, False)])
def test_few_prompts_are_those_that_cannot_tell_three_quarters_from_half(tmp_path, prompts, is_few):
    result = outcome(rated(tmp_path, {"anna": ["t", "b"] * (prompts // 2)}))
    assert any("decided between" in warning for warning in warnings_of(result)) == is_few
    power = power_of_the_sign_test(prompts, 0.75)
    assert (power < 0.8) == is_few


def power_of_the_sign_test(count: int, rate: float) -> float:
    """How often the exact test finds a win rate, by all outcomes."""
    found = [wins for wins in range(count + 1) if stats.binomtest(wins, count).pvalue <= 0.05]
    return float(stats.binom.pmf(found, count, rate).sum())


def test_nothing_rated_is_said(tmp_path):
    result = outcome(make_test(tmp_path / "test"))
    assert warnings_of(result) == ["nothing has been rated so far"]
    assert result.strengths is None
    assert result.pairs[0].wins.decided == 0


def test_skipped_prompts_alone_are_nothing(tmp_path):
    result = outcome(rated(tmp_path, {"anna": ["-", "-"]}))
    assert warnings_of(result) == ["nothing has been rated so far"]
    assert result.progress.skipped == 2


def test_chance_alone_is_found_no_more_often_than_the_level(tmp_path):
    found = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        words = [str(word) for word in random.choice(["t", "b"], 30)]
        found += outcome(rated(tmp_path / str(seed), {"anna": words})).pairs[0].adjusted_p_value <= 0.05
    assert found <= 6  # of a binomial distribution of 60 and 0.043, more in 1 of 50 cases
