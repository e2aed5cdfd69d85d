"""Span corruption with sentinels (T5), denoising (BART): the encoder reads a corrupted text, the decoder restores it.

The fixed part of an example is the text itself as the decoder's ids; the random part makes source and ids. Raffel et
al. 2020 (section 3.1.4) for spans, Lewis et al. 2020 (section 2.2) for denoising. Knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.data.documents import Frame, Window
from lmworks.text.tokenizer import Tokenizer


def decoder_example(target: np.ndarray, decoder_start_id: int, source: np.ndarray, window: Window) -> Example:
    """An example whose decoder starts with the token ``decoder_start_id`` and learns the target (teacher forcing)."""
    ids = np.concatenate([[decoder_start_id], target]).astype(np.int32)
    loss = np.ones(len(ids), dtype=bool)
    loss[0] = False
    return Example(ids, loss, window.document.place, source=source.astype(np.int32), origin=window)


# Span corruption


def noise_counts(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """(noise tokens, spans that they form) of a text of `length` tokens, which must be at least 2.

    Both are rounded to the nearest number (halves to the even one, as published). At least one token is noise and one
    is not, and there are no more spans than tokens that are not noise.
    """
    noise = min(max(round(length * rate), 1), length - 1)
    return noise, min(max(round(noise / mean_span), 1), length - noise)


def corrupted_lengths(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """(source, target) lengths of a text of `length` tokens: both have a sentinel for each span, and an end."""
    noise, spans = noise_counts(length, rate, mean_span)
    return length - noise + spans + 1, noise + spans + 1


def text_length(source: int, rate: float, mean_span: float) -> int:
    """The length of the longest text whose corrupted source has at most `source` tokens.

    Raises:
        InputError: no text fits.
    """
    length = 2
    if corrupted_lengths(length, rate, mean_span)[0] > source:
        raise InputError(f"a context of {source} tokens holds no corrupted text", "max_tokens", "give at least 3")
    while corrupted_lengths(length + 1, rate, mean_span)[0] <= source:
        length += 1
    return length


def _random_partition(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` positive numbers with the sum `total`, all partitions equally likely."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _random_starts(lengths: np.ndarray, others: int, rng: np.random.Generator) -> np.ndarray:
    """Where spans of these lengths start among `others` other tokens: no two touch, all ways equally likely."""
    gaps = np.sort(rng.choice(others + 1, len(lengths), replace=False))
    return gaps + np.cumsum(lengths) - lengths


def noise_spans(length: int, rate: float, mean_span: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where the noise spans of a text begin and end.

    The noise tokens are divided into spans at random, and the spans have random places. (In the published program a
    text always begins with a token that is not noise and ends with noise, so that a short text with one span loses its
    end each time. The lengths are the same.)
    """
    noise, count = noise_counts(length, rate, mean_span)
    lengths = _random_partition(noise, count, rng)
    begins = _random_starts(lengths, length - noise, rng)
    return begins, begins + lengths


def corrupt(
    ids: np.ndarray, begins: np.ndarray, ends: np.ndarray, sentinels: np.ndarray, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Source: the text with a sentinel in place of each span. Target: each sentinel and its span. Both with an end."""
    noise = np.zeros(len(ids), dtype=bool)
    for low, high in zip(begins, ends, strict=True):
        noise[low:high] = True
    is_begin = np.zeros(len(ids), dtype=bool)
    is_begin[begins] = True
    source = ids.copy()
    source[begins] = sentinels[: len(begins)]
    source = source[~noise | is_begin]
    at = np.cumsum(np.concatenate([[0], ends - begins]))[:-1]
    target = np.insert(ids[noise], at, sentinels[: len(begins)])
    return np.append(source, end), np.append(target, end)


def sentinels(tokenizer: Tokenizer) -> np.ndarray:
    """The ids of <extra_id_0>, <extra_id_1>, ..., as many as the tokenizer has."""
    ids: list[int] = []
    while (token := tokenizer.core.token_to_id(f"<extra_id_{len(ids)}>")) is not None:
        ids.append(token)
    return np.array(ids, dtype=np.int32)


def check_sentinels(ids: np.ndarray, needed: int) -> None:
    """Refuse a tokenizer with too few sentinels.

    Raises:
        InputError: a text can have more spans than there are sentinels.
    """
    if len(ids) < needed:
        has = f"only {len(ids)} sentinels" if len(ids) else "no sentinels (<extra_id_0>, <extra_id_1>, ...)"
        hint = "train a tokenizer of T5's style (lmworks tokenizer train --style t5)"
        if len(ids):
            hint = f"shorten the context (max_tokens), raise mean_span, or {hint}"
        raise InputError(f"the tokenizer has {has}, and span corruption needs {needed}", "tokenizer", hint)


# Denoising


def infill(ids: np.ndarray, rate: float, mean_span: float, mask_id: int, rng: np.random.Generator) -> np.ndarray:
    """Text infilling: each of some spans of Poisson lengths, together rate * len(ids) tokens, becomes one mask token.

    A span of length 0 inserts a mask. No two spans touch. The number of noise tokens is rounded at random, so that its
    mean is exact; the last span is shortened to meet it.
    """
    length = len(ids)
    noise = min(int(rate * length + rng.random()), length)
    lengths: list[int] = []
    while sum(lengths) < noise:
        lengths.append(min(int(rng.poisson(mean_span)), noise - sum(lengths)))
    while len(lengths) > min(noise, length - noise + 1) and 0 in lengths:  # a source is never longer than its text
        lengths.remove(0)
    while len(lengths) > length - noise + 1:  # too few other tokens to separate the spans: merge two
        lengths[-2:] = [sum(lengths[-2:])]
    begins = _random_starts(np.array(lengths, dtype=np.int64), length - noise, rng)
    parts: list[np.ndarray] = []
    last = 0
    for begin, size in zip(begins, lengths, strict=True):
        parts += [ids[last:begin], np.array([mask_id])]
        last = begin + size
    return np.concatenate([*parts, ids[last:]]).astype(np.int32)


def permute(ids: np.ndarray, offsets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sentences in random order; sentence n is the tokens `offsets[n] : offsets[n + 1]`."""
    order = rng.permutation(len(offsets) - 1)
    return np.concatenate([ids[offsets[number] : offsets[number + 1]] for number in order])


def sentence_offsets(window: Window) -> np.ndarray:
    """The offsets of the sentences of a window, counted from its beginning."""
    offsets = window.document.sentences
    inside = offsets[(offsets > window.begin) & (offsets < window.end)]
    return np.concatenate([[window.begin], inside, [window.end]]) - window.begin


@dataclass(frozen=True)
class Denoising:
    """How a text is corrupted for denoising.

    Attributes:
        rate, mean_span: fraction of the tokens that is noise; mean tokens of a span.
        permuted: whether the sentences are permuted.
        mask_id, decoder_start_id: the mask token; the decoder's start token.
        frame: special tokens around a text.
    """

    rate: float
    mean_span: float
    permuted: bool
    mask_id: int
    decoder_start_id: int
    frame: Frame

    def sample(self, window: Window, rng: np.random.Generator) -> Example:
        """The corrupted text as the source, the original one as the target."""
        ids = window.document.ids[window.begin : window.end]
        corrupted = permute(ids, sentence_offsets(window), rng) if self.permuted else ids
        corrupted = infill(corrupted, self.rate, self.mean_span, self.mask_id, rng)
        return decoder_example(self.frame.around(ids), self.decoder_start_id, self.frame.around(corrupted), window)
