"""n-grams of words or characters, counted and weighted: texts -> sparse features, by numpy alone.

The n-grams and weights are those of scikit-learn's CountVectorizer and TfidfVectorizer on cleaned texts: words of two
or more letters or digits; characters within words, which a space frames on both sides. A text's features are
tf(t) idf(t), divided by their Euclidean norm, with idf(t) = ln((1 + n) / (1 + df(t))) + 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lmworks.baselines.tfidf_settings import TfidfSettings
from lmworks.text.cleaning import Step, clean

_WORD = re.compile(r"\b\w\w+\b")
_WHITE = re.compile(r"\s\s+")


class Features(NamedTuple):
    """The features of N texts that are not zero, M in all.

    Attributes:
        rows: (M,) number of the text.
        columns: (M,) number of the n-gram.
        values: (M,) float64.
        texts: N.
    """

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    texts: int

    def times(self, weight: np.ndarray) -> np.ndarray:
        """Features (N, F) times weights (K, F), transposed: (N, K)."""
        products = [np.bincount(self.rows, self.values * row[self.columns], minlength=self.texts) for row in weight]
        return np.stack(products, axis=1) if products else np.zeros((self.texts, 0))


def ngrams(text: str, settings: TfidfSettings) -> list[str]:
    """The n-grams of a cleaned text, with repetitions."""
    low, high = settings.ngram_range
    if settings.analyzer == "word":
        words = _WORD.findall(text)
        return [
            " ".join(words[begin : begin + length])
            for length in range(low, min(high, len(words)) + 1)
            for begin in range(len(words) - length + 1)
        ]
    result: list[str] = []
    for word in _WHITE.sub(" ", text).split():
        framed = f" {word} "
        for length in range(low, high + 1):
            result += [framed[begin : begin + length] for begin in range(max(1, len(framed) - length + 1))]
            if length >= len(framed):  # a short word counts once as a whole
                break
    return result


def features(
    texts: Sequence[str],
    vocabulary: Mapping[str, int],
    idf: np.ndarray | None,
    settings: TfidfSettings,
    steps: Sequence[Step],
) -> Features:
    """Counts of the n-grams of a vocabulary, or their TF-IDF.

    Args:
        texts: N texts, not cleaned yet.
        vocabulary: n-gram -> column.
        idf: (F,) of the columns; None: counts.
        settings: which n-grams.
        steps: of cleaning.
    """
    columns: list[int] = []
    values: list[int] = []
    sizes: list[int] = []
    for text in texts:
        numbers = map(vocabulary.get, ngrams(clean(text, steps), settings))
        counts = sorted(Counter(column for column in numbers if column is not None).items())
        columns += [column for column, _ in counts]
        values += [count for _, count in counts]
        sizes.append(len(counts))
    rows = np.repeat(np.arange(len(texts)), sizes)
    index, weights = np.array(columns, dtype=np.int64), np.array(values, dtype=np.float64)
    if idf is not None:
        weights = (1.0 + np.log(weights) if settings.sublinear_tf else weights) * idf[index]
        norms = np.sqrt(np.bincount(rows, weights**2, minlength=len(texts)))
        weights = weights / norms[rows]
    return Features(rows, index, weights, len(texts))
