"""Masked language modelling (BERT; dynamic masking: RoBERTa) and next-sentence prediction (BERT).

The fixed part of an example is a text with its special tokens; `loss` marks the tokens that may be masked. The random
part masks some of them and sets the targets to the original ids. Knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lmworks.data.batch import NEXT_SENTENCE, Example, Labels
from lmworks.data.documents import Document, Frame, Window

TO_MASK, TO_RANDOM = 0.8, 0.1
"""Fractions of the chosen tokens that become the mask token, and a random one (Devlin et al. 2019, section 3.1)."""


@dataclass(frozen=True)
class Masking:
    """How tokens are masked.

    Attributes:
        rate: fraction of the words (of the tokens, where words are not numbered) that is chosen.
        mask_id: the mask token.
        replacements: (N,) ids that may replace a chosen token at random: all but special ones.
        special: (V,) bool by id: never masked.
    """

    rate: float
    mask_id: int
    replacements: np.ndarray
    special: np.ndarray

    def maskable(self, ids: np.ndarray) -> np.ndarray:
        """(T,) bool: where a token is not special."""
        return ~self.special[ids]

    def mask(self, example: Example, word_ids: np.ndarray | None, rng: np.random.Generator) -> Example:
        """Mask some of the tokens that `example.loss` marks.

        Of n words rate * n are chosen, rounded up or down at random so that the mean is exact, but at least one; each
        of their tokens independently becomes the mask token, a random token or stays (so does BERT, with whole words
        too).

        Args:
            example: its ids are the original ones.
            word_ids: (T,) number of the word of each token; None: each token is a word.
            rng: all that is random.
        """
        candidates = np.flatnonzero(example.loss)
        of_word = np.arange(len(candidates))
        if word_ids is not None:
            of_word = np.unique(word_ids[candidates], return_inverse=True)[1]
        units = int(of_word.max()) + 1
        count = min(units, max(1, int(self.rate * units + rng.random())))
        is_chosen = np.zeros(units, dtype=bool)
        is_chosen[rng.choice(units, count, replace=False, shuffle=False)] = True
        places = candidates[is_chosen[of_word]]
        fate = rng.random(len(places))
        ids, loss = example.ids.copy(), np.zeros(len(example), dtype=bool)
        loss[places] = True
        ids[places[fate < TO_MASK]] = self.mask_id
        replaced = places[(fate >= TO_MASK) & (fate < TO_MASK + TO_RANDOM)]
        ids[replaced] = self.replacements[rng.integers(len(self.replacements), size=len(replaced))]
        return replace(example, ids=ids, loss=loss, targets=example.ids)


# Whole texts


def text_example(window: Window, frame: Frame, masking: Masking) -> Example | None:
    """A window of a document as the fixed part of an example; None where nothing in it can be masked."""
    ids = frame.around(window.document.ids[window.begin : window.end])
    maskable = masking.maskable(ids)
    maskable[: len(frame.opening)] = maskable[len(ids) - len(frame.closing) :] = False
    if not maskable.any():
        return None
    return Example(ids, maskable, window.document.place, targets=ids, origin=window)


def text_word_ids(window: Window, frame: Frame) -> np.ndarray | None:
    """The word ids of such an example; -1 for its special tokens."""
    word_ids = window.document.word_ids
    if word_ids is None:
        return None
    opening, closing = (np.full(len(part), -1) for part in (frame.opening, frame.closing))
    return np.concatenate([opening, word_ids[window.begin : window.end], closing])


# Next sentences


@dataclass(frozen=True)
class Sentences:
    """A document and its sentences; sentence n is the tokens `offsets[n] : offsets[n + 1]`."""

    document: Document
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class SentenceBlock:
    """Consecutive sentences of a document, from which pairs are sampled.

    Attributes:
        corpus: all documents; the second segment of a pair may come from any of them.
        number: of the block's document in the corpus.
        begin, end: its sentences are begin : end.
        max_tokens: of both segments of a pair together.
    """

    corpus: Sequence[Sentences]
    number: int
    begin: int
    end: int
    max_tokens: int


@dataclass(frozen=True)
class Segment:
    """Tokens begin:end of a document."""

    document: Document
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class SegmentPair:
    """Both segments of an example (A and B in the paper), and the block from which it was sampled."""

    block: SentenceBlock
    a: Segment
    b: Segment


def split_sentences(document: Document, max_tokens: int) -> Sentences:
    """A document's sentences; those of more than `max_tokens` tokens are split."""
    pieces = [place for low, high in pairwise(document.sentences) for place in range(low, high, max_tokens)]
    return Sentences(document, np.array([*pieces, len(document)], dtype=np.int64))


