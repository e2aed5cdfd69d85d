"""Texts -> documents: token ids with their characters, words and sentences; the special tokens around an example.

What tasks on texts share: masks, spans and sentences are sampled from documents. Knows no batches.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
    """One text as ids, without special tokens around it.

    Attributes:
        ids: (T,) int32.
        starts: (T,) int32 character of the text at which each token begins.
        text: the text itself.
        place: ``file:line`` of its row.
        word_ids: (T,) int32 number of each token's word; None: not computed.
    """

    ids: np.ndarray
    starts: np.ndarray
    text: str
    place: str
    word_ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def bytes(self, begin: int, end: int) -> int:
        """UTF-8 bytes of the tokens begin..end."""
        low, high = (int(self.starts[place]) if place < len(self) else len(self.text) for place in (begin, end))
        return len(self.text[low:high].encode("utf-8", errors="replace"))

    @cached_property
    def sentences(self) -> np.ndarray:
        """Offsets of the sentences: sentence n is the tokens sentences[n] : sentences[n + 1]."""
        ends = [match.end() for match in SENTENCE_END.finditer(self.text)]
        return np.unique(np.concatenate([[0], np.searchsorted(self.starts, ends), [len(self)]]))


@dataclass(frozen=True)
class Window:
    """Tokens begin:end of a document, from which an example was built."""

    document: Document
    begin: int
    end: int

    def shift_randomly(self, rng: np.random.Generator) -> Window:
        """A window of the same length at a random place of the document; all places are equally likely."""
        length = self.end - self.begin
        begin = int(rng.integers(len(self.document) - length + 1))
        return Window(self.document, begin, begin + length)


def split_windows(document: Document, size: int) -> list[Window]:
    """A document as consecutive windows of `size` tokens; the last one may be shorter."""
    return [Window(document, begin, min(begin + size, len(document))) for begin in range(0, len(document), size)]


def encode_documents(rows: Sequence[Row], tokenizer: Tokenizer, word_ids: bool = False) -> Iterator[Document]:
    """The texts of rows (their field text) as documents, in order; empty ones too.

    Args:
        rows: of kind text or labels.
        tokenizer: encodes them; special tokens that are written in a text become those tokens.
        word_ids: number the words too.
    """
    by_character = word_ids and _splits_characters(tokenizer)
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[begin : begin + ROWS_AT_ONCE]
        encoded = tokenizer.encodings([row.values["text"] for row in part])
        for row, pieces in zip(part, encoded, strict=True):
            text, parts = row.values["text"], []
            words = 0
            for at, encoding in pieces:
                numbers = np.zeros(0, dtype=np.int32)
                if word_ids:
                    cuts = [0] * len(encoding.ids) if by_character else encoding.word_ids
                    offsets = [(at + first, at + end) for first, end in encoding.offsets]
                    numbers = words + number_words(text, offsets, cuts)
                    words = int(numbers[-1]) + 1 if len(numbers) else words
                starts = np.array([at + first for first, _ in encoding.offsets], dtype=np.int32)
                parts.append((np.array(encoding.ids, dtype=np.int32), starts, numbers))
            ids, starts, numbers = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            yield Document(ids, starts, text, row.place, numbers if word_ids else None)


# Words


def number_words(text: str, offsets: Sequence[tuple[int, int]], cuts: Sequence[int | None]) -> np.ndarray:
    """The word of each token, numbered from 0.

    A token continues the word of the previous token if the characters on both sides of the boundary are letters, digits
    or marks and the tokenizer's pre-tokenizer does not split there; so the pieces that WordPiece writes with ``##``,
    byte-level tokenizers without ``Ġ`` and SentencePiece without ``▁`` belong to their word, and a word of a character
    tokenizer is all its letters. Each punctuation character is a word, as in BERT. Bytes of one character are one word.

    Args:
        text: what was encoded.
        offsets: first character of each token, and the one after its last.
        cuts: for each token the index of its pre-token; all equal where the pre-tokenizer splits characters.
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


def _splits_characters(tokenizer: Tokenizer) -> bool:
    """Whether the pre-tokenizer splits every word into characters, so that its pre-tokens are no words."""
    step = tokenizer.core.pre_tokenizer
    return step is not None and len(step.pre_tokenize_str("abc")) > 1


# Special tokens around an example


@dataclass(frozen=True)
class Frame:
    """Special tokens before a text, between two texts, and after the last one."""

    opening: tuple[int, ...]
    middle: tuple[int, ...]
    closing: tuple[int, ...]

    def __len__(self) -> int:
        """How many stand around one text."""
        return len(self.opening) + len(self.closing)

    def around(self, ids: np.ndarray) -> np.ndarray:
        """One text with its special tokens, int32."""
        return np.concatenate([self.opening, ids, self.closing]).astype(np.int32)


def frame_of(tokenizer: Tokenizer) -> Frame:
    """What the tokenizer's post-processor adds to texts; where it adds nothing, [CLS] and [SEP] if it has them."""
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
    token_id: int | None = getattr(tokenizer, f"{role}_id")
    return token_id


def require_id(tokenizer: Tokenizer, role: str, user: str) -> int:
    """The id of a special token that a task cannot do without.

    Raises:
        InputError: the tokenizer has none.
    """
    token_id = role_id(tokenizer, role)
    if token_id is None:
        style = "bert, roberta or bart" if role == "mask" else "t5 or bart"
        hint = f"name one as {role}_token in tokenizer_config.json, or train a tokenizer of style {style}"
        raise InputError(f"the tokenizer has no {role} token, and {user} needs one", "tokenizer", hint)
    return token_id


def end_id(tokenizer: Tokenizer, user: str) -> int:
    """The token that ends a target: EOS, else the last special token after every text."""
    if tokenizer.eos_id is None and tokenizer.closing:
        return tokenizer.closing[-1]
    return require_id(tokenizer, "eos", user)


def frame_with_end(tokenizer: Tokenizer, user: str) -> Frame:
    """As :func:`frame_of`; where the tokenizer adds nothing after a text, its end-of-text token.

    Args:
        tokenizer: the model's.
        user: who needs the token, for errors.

    Raises:
        InputError: there is no such token.
    """
    frame = frame_of(tokenizer)
    return frame if frame.closing else replace(frame, closing=(end_id(tokenizer, user),))


def special_ids(tokenizer: Tokenizer) -> np.ndarray:
    """Ids of special tokens: never masked, and never a random replacement."""
    roles = {role_id(tokenizer, role) for role in ("bos", "eos", "pad", "unk", "mask", "cls", "sep")} - {None}
    return np.array(sorted({*tokenizer.specials.values(), *(index for index in roles if index is not None)}), np.int32)
