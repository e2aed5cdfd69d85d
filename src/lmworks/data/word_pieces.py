"""Words of texts and the tokens that a tokenizer makes of them: the first token of each word stands for the word.

Shapes: W words, T tokens of a text without special tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lmworks.data.documents import ROWS_AT_ONCE
from lmworks.text.tags import split_words
from lmworks.text.tokenizer import Tokenizer


class Words(NamedTuple):
    """A text and its words.

    Attributes:
        text: the text.
        starts: character at which each word begins.
        tokens: the words.
    """

    text: str
    starts: Sequence[int]
    tokens: Sequence[str]

    @classmethod
    def of_text(cls, text: str) -> Words:
        """The words of a text (text/tags)."""
        words = split_words(text)
        return cls(text, [begin for begin, _ in words], [text[begin:end] for begin, end in words])


class Pieces(NamedTuple):
    """The tokens of a text.

    Attributes:
        ids: (T,) int32.
        firsts: (W,) int64 index of the token in which each word begins; -1 where the tokenizer leaves it out.
    """

    ids: np.ndarray
    firsts: np.ndarray

    @property
    def leads(self) -> np.ndarray:
        """(W,) bool: whether a word is the first that begins in its token. Others, as those of one token
        ``).``, have no token of their own."""
        before = np.concatenate([[-1], self.firsts[:-1]])
        return (self.firsts >= 0) & (self.firsts != before)


def pieces_of(tokenizer: Tokenizer, texts: Sequence[Words]) -> Iterator[Pieces]:
    """The tokens of each text, in order."""
    for begin in range(0, len(texts), ROWS_AT_ONCE):
        part = texts[begin : begin + ROWS_AT_ONCE]
        for words, encodings in zip(part, tokenizer.encodings([words.text for words in part]), strict=True):
            ids: list[int] = []
            offsets: list[tuple[int, int]] = []
            for at, encoding in encodings:
                ids += tokenizer.check_rows(encoding.ids, words.text)
                offsets += [(at + first, at + end) for first, end in encoding.offsets]
            yield Pieces(np.array(ids, dtype=np.int32), first_pieces(words, offsets))


def first_pieces(words: Words, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """(W,) int64 index of the token that holds the first character of each word; -1: none does.

    Where only a later character of the word has a token, the first such token stands for it.

    Args:
        words: of a text.
        offsets: first character and end of each of its T tokens.
    """
    if not offsets or not len(words.starts):
        return np.full(len(words.starts), -1, dtype=np.int64)
    begins, ends = np.array(offsets, dtype=np.int64).T
    ends = np.maximum.accumulate(ends)  # bytes of one character have the same offsets
    starts = np.array(words.starts, dtype=np.int64)
    firsts = np.searchsorted(ends, starts, side="right")
    inside = np.minimum(firsts, len(ends) - 1)
    word_ends = starts + np.array([len(token) for token in words.tokens])
    return np.where((firsts < len(ends)) & (begins[inside] < word_ends), firsts, -1)
