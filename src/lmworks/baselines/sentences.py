"""Texts -> sentences of words, their vocabulary and ids: what static word vectors are trained on.

A word is a run of letters and digits, with apostrophes inside; a sentence is a line of a text. Words that are too rare
are left out before distances between words are counted, as word2vec and GloVe do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lmworks.base.errors import InputError
from lmworks.text.plain_text import split_lines

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
LONGEST_SENTENCE = 10_000
"""Words of a sentence; longer lines are cut there. gensim would leave out what follows the 10,000th word."""


def words_of(text: str, lowercase: bool = True) -> list[str]:
    """The words of a text, in order."""
    return WORD.findall(text.lower() if lowercase else text)


@dataclass(frozen=True)
class Sentences:
    """Sentences as ids of a vocabulary.

    Attributes:
        words: (V) the vocabulary, most frequent first; equally frequent words in the order of their characters.
        counts: (V) int64, how often each occurs.
        ids: (n) int32, the words of all sentences, one after another.
        ends: (number of sentences) int64, where each sentence ends in ``ids``.
        total: words of the texts, those among them that are not in the vocabulary.
    """

    words: list[str]
    counts: np.ndarray
    ids: np.ndarray
    ends: np.ndarray
    total: int

    def __iter__(self) -> Iterator[list[str]]:
        """Each sentence as its words."""
        begin = 0
        for end in self.ends.tolist():
            yield [self.words[index] for index in self.ids[begin:end].tolist()]
            begin = end

    def numbers(self) -> np.ndarray:
        """(n) int64, the number of the sentence in which each word stands."""
        return np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=0))


def read_sentences(texts: Iterable[str], min_count: int = 5, lowercase: bool = True) -> Sentences:
    """The sentences of texts.

    Args:
        texts: each line of them is a sentence.
        min_count: words that occur less often are left out.
        lowercase: whether words are lower-cased.

    Raises:
        InputError: fewer than two words occur so often.
    """
    first_ids: dict[str, int] = {}
    lines: list[np.ndarray] = []
    for text in texts:
        for line in split_lines(text):
            words = words_of(line, lowercase)
            for begin in range(0, len(words), LONGEST_SENTENCE):
                part = words[begin : begin + LONGEST_SENTENCE]
                lines.append(np.array([first_ids.setdefault(word, len(first_ids)) for word in part], dtype=np.int32))
    everything = np.concatenate(lines) if lines else np.zeros(0, dtype=np.int32)
    counts = np.bincount(everything, minlength=len(first_ids))
    names = list(first_ids)
    kept = sorted(np.flatnonzero(counts >= min_count).tolist(), key=lambda index: (-counts[index], names[index]))
    if len(kept) < 2:
        fault = f"{len(kept)} of {len(names)} different words occur {min_count} times or more; two are needed"
        second = sorted(counts.tolist())[-2:-1]
        hint = f"--min-count {second[0]}, or give more text" if second else "give a text with several words"
        raise InputError(fault, "the text", hint)
    new_ids = np.full(len(names), -1, dtype=np.int32)
    new_ids[kept] = np.arange(len(kept), dtype=np.int32)
    ids = new_ids[everything]
    lengths = np.array([int((new_ids[line] >= 0).sum()) for line in lines], dtype=np.int64)
    ends = np.cumsum(lengths[lengths > 0])
    return Sentences([names[index] for index in kept], counts[kept], ids[ids >= 0], ends, len(everything))
