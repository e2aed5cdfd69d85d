"""n-gram models against NLTK, against the definition, and against what a distribution must be."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.lm import KneserNeyInterpolated
from nltk.lm.preprocessing import padded_everygram_pipeline
from nltk.util import everygrams

from lmworks.base.errors import InputError
from lmworks.baselines.kneser_ney import FALLBACK, discounts_of
from lmworks.baselines.ngram import NgramModel

SENTENCES = [
    "the cat sat on the mat",
    "the dog sat on the cat",
    "a dog saw the cat and the cat saw a dog",
    "on the mat a cat and a dog sat",
    "the cat saw the mat",
]
WORDS = ["<UNK>", "<s>", "</s>", *sorted({word for sentence in SENTENCES for word in sentence.split()})]
IDS = {word: number for number, word in enumerate(WORDS)}


def ids_of(words):
    return np.array([IDS[word] for word in words])


def padded(sentence, begins, ends):
    return ["<s>"] * begins + sentence.split() + ["</s>"] * ends


def nltk_model(order, padded_sentences):
    model = KneserNeyInterpolated(order)
    grams = [list(everygrams(words, max_len=order)) for words in padded_sentences]
    model.fit(grams, [word for words in padded_sentences for word in words])
    return model


@pytest.mark.parametrize("order", [2, 3, 4])
def test_plain_kneser_ney_equals_nltk(order):
    """After every context of n - 1 words and less, seen or not, NLTK's lowest order included."""
    texts = [padded(sentence, order, 1) for sentence in SENTENCES]
    theirs = nltk_model(order, texts)
    ours = NgramModel.train([ids_of(text) for text in texts], order, len(WORDS), smoothing="kneser-ney")
    rng = np.random.default_rng(0)
    seen = [tuple(text[end - size : end]) for text in texts for size in range(order) for end in range(size, len(text))]
    drawn = [tuple(rng.choice(WORDS[1:], size=size)) for size in range(order) for _ in range(20)]
    for context in dict.fromkeys([*seen, *drawn]):
        expected = [theirs.score(word, context) for word in WORDS]
        np.testing.assert_allclose(ours.next_distribution(ids_of(context)), expected, rtol=0, atol=1e-9)
        assert math.isclose(sum(expected), 1, abs_tol=1e-9)


def test_where_nltk_does_not_sum_to_one_we_do():
    """NLTK's own padding puts n - 1 begins before a text. The first n - 1 words then stand after no word, so its
    continuation counts miss them, but its backoff factor counts them as types."""
    order = 3
    grams, vocabulary = padded_everygram_pipeline(order, [sentence.split() for sentence in SENTENCES])
    theirs = KneserNeyInterpolated(order)
    theirs.fit(grams, vocabulary)
    texts = [padded(sentence, order - 1, order - 1) for sentence in SENTENCES]
    ours = NgramModel.train([ids_of(text) for text in texts], order, len(WORDS), smoothing="kneser-ney")
    differ = []
    for context in product(WORDS[1:], repeat=order - 1):
        expected = [theirs.score(word, context) for word in WORDS]
        found = ours.next_distribution(ids_of(context))
        assert math.isclose(found.sum(), 1, abs_tol=1e-9)
        if math.isclose(sum(expected), 1, abs_tol=1e-9):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        else:
            differ.append(context)
    assert {context[-1] for context in differ} == {"<s>"}


def by_definition(documents, order, vocab_size, begin):
    """p(word | context) of modified Kneser-Ney, written down with dictionaries as in Chen and Goodman."""
    whole = [[begin, *document] for document in documents]
    raw = Counter(
        tuple(text[end - size : end])
        for text in whole
        for size in range(1, order + 1)
        for end in range(max(size, 2), len(text) + 1)
    )
    adjusted = {}
    for gram in raw:
        starts = sum(tuple(text[: len(gram)]) == gram for text in whole)
        before = {text[end - len(gram) - 1] for text in whole for end in ends_of(gram, text) if end > len(gram)}
        adjusted[gram] = raw[gram] if len(gram) == order else starts + len(before)
    taken = {}
    for size in range(1, order + 1):
        n = Counter(count for gram, count in adjusted.items() if len(gram) == size)
        taken[size] = FALLBACK
        if all(n[i] for i in (1, 2, 3)):
            y = n[1] / (n[1] + 2 * n[2])
            found = tuple(i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3))
            if all(0 <= value <= i for i, value in enumerate(found, 1)):
                taken[size] = found

    def probability(word, context):
        lower = probability(word, context[1:]) if context else 1 / vocab_size
        after = {
            gram: count for gram, count in adjusted.items() if gram[:-1] == context and len(gram) == len(context) + 1
        }
        total = sum(after.values())
        if not total:
            return lower
        discount = {gram: taken[len(gram)][min(count, 3) - 1] for gram, count in after.items()}
        gram = (*context, word)
        own = (after[gram] - discount[gram]) / total if gram in after else 0.0
        return own + sum(discount.values()) / total * lower

    return probability


