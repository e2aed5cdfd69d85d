"""GloVe: word vectors from counts of words that stand near each other.

Pennington, Socher and Manning 2014 (GloVe: Global Vectors for Word Representation). X[i, j] is how often word j stands
within a window around word i, each time divided by their distance. The objective (their eq. 8) is a weighted least
squares fit of the logarithms,

    J = sum over i, j with X[i, j] > 0 of f(X[i, j]) (w_i . c_j + b_i + d_j - log X[i, j])^2

with vectors w and biases b of words, and c and d of the same words as context, and the weights (their eq. 9)

    f(x) = (x / x_max)^alpha below x_max, else 1.

It is minimised by AdaGrad (Duchi et al. 2011), here over batches of pairs. The result is w + c, as theirs.

Biases are columns of the matrices: a row of a word is [w, b, 1], one of a context [c, 1, d], so that one product gives
w . c + b + d. The ones are not learned.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmworks.baselines.sentences import Sentences
from lmworks.evaluate import progress

TOKENS = 100_000
"""Words of the text whose pairs are counted at once: what bounds the memory of counting."""
BATCH = 2048
"""Pairs of an update; the published program takes one at a time."""


class Cooccurrences(NamedTuple):
    """The entries of X that are not zero.

    Attributes:
        rows, columns: (n) int32, i and j, sorted by both.
        counts: (n) float64, X[i, j]; X[i, j] = X[j, i].
    """

    rows: np.ndarray
    columns: np.ndarray
    counts: np.ndarray


class Gradient(NamedTuple):
    """The gradient of J over some pairs.

    Attributes:
        words: (m) the words that occur in them.
        of_words: (m, E + 2).
        contexts: (k) the contexts that occur in them.
        of_contexts: (k, E + 2).
        objective: J over the pairs.
    """

    words: np.ndarray
    of_words: np.ndarray
    contexts: np.ndarray
    of_contexts: np.ndarray
    objective: float


# Counting


def count_cooccurrences(sentences: Sentences, window: int) -> Cooccurrences:
    """How often each two words stand in a sentence with at most ``window - 1`` words between them, each time divided
    by their distance; both directions count."""
    size = len(sentences.words)
    levels: list[tuple[np.ndarray, np.ndarray]] = []  # sums of ever fewer entries, so that each is merged seldom
    numbers = sentences.numbers()
    for begin in range(0, len(sentences.ids), TOKENS):
        levels.append(_count_part(sentences.ids, numbers, begin, window, size))
        while len(levels) > 1 and len(levels[-1][0]) * 2 > len(levels[-2][0]):
            levels.append(_merge([levels.pop(), levels.pop()]))
    keys, sums = _merge(levels)
    first, second = np.divmod(keys, size)
    same = first == second
    # A pair of equal words stands there in both directions too.
    rows = np.concatenate([first, second[~same]])
    columns = np.concatenate([second, first[~same]])
    counts = np.concatenate([np.where(same, 2 * sums, sums), sums[~same]])
    order = np.lexsort((columns, rows))
    return Cooccurrences(rows[order].astype(np.int32), columns[order].astype(np.int32), counts[order])


def _count_part(
    ids: np.ndarray, numbers: np.ndarray, begin: int, window: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose first word stands in a part of the text: smaller id * size + greater id, and sums of 1 / distance."""
    keys, weights = [], []
    for distance in range(1, window + 1):
        end = min(begin + TOKENS, len(ids) - distance)
        if end <= begin:
            break
        inside = numbers[begin:end] == numbers[begin + distance : end + distance]
        left = ids[begin:end][inside].astype(np.int64)
        right = ids[begin + distance : end + distance][inside]
        keys.append(np.minimum(left, right) * size + np.maximum(left, right))
        weights.append(np.full(len(left), 1 / distance))
    return _sum_by_key(np.concatenate(keys), np.concatenate(weights)) if keys else (np.zeros(0, np.int64), np.zeros(0))