def blocks_of(corpus: Sequence[Sentences], max_tokens: int) -> list[SentenceBlock]:
    """All sentences of all documents in blocks of at least two that fit into one example.

    Where the last block would have one sentence, it begins one sentence earlier; a document of one sentence has none.
    """
    blocks = []
    for number, sentences in enumerate(corpus):
        begin, offsets = 0, sentences.offsets
        while begin < len(sentences) and len(sentences) > 1:
            begin = min(begin, len(sentences) - 2)
            end = int(np.searchsorted(offsets, offsets[begin] + max_tokens, side="right")) - 1
            blocks.append(SentenceBlock(corpus, number, begin, end, max_tokens))
            begin = end
    return blocks


def pair_example(block: SentenceBlock, frame: Frame, masking: Masking) -> Example:
    """The fixed part of a pair: the block's first sentence, and the rest of the block."""
    cut = block.begin + 1
    pair = SegmentPair(block, _segment(block, block.begin, cut), _segment(block, cut, block.end))
    return _pair_example(pair, 0, frame, masking)


def sample_pair(block: SentenceBlock, frame: Frame, masking: Masking, rng: np.random.Generator) -> Example:
    """A pair as BERT samples it: A is some of the block's first sentences; B, with probability one half each, the rest
    of the block, or sentences of another document (of the same one, if there is no other) that fit together with A."""
    cut = int(rng.integers(block.begin + 1, block.end))
    a = _segment(block, block.begin, cut)
    if rng.random() < 0.5:
        pair = SegmentPair(block, a, _segment(block, cut, block.end))
        return _masked_pair(pair, 0, frame, masking, rng)
    count = len(block.corpus)
    if count > 1:
        number = (block.number + int(rng.integers(1, count))) % count
        begin = int(rng.integers(len(block.corpus[number])))
    else:
        number = 0
        begin = int(rng.integers(len(block.corpus[0]) - 1))
        begin += begin >= cut  # any sentence but the one that follows A
    document, offsets = block.corpus[number].document, block.corpus[number].offsets
    free_tokens = block.max_tokens - len(a)
    end = max(begin + 1, int(np.searchsorted(offsets, offsets[begin] + free_tokens, side="right")) - 1)
    low, high = int(offsets[begin]), int(offsets[end])
    b = Segment(document, low, min(high, low + free_tokens))
    return _masked_pair(SegmentPair(block, a, b), 1, frame, masking, rng)


def _segment(block: SentenceBlock, begin: int, end: int) -> Segment:
    sentences = block.corpus[block.number]
    return Segment(sentences.document, int(sentences.offsets[begin]), int(sentences.offsets[end]))


def _pair_example(pair: SegmentPair, label: int, frame: Frame, masking: Masking) -> Example:
    """[CLS] A [SEP] B [SEP] with types 0 up to the first [SEP] and 1 after it."""
    texts = [part.document.ids[part.begin : part.end] for part in (pair.a, pair.b)]
    ids = np.concatenate([frame.opening, texts[0], frame.middle, texts[1], frame.closing]).astype(np.int32)
    begin = len(frame.opening) + len(pair.a) + len(frame.middle)
    maskable = masking.maskable(ids)
    maskable[: len(frame.opening)] = maskable[len(ids) - len(frame.closing) :] = False
    maskable[len(frame.opening) + len(pair.a) : begin] = False
    types = (np.arange(len(ids)) >= begin).astype(np.int32)
    labels = {NEXT_SENTENCE: Labels.of_text(label)}
    return Example(ids, maskable, pair.a.document.place, targets=ids, types=types, labels=labels, origin=pair)


def _masked_pair(pair: SegmentPair, label: int, frame: Frame, masking: Masking, rng: np.random.Generator) -> Example:
    example = _pair_example(pair, label, frame, masking)
    return masking.mask(example, pair_word_ids(pair, frame), rng) if example.loss.any() else example


def pair_word_ids(pair: SegmentPair, frame: Frame) -> np.ndarray | None:
    """The word ids of a pair, those of the second segment after those of the first; -1 for special tokens."""
    if pair.a.document.word_ids is None or pair.b.document.word_ids is None:
        return None
    a = pair.a.document.word_ids[pair.a.begin : pair.a.end]
    b = pair.b.document.word_ids[pair.b.begin : pair.b.end]
    offset = int(a.max(initial=0)) + 1
    opening, middle, closing = (np.full(len(part), -1) for part in (frame.opening, frame.middle, frame.closing))
    return np.concatenate([opening, a, middle, b + offset, closing])
