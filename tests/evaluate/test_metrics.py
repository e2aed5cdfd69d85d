"""Metrics against their reference implementations and definitions; intervals against exact answers."""

from __future__ import annotations

import itertools
from decimal import Decimal

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as some

from lmworks.evaluate import metrics

LABELS = some.lists(some.tuples(some.sampled_from("abc"), some.sampled_from("abcd")), min_size=1, max_size=20)


def test_exact_match_ignores_only_the_ends() -> None:
    assert metrics.exact_match(" a b\n", "a b") == 1.0
    assert metrics.exact_match("A b", "a b") == 0.0
    assert metrics.exact_match("a  b", "a b") == 0.0


@pytest.mark.parametrize("answer", ["Join paths.", "", "Joins one or more path segments", "été naïf"])
def test_chrf_is_sacrebleus(answer: str) -> None:
    reference = "Join one or more path segments."
    assert metrics.chrf(answer, reference) == sacrebleu.sentence_chrf(answer, [reference]).score


def test_chrf_signature_says_what_sacrebleu_says() -> None:
    scorer = sacrebleu.CHRF()
    scorer.corpus_score(["a"], [["a"]])
    theirs = dict(part.split(":") for part in str(scorer.get_signature()).split("|"))
    messages = dict(part.split(":") for part in metrics.metric("chrf").signature.split("|") if ":" in part)
    assert theirs.pop("version") == messages["sacrebleu"]
    assert theirs.items() <= messages.items()


def test_unknown_metric_is_named() -> None:
    with pytest.raises(ValueError, match="bleurt"):
        metrics.metric("bleurt")


@settings(max_examples=20, deadline=None)
@given(LABELS)
def test_macro_f1_is_its_definition(pairs: list[tuple[str, str]]) -> None:
    answers, references = zip(*pairs, strict=True)
    each = []
    for label in {*answers, *references}:
        hits = sum(a == r == label for a, r in pairs)
        precision = hits / max(answers.count(label), 1)
        recall = hits / max(references.count(label), 1)
        each.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    assert metrics.macro_f1(answers, references) == pytest.approx(np.mean(each))


def test_bootstrap_of_few_rows_is_near_the_exact_one() -> None:
    """Four rows have 4^4 resamples: all of them give the exact distribution of the resampled mean."""
    values = np.array([0.0, 1.0, 4.0, 11.0])
    exact = [np.mean(draw) for draw in itertools.product(values, repeat=4)]
    low, high = np.quantile(exact, [0.1, 0.9])
    result = metrics.bootstrap_interval(values, seed=1, level=0.8)
    assert result.value == 4.0
    assert result.low == pytest.approx(low, abs=0.5)
    assert result.high == pytest.approx(high, abs=0.5)


def test_bootstrap_of_a_ratio_weighs_rows() -> None:
    result = metrics.bootstrap_interval([2.0, 30.0], weights=[1.0, 10.0])
    assert result.value == pytest.approx(32 / 11)
    assert (result.low, result.high) == (2.0, 3.0)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert metrics.bootstrap_interval(values, 3) == metrics.bootstrap_interval(values, 3)
    assert metrics.bootstrap_interval(values, 3) != metrics.bootstrap_interval(values, 4)


def test_pairs_cancel_what_makes_rows_hard() -> None:
    random = np.random.default_rng(0)
    before = random.normal(scale=10, size=200)
    after = before - 0.5 + random.normal(scale=0.1, size=200)
    change = metrics.paired_difference(before, after)
    assert change.value == pytest.approx(-0.5, abs=0.05)
    assert change.excludes_zero
    assert not metrics.paired_difference(before, before + random.normal(size=200) * 0.1 - 0).excludes_zero


def test_no_rows_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        metrics.bootstrap_interval([])
    with pytest.raises(ValueError, match="same rows"):
        metrics.paired_difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", "7"),
        ("#### 1,250", "1250"),
        ("#### 12 eggs, of 20", "12"),
        ("It costs $1,234.50.", "1234.50"),
        ("so the answer is -3", "-3"),
        ("so x = \u22123", "-3"),
        ("that is 9-4", "4"),
        ("about .5 percent", ".5"),
        ("1, 2, 3", "3"),
        ("18.0", "18"),
        ("It is 40%.", "40"),
        ("no number", None),
        ("####", None),
        ("", None),
    ],
)
def test_the_number_at_the_end(text: str, number: str | None) -> None:
    assert metrics.final_number(text) == (None if number is None else Decimal(number))


def test_number_match() -> None:
    row = metrics.metric("number_match").row
    assert row("Seven and eleven make 18.", "7 + 11 = 18\n#### 18") == 1.0
    assert row("18.00", "#### 18") == 1.0
    assert row("It is 81", "#### 18") == 0.0
    assert row("I do not know", "#### 18") == 0.0
    assert row("I do not know", "nor do I") == 0.0


@pytest.mark.parametrize(
    ("references", "expected"),
    [
        (["a\n#### 18", "b\n#### 1,200"], True),
        (["It is 14.", "It is 3 %"], True),
        (["It is 14.", "It is fourteen"], False),
        (["In 1920 they left"], False),
        ([], False),
    ],
)
def test_references_that_end_in_numbers(references: list[str], expected: bool) -> None:
    assert metrics.end_in_numbers(references) is expected


def test_ratios_of_equal_denominators_are_paired_differences() -> None:
    random = np.random.default_rng(0)
    before, after, weights = random.normal(size=50), random.normal(size=50), random.uniform(1, 2, size=50)
    expected = metrics.paired_difference(before, after, weights=weights)
    received = metrics.paired_ratios((before, weights), (after, weights))
    np.testing.assert_allclose(received, expected, atol=1e-12)


def test_ratios_may_have_denominators_of_their_own_or_none() -> None:
    change = metrics.paired_ratios(([0.0] * 20, [0.0] * 20), ([1.0, 0.0] * 10, [2.0, 1.0] * 10))
    assert change.value == pytest.approx(10 / 30)
    assert change.excludes_zero
    with pytest.raises(ValueError, match="same rows"):
        metrics.paired_ratios(([1.0], [1.0]), ([1.0, 2.0], [1.0, 1.0]))