def _merge(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return _sum_by_key(np.concatenate([keys for keys, _ in parts]), np.concatenate([sums for _, sums in parts]))


def _sum_by_key(keys: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct, inverse = np.unique(keys, return_inverse=True)
    return distinct, np.bincount(inverse, weights, minlength=len(distinct))


# The objective


def weights_of(counts: np.ndarray, x_max: float, alpha: float) -> np.ndarray:
    """f of eq. 9, for each count."""
    return np.minimum(counts / x_max, 1.0) ** alpha


def gradient(
    words: np.ndarray, contexts: np.ndarray, pairs: Cooccurrences, x_max: float = 100.0, alpha: float = 0.75
) -> Gradient:
    """J of eq. 8 over some pairs, and its gradient.

    Args:
        words: (V, E + 2), the rows [w, b, 1].
        contexts: (V, E + 2), the rows [c, 1, d].
        pairs: (n) entries of X.
        x_max, alpha: of eq. 9.
    """
    targets, weights = np.log(pairs.counts), weights_of(pairs.counts, x_max, alpha)
    return _gradient(words, contexts, pairs.rows, pairs.columns, targets, weights)


def _gradient(
    words: np.ndarray,
    contexts: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
) -> Gradient:
    """The same with logarithms and weights at hand.

    The factors 2 f (error) of the pairs are a sparse matrix S, and the gradients are S times the contexts and S^T times
    the words.
    """
    from scipy.sparse import csr_matrix

    own, row_places = np.unique(rows, return_inverse=True)
    near, column_places = np.unique(columns, return_inverse=True)
    left, right = words[own], contexts[near]
    errors = np.einsum("ne,ne->n", left[row_places], right[column_places]) - targets
    factors = csr_matrix((2 * weights * errors, (row_places, column_places)), shape=(len(own), len(near)))
    of_words, of_contexts = factors @ right, factors.T @ left
    of_words[:, -1] = 0  # the columns of ones
    of_contexts[:, -2] = 0
    return Gradient(own, of_words, near, of_contexts, float((weights * errors**2).sum()))


# Training


def train(
    sentences: Sentences,
    vector_size: int = 100,
    window: int = 15,
    epochs: int = 25,
    learning_rate: float = 0.05,
    x_max: float = 100.0,
    alpha: float = 0.75,
    seed: int = 0,
) -> tuple[np.ndarray, list[float]]:
    """Word vectors of sentences; the same arguments give the same bits.

    Args:
        sentences: with V words.
        vector_size: E.
        window: words on each side that count.
        epochs: how often all pairs are gone through, each time in another order.
        learning_rate: of AdaGrad, whose sums of squares begin at 1 as in the published program.
        x_max, alpha: of eq. 9.
        seed: of the first values and of the order.

    Returns:
        (V, E) float32, and the mean of eq. 8's terms in each epoch, as they were met.
    """
    pairs = count_cooccurrences(sentences, window)
    targets = np.log(pairs.counts).astype(np.float32)
    weights = weights_of(pairs.counts, x_max, alpha).astype(np.float32)
    random = np.random.default_rng(seed)
    words, contexts = initial_values(len(sentences.words), vector_size, random)
    squares = (np.ones_like(words), np.ones_like(contexts))
    means = []
    count = len(pairs.counts)
    progress.begin("pairs of words", epochs * count)
    for _ in range(epochs):
        order = random.permutation(count)
        total = 0.0
        for begin in range(0, count, BATCH):
            batch = order[begin : begin + BATCH]
            step = _gradient(words, contexts, pairs.rows[batch], pairs.columns[batch], targets[batch], weights[batch])
            _update(words, squares[0], step.words, step.of_words, learning_rate)
            _update(contexts, squares[1], step.contexts, step.of_contexts, learning_rate)
            total += step.objective
            progress.report(len(batch))
        means.append(total / max(count, 1))
    return words[:, :-2] + contexts[:, :-2], means


def initial_values(size: int, vector_size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Words and contexts (V, E + 2) float32 before training: uniform within 0.5 / E on both sides of zero."""
    words, contexts = ((random.random((2, size, vector_size + 2)) - 0.5) / vector_size).astype(np.float32)
    words[:, -1] = 1
    contexts[:, -2] = 1
    return words, contexts


def _update(values: np.ndarray, squares: np.ndarray, rows: np.ndarray, gradients: np.ndarray, rate: float) -> None:
    """A step of AdaGrad for some rows."""
    sums = squares[rows] + gradients**2
    squares[rows] = sums
    values[rows] -= rate * gradients / np.sqrt(sums)
