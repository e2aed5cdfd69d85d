"""Counts of n-grams, and their probabilities with interpolated Kneser-Ney smoothing; arrays only, no dictionaries.

The n-grams of a length are a sorted array of integers: the number of an n-gram's context among the shorter n-grams,
times the size of the vocabulary, plus its last token. So the n-grams after one context are a slice of that array, and a
million of them are found by one binary search. Knows no tokenizer.

Sources: Kneser and Ney 1995; Chen and Goodman 1998, "An empirical study of smoothing techniques for language modeling",
section 3 (modified Kneser-Ney) and equation 26 (its discounts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmworks.base.errors import InputError

Smoothing = Literal["modified-kneser-ney", "kneser-ney"]
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts of counts give none, as for vocabularies so small that no token is rare."""


@dataclass
class Counts:
    """The n-grams of one length k in a text; N of them.

    Attributes:
        keys: (N,) int64, sorted: number of the context among the (k-1)-grams x V + last token.
        shorter: (N,) int64: number of the n-gram without its first token among the (k-1)-grams.
        counts: (N,) int64: how often each occurs; below the order of the model: after how many different tokens.
    """

    keys: np.ndarray
    shorter: np.ndarray
    counts: np.ndarray


@dataclass
class Estimate:
    """The probabilities of the n-grams of one length.

    Attributes:
        probabilities: (N,) float64: of the last token after the context, the shorter contexts' share included.
        backoffs: (contexts,) float64: of each context, what its unseen tokens take of the shorter context's
            probability; 1 after a context that nothing follows.
        discounts: what is subtracted from counts of 1, of 2, and of 3 or more.
    """

    probabilities: np.ndarray
    backoffs: np.ndarray
    discounts: tuple[float, float, float]


def count(
    documents: Sequence[np.ndarray], order: int, vocab_size: int, begin_id: int | None, smoothing: Smoothing
) -> tuple[np.ndarray, list[Counts]]:
    """The n-grams of documents, those of each document for itself.

    Below the order of the model, an n-gram counts once for each token that it stands after (Kneser and Ney's
    continuation counts). At the beginning of a document it stands after none: there modified Kneser-Ney counts each
    occurrence, as KenLM does, since nothing is known to be repeated; plain Kneser-Ney counts nothing, as NLTK does.

    Args:
        documents: (T,) token ids each; what ends a document is already there.
        order: the longest n-grams, at least 1.
        vocab_size: V.
        begin_id: stands before each document, as context alone; None: nothing does.
        smoothing: which counts are used.

    Returns:
        (V,) counts of single tokens, and the Counts of the lengths 2 to ``order``.
    """
    stream, position = _stream(documents, begin_id)
    starts = np.flatnonzero(position == 0)
    node, levels = stream, list[Counts]()
    at_beginning = [] if smoothing == "kneser-ney" else [node[starts] if begin_id is None else node[:0]]
    for length in range(2, order + 1):
        places = np.flatnonzero(position >= length - 1)
        keys = node[places - 1] * vocab_size + stream[places]
        by_key = np.argsort(keys)
        ordered = keys[by_key]
        firsts = np.flatnonzero(np.diff(ordered, prepend=-1))
        shorter = node[places[by_key[firsts]]]
        levels.append(Counts(ordered[firsts], shorter, np.diff(firsts, append=len(keys))))
        number = np.zeros(len(keys), dtype=np.int64)
        number[firsts[1:]] = 1
        node = np.full(len(stream), -1, dtype=np.int64)
        node[places[by_key]] = np.cumsum(number)
        if at_beginning:
            here = starts[starts + length - 1 < len(stream)] + length - 1
            at_beginning.append(node[here[position[here] == length - 1]])
    predicted = stream if begin_id is None else stream[position > 0]
    if not levels:
        return np.bincount(predicted, minlength=vocab_size), levels
    sizes = [vocab_size, *(len(level.keys) for level in levels)]
    continued = [np.bincount(level.shorter, minlength=size) for level, size in zip(levels, sizes, strict=False)]
    for counts, first in zip(continued, at_beginning, strict=False):
        counts += np.bincount(first, minlength=len(counts))
    for level, counts in zip(levels, continued[1:], strict=False):
        level.counts = counts
    return continued[0], levels


