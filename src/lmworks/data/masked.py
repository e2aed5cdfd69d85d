"""Masked words (BERT, RoBERTa): what is hidden is drawn anew each time; and next sentences (BERT).

The fixed part of an example is a text between the tokens that open and close it; `loss` says where a token may be
hidden. A draw hides some and says at each hidden place what stood there. Knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lmworks.data.batch import NEXT_SENTENCE, Example, Labels
from lmworks.data.documents import Document, Frame, Window

TO_MASK, TO_RANDOM = 0.8, 0.1
"""What becomes of a hidden token: the mask token, a random one, or itself (Devlin et al. 2019, section 3.1)."""


@dataclass(frozen=True)
class Hiding:
    """How tokens are hidden.

    Attributes:
        rate: share of the words (or tokens, where words are not numbered) that is hidden.
        mask_id: the mask token.
        plain: (N,) ids that may stand in the place of a hidden token: all but special ones.
        special: (V,) bool by id: never hidden.
    """

    rate: float
    mask_id: int
    plain: np.ndarray
    special: np.ndarray

    def may(self, ids: np.ndarray) -> np.ndarray:
        """(T,) bool: where a token is no special one."""
        return ~self.special[ids]

    def hide(self, example: Example, words: np.ndarray | None, rng: np.random.Generator) -> Example:
        """Hide some of what `example.loss` allows.

        Of n words rate * n are chosen, rounded up or down by chance so that the mean is exact, but at least one; each
        of their tokens becomes the mask token, a random token or stays, by itself (as BERT does with whole words too).

        Args:
            example: its ids are the original ones.
            words: (T,) number of the word of each token; None: each token alone.
            rng: all that is random.
        """
        may = np.flatnonzero(example.loss)
        of_word = np.arange(len(may)) if words is None else np.unique(words[may], return_inverse=True)[1]
        units = int(of_word.max()) + 1
        count = min(units, max(1, int(self.rate * units + rng.random())))
        chosen = np.zeros(units, dtype=bool)
        chosen[rng.choice(units, count, replace=False, shuffle=False)] = True
        places = may[chosen[of_word]]
        fate = rng.random(len(places))
        ids, loss = example.ids.copy(), np.zeros(len(example), dtype=bool)
        loss[places] = True
        ids[places[fate < TO_MASK]] = self.mask_id
        other = places[(fate >= TO_MASK) & (fate < TO_MASK + TO_RANDOM)]
        ids[other] = self.plain[rng.integers(len(self.plain), size=len(other))]
        return replace(example, ids=ids, loss=loss, targets=example.ids)


# Whole texts


def text_example(window: Window, frame: Frame, hiding: Hiding) -> Example | None:
    """A stretch of a document as the fixed part of an example; None where nothing in it may be hidden."""
    ids = frame.around(window.document.ids[window.begin : window.end])
    may = hiding.may(ids)
    may[: len(frame.opening)] = may[len(ids) - len(frame.closing) :] = False
    if not may.any():
        return None
    return Example(ids, may, window.document.place, targets=ids, origin=window)


def text_words(window: Window, frame: Frame) -> np.ndarray | None:
    """The numbers of the words of such an example; -1 for the tokens around it."""
    words = window.document.words
    if words is None:
        return None
    around = np.full(len(frame.opening), -1), words[window.begin : window.end], np.full(len(frame.closing), -1)
    return np.concatenate(around)


# Next sentences


@dataclass(frozen=True)
class Sentences:
    """A document and its sentences; `borders[n] : borders[n + 1]` are the tokens of sentence n."""

    document: Document
    borders: np.ndarray

    def __len__(self) -> int:
        return len(self.borders) - 1


@dataclass(frozen=True)
class Block:
    """Sentences first..last (without it) of a document, what a pair is made from; all documents, where others are to be
    had; and how many tokens both sentences of a pair may have together."""

    library: Sequence[Sentences]
    number: int
    first: int
    last: int
    room: int


@dataclass(frozen=True)
class Stretch:
    """Tokens begin..end of a document."""

    document: Document
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Pair:
    """Both stretches of a pair, and the block it was drawn from."""

    block: Block
    first: Stretch
    second: Stretch


def sentences(document: Document, most: int) -> Sentences:
    """A document's sentences; those of more than `most` tokens are cut into pieces."""
    borders = document.sentences
    cut = [place for low, high in pairwise(borders) for place in range(low, high, most)]
    return Sentences(document, np.array([*cut, len(document)], dtype=np.int64))


