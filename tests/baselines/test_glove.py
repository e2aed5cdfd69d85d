"""GloVe against its definition: counts by loops, eq. 8 and 9 written out, gradients by finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmworks.base.errors import InputError
from lmworks.baselines import glove
from lmworks.baselines.sentences import read_sentences

TEXT = "the cat saw the dog\nthe dog saw a cat and the cat ran\na dog ran\n\nhe said: don't, don't!"


def loop_counts(sentences, window: int) -> dict[tuple[int, int], float]:
    """X as the paper defines it."""
    counts: dict[tuple[int, int], float] = {}
    index = {word: number for number, word in enumerate(sentences.words)}
    for sentence in sentences:
        for i, word in enumerate(sentence):
            for j, other in enumerate(sentence):
                if 0 < abs(i - j) <= window:
                    pair = (index[word], index[other])
                    counts[pair] = counts.get(pair, 0.0) + 1 / abs(i - j)
    return counts


def test_sentences_are_lines_of_frequent_words():
    sentences = read_sentences([TEXT], min_count=2)
    assert sentences.words[:2] == ["the", "cat"]
    assert next(iter(sentences)) == ["the", "cat", "saw", "the", "dog"]
    assert list(sentences)[-1] == ["don't", "don't"]
    assert sentences.counts.tolist() == sorted(sentences.counts.tolist(), reverse=True)
    assert (sentences.total, len(sentences.ids)) == (22 - 1, 18)
    assert "and" not in sentences.words


def test_too_few_frequent_words_are_refused_with_a_count_that_works():
    with pytest.raises(InputError, match="--min-count 3") as caught:
        read_sentences([TEXT], min_count=100)
    assert "0 of 10 different words occur 100 times or more" in str(caught.value)
    assert len(read_sentences([TEXT], min_count=3).words) >= 2
    with pytest.raises(InputError, match="several words"):
        read_sentences(["..."])


@pytest.mark.parametrize(("window", "tokens"), [(1, 100), (2, 3), (15, 100), (15, 1)])
def test_cooccurrences_equal_the_definition(window, tokens, monkeypatch):
    monkeypatch.setattr(glove, "TOKENS", tokens)  # counted in parts, of one word each at the least
    sentences = read_sentences([TEXT], min_count=1)
    pairs = glove.count_cooccurrences(sentences, window)
    found = dict(zip(zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True), pairs.counts, strict=True))
    expected = loop_counts(sentences, window)
    assert found.keys() == expected.keys()
    assert len(pairs.rows) == len(found)
    for pair, count in expected.items():
        assert found[pair] == pytest.approx(count, rel=1e-12)


def loop_objective(words, contexts, pairs, x_max: float, alpha: float) -> float:
    """Eq. 8 and 9."""
    total = 0.0
    for i, j, x in zip(*pairs, strict=True):
        weight = (x / x_max) ** alpha if x < x_max else 1.0
        product = sum(float(words[i, e]) * float(contexts[j, e]) for e in range(words.shape[1] - 2))
        total += weight * (product + words[i, -2] + contexts[j, -1] - math.log(x)) ** 2
    return total


def example(window: int = 3):
    sentences = read_sentences([TEXT], min_count=1)
    pairs = glove.count_cooccurrences(sentences, window)
    words, contexts = glove.initial_values(len(sentences.words), 4, np.random.default_rng(0))
    noise = np.random.default_rng(1).normal(size=(2, *words.shape))
    noise[0, :, -1] = noise[1, :, -2] = 0
    return words + noise[0], contexts + noise[1], pairs


@pytest.mark.parametrize(("x_max", "alpha"), [(100.0, 0.75), (0.7, 0.5)])
def test_the_objective_equals_the_definition(x_max, alpha):
    words, contexts, pairs = example()
    expected = loop_objective(words, contexts, pairs, x_max, alpha)
    assert glove.gradient(words, contexts, pairs, x_max, alpha).objective == pytest.approx(expected, rel=1e-10)


def test_the_gradient_equals_finite_differences():
    words, contexts, pairs = example()
    part = glove.Cooccurrences(*(values[::3] for values in pairs))
    result = glove.gradient(words, contexts, part, 0.9, 0.75)
    dense = [np.zeros_like(words), np.zeros_like(contexts)]
    dense[0][result.words], dense[1][result.contexts] = result.of_words, result.of_contexts
    epsilon = 1e-6
    for side, values in enumerate((words, contexts)):
        for place in np.ndindex(values.shape):
            if place[1] == (words.shape[1] - 1 if side == 0 else words.shape[1] - 2):
                assert dense[side][place] == 0  # a column of ones, which is not learned
                continue
            kept = values[place]
            ends = []
            for sign in (1, -1):
                values[place] = kept + sign * epsilon
                ends.append(glove.gradient(words, contexts, part, 0.9, 0.75).objective)
            values[place] = kept
            assert dense[side][place] == pytest.approx((ends[0] - ends[1]) / (2 * epsilon), abs=1e-6)


def test_training_repeats_and_its_objective_falls():
    text = "\n".join(f"{a} {b} eats {c}" for a in ("the", "a") for b in ("cat", "dog") for c in ("fish", "meat")) + "\n"
    sentences = read_sentences([text * 5], min_count=1)
    first, losses = glove.train(sentences, vector_size=8, epochs=100, seed=3)
    second, _ = glove.train(sentences, vector_size=8, epochs=100, seed=3)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (len(sentences.words), 8)
    assert first.dtype == np.float32
    assert losses[-1] < 0.05 * losses[0]
    assert not np.array_equal(first, glove.train(sentences, vector_size=8, epochs=100, seed=4)[0])
