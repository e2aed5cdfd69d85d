"""Texts -> documents: token ids that know their characters, words and sentences, and what opens and closes an example.

What tasks on texts share: masks, spans and sentences are sampled from documents. Knows no batches.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmworks.base.errors import InputError
from lmworks.text.rows import Row
from lmworks.text.tokenizer import Tokenizer

ROWS_AT_ONCE = 512
"""Rows encoded in one call, so that all cores work and memory stays small."""

SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?:[ \t]*\n+|(?=\s))|[。！？]+[」』”]*\n*|\n+")
"""Where a sentence ends: after full stops, question and exclamation marks (with what closes after them) before a space,
after those of Chinese and Japanese, and at the end of a line. Abbreviations end sentences too: no language is known."""


@dataclass(frozen=True)
class Document:
    """One text as ids, without the tokens that open and close it.

    Attributes:
        ids: (T,) int32.
        starts: (T,) int32 character of the text at which each token begins.
        text: the text itself.
        place: ``file:line`` of its row.
        words: (T,) int32 number of the word each token belongs to, where asked for.
    """

    ids: np.ndarray
    starts: np.ndarray
    text: str
    place: str
    words: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def bytes(self, begin: int, end: int) -> int:
        """UTF-8 bytes of the tokens begin..end."""
        low, high = (int(self.starts[place]) if place < len(self) else len(self.text) for place in (begin, end))
        return len(self.text[low:high].encode("utf-8", errors="replace"))

    @cached_property
    def sentences(self) -> np.ndarray:
        """Tokens at which sentences begin, and the end: sentence n is sentences[n] : sentences[n + 1]."""
        ends = [match.end() for match in SENTENCE_END.finditer(self.text)]
        return np.unique(np.concatenate([[0], np.searchsorted(self.starts, ends), [len(self)]]))


@dataclass(frozen=True)
class Window:
    """A stretch of a document: what an example was cut from."""

    document: Document
    begin: int
    end: int

    def moved(self, rng: np.random.Generator) -> Window:
        """A stretch of the same length at a random place of the document; all places are equally likely."""
        length = self.end - self.begin
        begin = int(rng.integers(len(self.document) - length + 1))
        return Window(self.document, begin, begin + length)


def windows(document: Document, size: int) -> list[Window]:
    """A document cut into stretches of `size` tokens, one after another; the last one may be shorter."""
    return [Window(document, begin, min(begin + size, len(document))) for begin in range(0, len(document), size)]


def documents(rows: Sequence[Row], tokenizer: Tokenizer, words: bool = False) -> Iterator[Document]:
    """The texts of rows (their field text) as documents, in order; empty ones too.

    Args:
        rows: of kind text or labels.
        tokenizer: encodes them; special tokens written out in a text become those tokens.
        words: number the words too.
    """
    by_character = words and _cuts_characters(tokenizer)
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[begin : begin + ROWS_AT_ONCE]
        encoded = tokenizer.core.encode_batch([row.values["text"] for row in part], add_special_tokens=False)
        for row, encoding in zip(part, encoded, strict=True):
            text = row.values["text"]
            numbers = None
            if words:
                cuts = [0] * len(encoding.ids) if by_character else encoding.word_ids
                numbers = word_numbers(text, encoding.offsets, cuts)
            starts = np.array([start for start, _ in encoding.offsets], dtype=np.int32)
            yield Document(np.array(encoding.ids, dtype=np.int32), starts, text, row.place, numbers)


# Words


def word_numbers(text: str, offsets: Sequence[tuple[int, int]], cuts: Sequence[int | None]) -> np.ndarray:
    """The word of each token, numbered from 0.

    A token goes on with the word of the one before it if letters, digits or marks stand on both sides of the border
    between them and the tokenizer's own pre-tokenizer cut no border there; so the pieces that WordPiece writes with
    ``##``, byte-level tokenizers without ``Ġ`` and SentencePiece without ``▁`` fall to their word, and a word of a
    character tokenizer is all its letters. Punctuation stands alone, as BERT's does. Bytes of a character are one word.

    Args:
        text: what was encoded.
        offsets: first character of each token, and the one after its last.
        cuts: for each token the piece that the pre-tokenizer made it from; all equal where that says nothing.
    """
    numbers = np.zeros(len(offsets), dtype=np.int32)
    word, end_before, cut_before = -1, -1, None
    for index, (begin, end) in enumerate(offsets):
        while begin < end and text[begin].isspace():
            begin += 1
        inside = begin < end_before  # a byte of the same character
        joined = 0 < begin < end and cuts[index] == cut_before and _in_word(text[begin - 1]) and _in_word(text[begin])
        word += not (inside or joined) or word < 0
        numbers[index] = word
        end_before, cut_before = end, cuts[index]
    return numbers


def _in_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_" or unicodedata.category(sign)[0] == "M"


def _cuts_characters(tokenizer: Tokenizer) -> bool:
    """Whether the pre-tokenizer takes every word apart, so that its cuts say nothing about words."""
    step = tokenizer.core.pre_tokenizer
    return step is not None and len(step.pre_tokenize_str("abc")) > 1


# What opens and closes an example


@dataclass(frozen=True)
class Frame:
    """Tokens that stand before a text, between two texts, and after the last one."""

    opening: tuple[int, ...]
    middle: tuple[int, ...]
    closing: tuple[int, ...]

    def __len__(self) -> int:
        """Tokens around one text."""
        return len(self.opening) + len(self.closing)

    def around(self, ids: np.ndarray) -> np.ndarray:
        """One text with what opens and closes it, int32."""
        return np.concatenate([self.opening, ids, self.closing]).astype(np.int32)


def frame(tokenizer: Tokenizer) -> Frame:
    """What the tokenizer's post-processor puts around texts; where it puts nothing, [CLS] and [SEP] if it has them."""
    opening, closing = tuple(tokenizer.opening), tuple(tokenizer.closing)
    if opening or closing:
        pair = tokenizer.core.encode("a", "a", add_special_tokens=True)
        side = pair.sequence_ids
        between = range(len(side) - side[::-1].index(0), side.index(1))
        return Frame(opening, tuple(pair.ids[index] for index in between), closing)
    first, separator = role_id(tokenizer, "cls"), role_id(tokenizer, "sep")
    if first is None or separator is None:
        return Frame((), (), ())
    return Frame((first,), (separator,), (separator,))