def _stream(documents: Sequence[np.ndarray], begin_id: int | None) -> tuple[np.ndarray, np.ndarray]:
    """All tokens one after the other, and the place of each in its document; both (T,) int64."""
    opening = [] if begin_id is None else [np.array([begin_id])]
    lengths = np.array([len(document) + len(opening) for document in documents])
    stream = np.concatenate([part for document in documents for part in (*opening, document)]).astype(np.int64)
    return stream, np.arange(len(stream)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def estimate_tokens(
    counts: np.ndarray, smoothing: Smoothing, discount: float, is_alone: bool
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The probabilities (V,) of single tokens, without a context, and their discounts.

    Modified Kneser-Ney interpolates with the uniform distribution, so that no token is impossible. Plain Kneser-Ney
    divides the counts by their sum, as NLTK does: a token that was never seen has probability 0.

    Args:
        counts: (V,).
        smoothing, discount: of the model.
        is_alone: whether the model is of order 1, which modified and plain smooth alike.
    """
    size, total = len(counts), counts.sum()
    if total == 0:
        return np.full(size, 1 / size), (0.0, 0.0, 0.0)
    if smoothing == "kneser-ney" and not is_alone:
        return counts / total, (0.0, 0.0, 0.0)
    discounts = discounts_of(counts, smoothing, discount)
    subtracted = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    return (counts - subtracted) / total + subtracted.sum() / total / size, discounts


def estimate(
    counts: Counts,
    shorter: np.ndarray,
    contexts: int,
    vocab_size: int,
    smoothing: Smoothing,
    discount: float,
) -> Estimate:
    """The probabilities of n-grams, from those of the n-grams without their first token.

    p(w | c) = (a(c w) - D(a(c w))) / A(c) + backoff(c) p(w | c without its first token), where A(c) is the sum of
    a(c v) over all v, and backoff(c) the sum of D(a(c v)) over all v, divided by A(c).

    Args:
        counts: of the n-grams.
        shorter: probabilities of all n-grams that are shorter by one.
        contexts: how many contexts there are.
        vocab_size: V.
        smoothing, discount: of the model.
    """
    discounts = discounts_of(counts.counts, smoothing, discount)
    subtracted = np.array([0.0, *discounts])[np.minimum(counts.counts, 3)]
    context = counts.keys // vocab_size
    total = np.bincount(context, weights=counts.counts, minlength=contexts)
    backed_off = np.bincount(context, weights=subtracted, minlength=contexts)
    is_followed = total > 0
    backoffs = np.divide(backed_off, total, out=np.ones(contexts), where=is_followed)
    from_counts = (counts.counts - subtracted) / np.where(is_followed, total, 1.0)[context]
    return Estimate(from_counts + backoffs[context] * shorter[counts.shorter], backoffs, discounts)


def discounts_of(counts: np.ndarray, smoothing: Smoothing, discount: float) -> tuple[float, float, float]:
    """What is subtracted from counts of 1, of 2, and of 3 or more.

    Modified Kneser-Ney, with n_i the number of n-grams whose count is i and Y = n_1 / (n_1 + 2 n_2):
    D_i = i - (i + 1) Y n_(i+1) / n_i (Chen and Goodman 1998, equation 26). Where that is no number between 0 and i,
    :data:`FALLBACK` is used.
    """
    if smoothing == "kneser-ney":
        return discount, discount, discount
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.0
    found = [i - (i + 1) * y * n[i + 1] / n[i] if n[i] else -1.0 for i in (1, 2, 3)]
    if not y or any(not 0 <= value <= i for i, value in enumerate(found, 1)):
        return FALLBACK
    return found[0], found[1], found[2]


def check_settings(order: int, vocab_size: int, smoothing: str, discount: float, most_order: int) -> None:
    """Refuse settings of a model that make no sense.

    Raises:
        InputError: which one, and its bounds.
    """
    if not 0 <= order <= most_order:
        raise InputError(f"is {order}", "order", f"give a number from 0 (uniform) to {most_order}")
    if vocab_size < 1:
        raise InputError(f"is {vocab_size}", "vocab_size", "give the number of ids that the tokenizer has")
    if smoothing not in ("modified-kneser-ney", "kneser-ney"):
        raise InputError(f"is {smoothing!r}", "smoothing", "one of: modified-kneser-ney, kneser-ney")
    if not 0 <= discount <= 1:
        raise InputError(f"is {discount}", "discount", "give a number from 0 to 1")