def blocks(library: Sequence[Sentences], room: int) -> list[Block]:
    """All sentences of all documents in blocks of at least two that have room in one example.

    A last sentence that would stand alone takes the one before it along; a document of one sentence makes no block.
    """
    made = []
    for number, held in enumerate(library):
        first = 0
        while first < len(held) and len(held) > 1:
            first = min(first, len(held) - 2)
            last = int(np.searchsorted(held.borders, held.borders[first] + room, side="right")) - 1
            made.append(Block(library, number, first, last, room))
            first = last
    return made


def pair_example(block: Block, frame: Frame, hiding: Hiding) -> Example:
    """The fixed part of a pair: the block's first sentence and those that follow it."""
    cut = block.first + 1
    pair = Pair(block, _stretch(block, block.first, cut), _stretch(block, cut, block.last))
    return _framed(pair, 0, frame, hiding)


def draw_pair(block: Block, frame: Frame, hiding: Hiding, rng: np.random.Generator) -> Example:
    """A pair as BERT draws it: A is some of the block's first sentences; B, by a coin, the others or sentences from
    another document (from elsewhere in the same one, where there is no other) that have room beside A."""
    cut = int(rng.integers(block.first + 1, block.last))
    first = _stretch(block, block.first, cut)
    if rng.random() < 0.5:
        return _hidden(Pair(block, first, _stretch(block, cut, block.last)), 0, frame, hiding, rng)
    count = len(block.library)
    if count > 1:
        number = (block.number + int(rng.integers(1, count))) % count
        begin = int(rng.integers(len(block.library[number])))
    else:
        number = 0
        begin = int(rng.integers(len(block.library[0]) - 1))
        begin += begin >= cut  # all but the sentence that does follow
    other = block.library[number]
    room = block.room - len(first)
    last = max(begin + 1, int(np.searchsorted(other.borders, other.borders[begin] + room, side="right")) - 1)
    low, high = int(other.borders[begin]), int(other.borders[last])
    second = Stretch(other.document, low, min(high, low + room))
    return _hidden(Pair(block, first, second), 1, frame, hiding, rng)


def _stretch(block: Block, first: int, last: int) -> Stretch:
    held = block.library[block.number]
    return Stretch(held.document, int(held.borders[first]), int(held.borders[last]))


def _framed(pair: Pair, label: int, frame: Frame, hiding: Hiding) -> Example:
    """[CLS] A [SEP] B [SEP] with types 0 up to the first [SEP] and 1 after it."""
    first, second = pair.first, pair.second
    texts = [part.document.ids[part.begin : part.end] for part in (first, second)]
    ids = np.concatenate([frame.opening, texts[0], frame.middle, texts[1], frame.closing]).astype(np.int32)
    begin = len(frame.opening) + len(first) + len(frame.middle)
    may = hiding.may(ids)
    may[: len(frame.opening)] = may[len(ids) - len(frame.closing) :] = False
    may[len(frame.opening) + len(first) : begin] = False
    types = (np.arange(len(ids)) >= begin).astype(np.int32)
    labels = {NEXT_SENTENCE: Labels.of_text(label)}
    return Example(ids, may, first.document.place, targets=ids, types=types, labels=labels, origin=pair)


def _hidden(pair: Pair, label: int, frame: Frame, hiding: Hiding, rng: np.random.Generator) -> Example:
    example = _framed(pair, label, frame, hiding)
    return hiding.hide(example, pair_words(pair, frame), rng) if example.loss.any() else example


def pair_words(pair: Pair, frame: Frame) -> np.ndarray | None:
    """The numbers of the words of a pair, those of the second sentence after those of the first; -1 between them."""
    if pair.first.document.words is None or pair.second.document.words is None:
        return None
    first = pair.first.document.words[pair.first.begin : pair.first.end]
    second = pair.second.document.words[pair.second.begin : pair.second.end]
    beyond = int(first.max(initial=0)) + 1
    opening, middle, closing = (np.full(len(part), -1) for part in (frame.opening, frame.middle, frame.closing))
    return np.concatenate([opening, first, middle, second + beyond, closing])