def role_id(tokenizer: Tokenizer, role: str) -> int | None:
    """The id of a special token by its role (cls, sep, mask, pad, bos, eos), or None."""
    found: int | None = getattr(tokenizer, f"{role}_id")
    return found


def need(tokenizer: Tokenizer, role: str, what: str) -> int:
    """The id of a special token that a task cannot do without.

    Raises:
        InputError: the tokenizer has none.
    """
    found = role_id(tokenizer, role)
    if found is None:
        style = "bert, roberta or bart" if role == "mask" else "t5 or bart"
        hint = f"name one as {role}_token in tokenizer_config.json, or train a tokenizer of style {style}"
        raise InputError(f"the tokenizer has no {role} token, and {what} needs one", "tokenizer", hint)
    return found


def end_id(tokenizer: Tokenizer, what: str) -> int:
    """What ends a target: the end-of-text token, else the one that closes every text."""
    if tokenizer.eos_id is None and tokenizer.closing:
        return tokenizer.closing[-1]
    return need(tokenizer, "eos", what)


def special_ids(tokenizer: Tokenizer) -> np.ndarray:
    """Ids that are no words: never hidden, never put in a word's place."""
    roles = {role_id(tokenizer, role) for role in ("bos", "eos", "pad", "unk", "mask", "cls", "sep")} - {None}
    return np.array(sorted({*tokenizer.specials.values(), *(index for index in roles if index is not None)}), np.int32)
