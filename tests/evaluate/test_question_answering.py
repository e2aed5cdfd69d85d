"""Exact match, F1 and the threshold of "no answer": by hand, beside transformers; the best span by trying all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmworks.evaluate.answer_spans import best_span
from lmworks.evaluate.question_answering import AnsweredQuestion, exact_match, f1, figures_of_answers, normalize, scores

TEXTS = [
    "", "the", "The Panthers", "panthers!", "a cat, a mat", "cat mat", "The  cat's mat.", "308 points", "308", "6½",
    "an apple — the pear", "The", "theory of an atom", "1,234", "U.S.", "us", "Straße", "naïve café",
]  # fmt: skip


def answered(predicted: str, *gold: str, margin: float = 0.0, probability: float = 0.5) -> AnsweredQuestion:
    return AnsweredQuestion("?", "row", gold, predicted, probability, margin)


def test_articles_punctuation_case_and_spaces_are_left_aside() -> None:
    assert normalize("The  U.S. had  an Apple, a  pear!") == "us had apple pear"
    assert normalize("theory of atoms") == "theory of atoms"
    assert exact_match("the Panthers.", "Panthers") == 1.0
    assert exact_match("6½", "6") == 0.0


def test_f1_counts_each_word_as_often_as_it_occurs() -> None:
    # precision 2/3 (red, red of red red fox), recall 2/2
    assert f1("red red fox", "red, red") == pytest.approx(0.8)
    # one word of two shared on each side
    assert f1("in 1998", "1998 May") == pytest.approx(0.5)
    assert f1("sea", "sky") == 0.0
    assert f1("", "") == 1.0
    assert f1("", "sky") == 0.0


def test_the_best_of_all_right_answers_counts() -> None:
    assert scores("Denver", ["Denver Broncos", "Denver"]) == (1.0, 1.0)
    assert scores("Broncos team", ["Denver Broncos", "the team"]) == (0.0, pytest.approx(2 / 3))
    assert scores("", []) == (1.0, 1.0)
    assert scores("Denver", []) == (0.0, 0.0)
    assert scores("", ["the", "."]) == (1.0, 1.0)  # nothing is left of such answers: as of a question without one


def test_both_metrics_are_those_of_transformers() -> None:
    theirs = pytest.importorskip("transformers.data.metrics.squad_metrics")
    for predicted, gold in itertools.product(TEXTS, TEXTS):
        assert exact_match(predicted, gold) == theirs.compute_exact(gold, predicted)
        assert f1(predicted, gold) == pytest.approx(theirs.compute_f1(gold, predicted), abs=1e-12)


def test_figures_are_in_percent_and_by_kind_of_question() -> None:
    rows = [
        answered("blue", "blue"),
        answered("blue sea", "sea"),
        answered("sky", margin=2.0),
        answered("sky", margin=-1.0),
    ]
    figures = figures_of_answers(rows, threshold=0.0)
    assert figures["row_exact"] == [100.0, 0.0, 100.0, 0.0]
    assert figures["row_f1"] == pytest.approx([100.0, 200 / 3, 100.0, 0.0])
    assert (figures["exact"], figures["f1"]) == (50.0, pytest.approx(200 / 3))
    assert (figures["has_answer"], figures["no_answer"]) == (2, 2)
    assert (figures["has_answer_exact"], figures["no_answer_f1"]) == (50.0, 50.0)
    assert [mistake["predicted"] for mistake in figures["mistakes"]] == ["sky"]
    every = figures_of_answers(rows[:2])
    assert not {"no_answer_f1", "best_f1", "has_answer_f1"} & set(every)


def test_the_best_threshold_is_that_of_trying_all() -> None:
    theirs = pytest.importorskip("transformers.data.metrics.squad_metrics")
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows = [
            answered(str(rng.choice(TEXTS)), *(["cat mat"] if rng.random() < 0.6 else []), margin=float(margin))
            for margin in rng.normal(size=9)
        ]
        if all(row.gold for row in rows):
            continue
        figures = figures_of_answers(rows, threshold=0.0)
        for name in ("exact", "f1"):
            of_all = [figures_of_answers(rows, threshold)[name] for threshold in [-9, *(r.null_margin for r in rows)]]
            assert figures[f"best_{name}"] == pytest.approx(max(of_all))
            chosen = figures_of_answers(rows, figures[f"best_{name}_threshold"])
            assert chosen[name] == pytest.approx(figures[f"best_{name}"])
        predictions = {str(n): row.predicted for n, row in enumerate(rows)}
        margins = {str(n): row.null_margin for n, row in enumerate(rows)}
        by_row = {str(n): scores(row.predicted, row.gold)[1] for n, row in enumerate(rows)}
        has = {str(n): bool(row.gold) for n, row in enumerate(rows)}
        assert figures["best_f1"] == pytest.approx(theirs.find_best_thresh(predictions, by_row, margins, has)[0])


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_best_span_is_that_of_trying_all(length: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    begins = [0, *(b for b in (2, 4) if b < length)]
    windows = [(begin, rng.normal(size=(1 + min(length - begin, 5), 2))) for begin in begins]
    windows[-1] = (begins[-1], rng.normal(size=(1 + length - begins[-1], 2)))
    tried: dict[tuple[int, int], float] = {}
    for begin, logits in windows:
        count = len(logits) - 1
        for first, last in itertools.combinations_with_replacement(range(count), 2):
            if last - first < most:
                score = logits[1 + first, 0] + logits[1 + last, 1]
                span = (begin + first, begin + last)
                tried[span] = max(tried.get(span, -np.inf), score)
    null = min(logits[0].sum() for _, logits in windows)
    found = best_span(windows, length, most)
    assert (found.first, found.last) == max(tried, key=lambda span: tried[span])
    assert found.probability == pytest.approx(np.exp(max(tried.values())) / sum(map(np.exp, tried.values())))
    assert found.null_margin == pytest.approx(null - max(tried.values()))
    assert found.null_probability is None
    other = best_span(windows, length, most, has_null=True)
    assert other.null_probability == pytest.approx(np.exp(null) / (np.exp(null) + sum(map(np.exp, tried.values()))))