def ends_of(gram, text):
    return [end for end in range(len(gram), len(text) + 1) if tuple(text[end - len(gram) : end]) == gram]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_modified_kneser_ney_is_its_definition(order):
    documents = [ids_of(sentence.split()).tolist() for sentence in SENTENCES * 2]
    documents += [np.random.default_rng(3).integers(3, len(WORDS), 40).tolist()]
    begin, end = IDS["<s>"], IDS["</s>"]
    model = NgramModel.train(documents, order, len(WORDS), begin_id=begin, end_id=end)
    expected = by_definition([[*document, end] for document in documents], order, len(WORDS), begin)
    for document in [*documents[:3], documents[-1], [3, 3, 3, 4, 5]]:
        whole = [begin, *document, end]
        probabilities = [
            expected(whole[place], tuple(whole[max(0, place - order + 1) : place])) for place in range(1, len(whole))
        ]
        found = np.exp(model.log_probabilities([*document, end]))
        np.testing.assert_allclose(found, probabilities, rtol=1e-10)


def test_discounts_are_those_of_chen_and_goodman():
    counts = np.repeat([1, 2, 3, 4, 9], [100, 40, 20, 12, 7])
    y = 100 / 180
    expected = (1 - 2 * y * 40 / 100, 2 - 3 * y * 20 / 40, 3 - 4 * y * 12 / 20)
    assert discounts_of(counts, "modified-kneser-ney", 0.1) == pytest.approx(expected)
    assert discounts_of(np.array([5, 6]), "modified-kneser-ney", 0.1) == FALLBACK


TOKENS = st.integers(0, 6)
DOCUMENTS = st.lists(st.lists(TOKENS, max_size=30), min_size=1, max_size=6).filter(any)


@given(
    documents=DOCUMENTS,
    context=st.lists(TOKENS, max_size=6),
    order=st.integers(0, 5),
    ends=st.sampled_from([(None, None), (0, 1), (0, 0), (None, 1), (2, None)]),
    smoothing=st.sampled_from(["modified-kneser-ney", "kneser-ney"]),
)
@settings(max_examples=200, deadline=None)
def test_probabilities_sum_to_one_after_any_context(documents, context, order, ends, smoothing):
    begin, end = ends
    arrays = [np.array(document, dtype=np.int64) for document in documents]
    model = NgramModel.train(arrays, order, 7, begin_id=begin, end_id=end, smoothing=smoothing)
    distribution = model.next_distribution(context)
    assert distribution.sum() == pytest.approx(1, abs=1e-12)
    assert distribution.min() >= 0
    if smoothing == "modified-kneser-ney":
        assert distribution.min() > 0


@given(documents=DOCUMENTS, text=st.lists(TOKENS, max_size=12), order=st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_scoring_a_text_is_reading_the_distributions(documents, text, order):
    model = NgramModel.train([np.array(d, dtype=np.int64) for d in documents], order, 7, begin_id=0, end_id=1)
    one_by_one = [model.next_distribution(text[:place])[token] for place, token in enumerate(text)]
    np.testing.assert_allclose(np.exp(model.log_probabilities(text)), one_by_one, rtol=1e-12)


def test_a_text_that_was_seen_is_likelier_the_longer_the_context():
    documents = [ids_of(sentence.split()) for sentence in SENTENCES]
    nats = [
        -NgramModel.train(documents, order, len(WORDS), begin_id=1, end_id=2).log_probabilities(documents[0]).sum()
        for order in (0, 1, 2, 3)
    ]
    assert nats == sorted(nats, reverse=True)
    assert nats[0] == pytest.approx(6 * math.log(len(WORDS)))


def test_samples_follow_the_distribution_and_end():
    documents = [ids_of(sentence.split()) for sentence in SENTENCES]
    model = NgramModel.train(documents, 3, len(WORDS), begin_id=1, end_id=2)
    rng = np.random.default_rng(0)
    samples = [model.sample(rng, 20) for _ in range(2000)]
    expected = model.next_distribution()
    firsts = np.bincount([sample[0] if sample else 2 for sample in samples], minlength=len(WORDS)) / len(samples)
    assert np.abs(firsts - expected).max() < 0.04
    assert all(2 not in sample and len(sample) <= 20 for sample in samples)
    assert model.sample(np.random.default_rng(5), 20) == model.sample(np.random.default_rng(5), 20)


@pytest.mark.parametrize(
    ("documents", "changes", "fault"),
    [
        ([], {}, "no tokens"),
        ([[]], {}, "no tokens"),
        ([[1, 7]], {}, "7 is no id"),
        ([[1, -1]], {}, "-1 is no id"),
        ([[0.5]], {}, "no token ids"),
        ([[[1]]], {}, "no token ids"),
        ([[1]], {"order": 11}, "order"),
        ([[1]], {"order": -1}, "order"),
        ([[1]], {"vocab_size": 0}, "vocab_size"),
        ([[1]], {"begin_id": 9}, "begin_id"),
        ([[1]], {"smoothing": "witten-bell"}, "smoothing"),
        ([[1]], {"discount": 2}, "discount"),
    ],
)
def test_what_cannot_be_used_is_named(documents, changes, fault):
    with pytest.raises(InputError, match=fault):
        NgramModel.train([np.array(d) for d in documents], **{"order": 2, "vocab_size": 7, **changes})
