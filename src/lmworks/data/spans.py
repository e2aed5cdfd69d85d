"""Span corruption with sentinels (T5) and denoising (BART): the encoder reads a damaged text, the decoder mends it.

The fixed part of an example is the text itself as the decoder's ids; a draw makes the source and the ids. Sources:
Raffel et al. 2020 (section 3.1.4) for spans, Lewis et al. 2020 (section 2.2) for denoising. Knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.data.documents import Frame, Window
from lmworks.text.tokenizer import Tokenizer


def decoder_example(target: np.ndarray, start: int, source: np.ndarray, window: Window) -> Example:
    """What the decoder learns to say, after the token that it reads first; it reads one token less than the target."""
    ids = np.concatenate([[start], target]).astype(np.int32)
    loss = np.ones(len(ids), dtype=bool)
    loss[0] = False
    return Example(ids, loss, window.document.place, source=source.astype(np.int32), origin=window)


# Span corruption


def noise_counts(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """(tokens that are hidden, spans they form) of a text of `length` tokens, which must be at least 2.

    Both are rounded to the nearest number (halves to the even one, as published); something is hidden and something
    stays, and there are no more spans than tokens that stay.
    """
    noise = min(max(round(length * rate), 1), length - 1)
    return noise, min(max(round(noise / mean_span), 1), length - noise)


def corrupted_lengths(length: int, rate: float, mean_span: float) -> tuple[int, int]:
    """(source, target) lengths of a text of `length` tokens: each span leaves a sentinel in both, and both end."""
    noise, spans = noise_counts(length, rate, mean_span)
    return length - noise + spans + 1, noise + spans + 1


def text_length(source: int, rate: float, mean_span: float) -> int:
    """How many tokens of text make a source of just `source` tokens: the longest whose source does not exceed it.

    How long its target is, says `corrupted_lengths`.

    Raises:
        InputError: no text fits.
    """
    length = 2
    if corrupted_lengths(length, rate, mean_span)[0] > source:
        raise InputError(f"a context of {source} tokens holds no damaged text", "max_tokens", "give at least 3")
    while corrupted_lengths(length + 1, rate, mean_span)[0] <= source:
        length += 1
    return length


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` positive numbers that add up to `total`, all ways equally likely."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _placed(lengths: np.ndarray, kept: int, rng: np.random.Generator) -> np.ndarray:
    """Where spans of these lengths begin among `kept` tokens that stay: no two touch, all ways equally likely."""
    gaps = np.sort(rng.choice(kept + 1, len(lengths), replace=False))
    return gaps + np.cumsum(lengths) - lengths


def noise_spans(length: int, rate: float, mean_span: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where the hidden spans of a text begin and end.

    The hidden tokens are divided into spans at random, and the spans stand at random places. (In the published program
    a text always begins with something that stays and ends with something hidden; a short text with one span would
    then lose its end each time. The lengths are the same.)
    """
    noise, count = noise_counts(length, rate, mean_span)
    lengths = _parts(noise, count, rng)
    begins = _placed(lengths, length - noise, rng)
    return begins, begins + lengths


def corrupt(
    ids: np.ndarray, begins: np.ndarray, ends: np.ndarray, sentinels: np.ndarray, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Source: the text with a sentinel in each span's place. Target: each sentinel and what it hid. Both ended."""
    hidden = np.zeros(len(ids), dtype=bool)
    for low, high in zip(begins, ends, strict=True):
        hidden[low:high] = True
    first = np.zeros(len(ids), dtype=bool)
    first[begins] = True
    source = ids.copy()
    source[begins] = sentinels[: len(begins)]
    source = source[~hidden | first]
    at = np.cumsum(np.concatenate([[0], ends - begins]))[:-1]
    target = np.insert(ids[hidden], at, sentinels[: len(begins)])
    return np.append(source, end), np.append(target, end)


def sentinels(tokenizer: Tokenizer) -> np.ndarray:
    """The ids of <extra_id_0>, <extra_id_1>, ..., as many as the tokenizer has."""
    found: list[int] = []
    while (token := tokenizer.core.token_to_id(f"<extra_id_{len(found)}>")) is not None:
        found.append(token)
    return np.array(found, dtype=np.int32)


def check_sentinels(found: np.ndarray, needed: int) -> None:
    """Refuse a tokenizer with too few sentinels.

    Raises:
        InputError: there are not as many as a text has spans.
    """
    if len(found) < needed:
        has = f"only {len(found)} sentinels" if len(found) else "no sentinels (<extra_id_0>, <extra_id_1>, ...)"
        hint = "train a tokenizer of T5's style (lmworks tokenizer train --style t5)"
        if len(found):
            hint = f"shorten the context (max_tokens), raise mean_span, or {hint}"
        raise InputError(f"the tokenizer has {has}, and span corruption needs {needed}", "tokenizer", hint)


# Denoising


def infill(ids: np.ndarray, rate: float, mean_span: float, mask_id: int, rng: np.random.Generator) -> np.ndarray:
    """Text infilling: spans of Poisson lengths, together rate * len(ids) tokens, each become one mask token.

    A span of length 0 puts a mask where nothing was hidden. No two spans touch. The number of tokens hidden is rounded
    by chance, so that its mean is exact; the last span is shortened to meet it.
    """
    length = len(ids)
    noise = min(int(rate * length + rng.random()), length)
    lengths: list[int] = []
    while sum(lengths) < noise:
        lengths.append(min(int(rng.poisson(mean_span)), noise - sum(lengths)))
    while len(lengths) > min(noise, length - noise + 1) and 0 in lengths:  # no source is longer than its text
        lengths.remove(0)
    while len(lengths) > length - noise + 1:  # too few tokens stay to hold the spans apart: they grow together
        lengths[-2:] = [sum(lengths[-2:])]
    begins = _placed(np.array(lengths, dtype=np.int64), length - noise, rng)
    made: list[np.ndarray] = []
    last = 0
    for begin, hidden in zip(begins, lengths, strict=True):
        made += [ids[last:begin], np.array([mask_id])]
        last = begin + hidden
    return np.concatenate([*made, ids[last:]]).astype(np.int32)


def permute(ids: np.ndarray, borders: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sentences in random order; `borders[n] : borders[n + 1]` are the tokens of sentence n."""
    order = rng.permutation(len(borders) - 1)
    return np.concatenate([ids[borders[number] : borders[number + 1]] for number in order])


def borders_in(window: Window) -> np.ndarray:
    """The borders of the sentences of a stretch of a document, counted from its beginning."""
    borders = window.document.sentences
    inside = borders[(borders > window.begin) & (borders < window.end)]
    return np.concatenate([[window.begin], inside, [window.end]]) - window.begin


@dataclass(frozen=True)
class Damage:
    """How denoising damages a text.

    Attributes:
        rate, mean_span: share of the tokens hidden; mean tokens of a span.
        permuted: whether the sentences change places.
        mask_id, start: the mask token; what the decoder reads first.
        frame: what opens and closes a text.
    """

    rate: float
    mean_span: float
    permuted: bool
    mask_id: int
    start: int
    frame: Frame

    def draw(self, window: Window, rng: np.random.Generator) -> Example:
        """The damaged text as the source, the whole one as the target."""
        ids = window.document.ids[window.begin : window.end]
        damaged = permute(ids, borders_in(window), rng) if self.permuted else ids
        damaged = infill(damaged, self.rate, self.mean_span, self.mask_id, rng)
        return decoder_example(self.frame.around(ids), self.start, self.frame.around(damaged), window)
