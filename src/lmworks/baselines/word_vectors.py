"""Static word vectors: one vector for each word, whatever stands around it. Neighbours, analogies, averages of texts.

Mikolov et al. 2013a (Efficient Estimation of Word Representations in Vector Space) for analogies by the sum of unit
vectors (3CosAdd). Knows nothing of how vectors are trained.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmworks.base.errors import InputError, as_list
from lmworks.baselines.fasttext_file import FastTextModel, is_fasttext, read_fasttext, write_fasttext
from lmworks.baselines.sentences import words_of
from lmworks.baselines.vector_files import VectorFormat, format_of, read_vectors, write_vectors

NEAR = 5
"""Words that an error proposes for one that has no vector."""
COMPARED = 200_000
"""Words among which they are looked for, the most frequent ones."""


class Neighbour(NamedTuple):
    """A word, and the cosine of the angle between its vector and the one that was asked for."""

    word: str
    cosine: float


class WordVectors:
    """Words and their vectors.

    Attributes:
        words: (V), each once; in files the most frequent first.
        vectors: (V, E) float32.
        index: word -> its row.
        notes: what a person should know of the file they are from.
        subwords: fastText's model with vectors of character n-grams, where it is at hand; any word then has a vector.
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: np.ndarray,
        notes: Sequence[str] = (),
        subwords: FastTextModel | None = None,
    ) -> None:
        self.words = list(words)
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.index = {word: row for row, word in enumerate(self.words)}
        self.notes = list(notes)
        self.subwords = subwords
        if self.vectors.ndim != 2 or len(self.words) != len(self.vectors) or len(self.index) != len(self.words):
            fault = f"{len(self.index)} different words of {len(self.words)} do not fit vectors of {self.vectors.shape}"
            raise InputError(fault, "WordVectors", "give each word once, and vectors of shape (words, size)")

    @classmethod
    def open(cls, path: str | Path, limit: int | None = None, errors: str = "strict") -> WordVectors:
        """Word vectors from a file of word2vec, GloVe or fastText.

        Args:
            path: the file; its format is recognised by its content.
            limit: read only this many words, the first ones, which are the most frequent.
            errors: what becomes of words that are not UTF-8: "strict" refuses the file, "replace" goes on.

        Raises:
            InputError: the file cannot be read, or is damaged.
        """
        if is_fasttext(path):
            model = read_fasttext(path, limit, errors)
            return cls(model.words, model.vectors(), subwords=model)
        return cls(*read_vectors(path, limit, errors))

    def save(self, path: str | Path, file_format: VectorFormat | None = None) -> Path:
        """Write them as "text", "binary" (both word2vec's), "glove", or "fasttext", which keeps subword vectors.

        Default: by the ending .txt or .vec (text) or .bin ("fasttext" where there are subword vectors, else "binary").

        Raises:
            InputError: the ending says no format, there are no subword vectors, or the file cannot be written.
        """
        is_binary = file_format is None and format_of(Path(path)) == "binary"
        if file_format == "fasttext" or (is_binary and self.subwords is not None):
            if self.subwords is None:
                hint = "train with --algorithm fasttext, or choose another format"
                raise InputError("there are no subword vectors to write", str(path), hint)
            return write_fasttext(path, self.subwords)
        return write_vectors(path, self.words, self.vectors, file_format)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    @property
    def size(self) -> int:
        """E, the numbers of a vector."""
        return int(self.vectors.shape[1])

    @functools.cached_property
    def unit(self) -> np.ndarray:
        """(V, E) the vectors divided by their lengths; a vector of zeros stays."""
        lengths = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors / np.where(lengths > 0, lengths, 1)

    def vector(self, word: str) -> np.ndarray:
        """(E) the vector of a word; with ``subwords``, of any word that has an n-gram.

        Raises:
            InputError: it has none.
        """
        if word not in self.index and self.subwords is not None:
            vector = self.subwords.vector(word)
            if vector is not None:
                return vector
        return self.vectors[self.row(word)]

    def unit_vector(self, word: str) -> np.ndarray:
        """(E) the vector of a word, divided by its length.

        Raises:
            InputError: it has none.
        """
        if word in self.index:
            return self.unit[self.index[word]]
        vector = self.vector(word)
        return vector / (np.linalg.norm(vector) or 1)

    def row(self, word: str) -> int:
        """The row of a word.

        Raises:
            InputError: it has no vector; names words that are written alike.
        """
        row = self.index.get(word)
        if row is not None:
            return row
        forms = [form for form in (word.lower(), word.capitalize(), word.upper()) if form in self.index]
        near = forms or difflib.get_close_matches(word, self.words[:COMPARED], n=NEAR)
        hint = f"did you mean {' or '.join(near)}?" if near else "give a word that the vectors were trained on"
        raise InputError(f"there is no vector of the word {word!r}", hint=hint)

    def similarity(self, first: str, second: str) -> float:
        """The cosine of the angle between the vectors of two words.

        Raises:
            InputError: one has no vector.
        """
        return float(self.unit_vector(first) @ self.unit_vector(second))

    def nearest(self, word: str, top: int = 10) -> list[Neighbour]:
        """The words whose vectors have the greatest cosine with that of a word, without the word itself.

        Raises:
            InputError: the word has no vector.
        """
        return self.analogy([word], [], top)

    def analogy(self, positive: Sequence[str], negative: Sequence[str] = (), top: int = 10) -> list[Neighbour]:
        """The words nearest to a sum of unit vectors: ``analogy(["king", "woman"], ["man"])`` is king - man + woman.

        The words of the question are left out of the answer, without which "king" itself would often be it.

        Args:
            positive: words that are added.
            negative: words that are subtracted.
            top: how many.

        Raises:
            InputError: there is no positive word, or one has no vector.
        """
        plus = as_list(positive, str, "positive", "give a list of words")
        minus = as_list(negative, str, "negative", "give a list of words")
        if not plus:
            raise InputError("there is no word to begin with", "positive", 'as in analogy(["king", "woman"], ["man"])')
        words = [*plus, *minus]
        signs = np.array([1.0] * len(plus) + [-1.0] * len(minus), dtype=np.float32)
        vector = signs @ np.stack([self.unit_vector(word) for word in words])
        return self.nearest_to(vector, top, without=[self.index[word] for word in words if word in self.index])

    def nearest_to(self, vector: np.ndarray, top: int = 10, without: Sequence[int] = ()) -> list[Neighbour]:
        """The words nearest to any vector (E); ``without`` are rows that are left out."""
        length = float(np.linalg.norm(vector))
        cosines = self.unit @ (vector / (length or 1.0)).astype(np.float32)
        cosines[list(without)] = -np.inf
        top = min(top, len(self) - len(set(without)))
        best = np.argpartition(-cosines, top - 1)[:top] if 0 < top < len(self) else np.arange(len(self))
        best = best[np.argsort(-cosines[best], kind="stable")][: max(top, 0)]
        return [Neighbour(self.words[row], float(cosines[row])) for row in best.tolist()]

    def average(self, texts: Iterable[str]) -> np.ndarray:
        """(N, E) float32, for each text the mean of the vectors of its words; zeros where none of them has one.

        Words are cut as for training, and looked for as they are written, then in lower case, then by their n-grams.
        """
        means = [self._mean(text) for text in as_list(texts, str, "texts", "give a list of texts")]
        return np.stack(means) if means else np.zeros((0, self.size), dtype=np.float32)

    def _mean(self, text: str) -> np.ndarray:
        vectors = [self._vector_in_text(word) for word in words_of(text, lowercase=False)]
        known = [vector for vector in vectors if vector is not None]
        return np.stack(known).mean(axis=0) if known else np.zeros(self.size, dtype=np.float32)

    def _vector_in_text(self, word: str) -> np.ndarray | None:
        row = self.index.get(word, self.index.get(word.lower(), -1))
        if row >= 0:
            return self.vectors[row]
        return self.subwords.vector(word) if self.subwords is not None else None


def open_vectors(path: str | Path, limit: int | None = None, errors: str = "strict") -> WordVectors:
    """Word vectors from a file of word2vec, GloVe or fastText; arguments and errors as :meth:`WordVectors.open`."""
    return WordVectors.open(path, limit, errors)
