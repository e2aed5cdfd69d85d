"""Vectors of texts from the last hidden states, pooled as a sentence encoder's folder says or as asked.

Knows not what computes the states. Imports no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, Protocol, get_args

import numpy as np

from lmworks.base.errors import InputError
from lmworks.families.sentence_pooling import SentencePooling
from lmworks.text.tokenizer import Tokenizer

Pooling = Literal[
    "mean", "first", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "last", "none"
]  # fmt: skip
"""As sentence-transformers names them; "first" is "cls", "last" is "lasttoken", "none" keeps the states of all
tokens."""
OTHER_NAMES = {"first": "cls", "last": "lasttoken"}
SMALLEST_LENGTH = 1e-12
"""Vectors are divided by their length, at least by this, as PyTorch does it."""


class HiddenStates(Protocol):
    """What computes the last hidden states of whole texts."""

    @property
    def width(self) -> int:
        """E, the size of a state."""

    @property
    def context(self) -> int | None:
        """Tokens that a text may have; None: any number."""

    def of_texts(self, texts: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Some texts at a time, longest first: (index of the text, its states (tokens, E) float32) of each. The states
        are to be used before the next ones are asked for.

        Args:
            texts: token ids; none empty, none longer than the context.
        """


def embed(
    states: HiddenStates,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    own: SentencePooling | None = None,
    max_tokens: int | None = None,
) -> np.ndarray | list[np.ndarray]:
    """Vectors of texts.

    Args:
        states: computes the hidden states.
        tokenizer: of the same model.
        texts: at most one context each.
        pooling: one of Pooling. Special tokens count. None: the encoder's own, else the mean.
        normalize: to length 1; None: as the encoder's own pooling says; else pooled vectors are, those of tokens not.
        own: of a sentence encoder; its prompt, lower case and longest text hold for every pooling.
        max_tokens: longer texts are cut, as :func:`text_ids` says.

    Returns:
        (n, E) float32, or (n, k E) where the encoder joins k poolings; with "none" a list of (tokens, E).

    Raises:
        InputError: a text is empty or too long, or there is no such pooling.
    """
    way = pooling_of(pooling, normalize, own)
    ids, cut = text_ids(states.context, tokenizer, texts, way, max_tokens)
    if cut:
        warnings.warn(f"{cut} of {len(ids)} texts were cut to {max(map(len, ids))} tokens", stacklevel=3)
    return token_vectors(states, ids, way.normalize) if pooling == "none" else pooled_vectors(states, ids, way)


def pooling_of(
    pooling: Pooling | None = None, normalize: bool | None = None, own: SentencePooling | None = None
) -> SentencePooling:
    """How vectors are made: the encoder's own way, with what was asked for in its place. Arguments as in embed.

    Raises:
        InputError: there is no such pooling.
    """
    if pooling is not None and pooling not in get_args(Pooling):
        raise InputError(f"there is no pooling {pooling!r}", "pooling", f"one of: {', '.join(get_args(Pooling))}")
    way = own or SentencePooling()
    if pooling is not None:
        way = replace(way, modes=(OTHER_NAMES.get(pooling, pooling),), normalize=pooling != "none")
    return way if normalize is None else replace(way, normalize=normalize)


def text_ids(
    context: int | None,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    way: SentencePooling,
    max_tokens: int | None = None,
) -> tuple[list[list[int]], int]:
    """Token ids of each text with its special tokens, and how many texts were cut.

    Texts longer than ``max_tokens`` (special tokens among them) are cut at their end, as sentence-transformers does.
    By default that is what the encoder's own folder says; of a model that says nothing no text is cut.

    Raises:
        InputError: a text has no token, or is longer than the model's context, or ``max_tokens`` leaves no room.
    """
    longest = max_tokens or way.max_tokens
    if longest is not None and context is not None:
        longest = min(longest, context)
    extra = len(tokenizer.opening) + len(tokenizer.closing)
    if longest is not None and longest <= extra:
        fault = f"{longest} leave no room for a text beside {extra} special tokens"
        raise InputError(fault, "max_tokens", f"give at least {extra + 1}")
    ids = tokenizer.encode_whole([_prepared(text, way) for text in texts])
    cut = 0
    for number, row in enumerate(ids):
        if not row:
            raise InputError("the text is empty", f"text {number + 1}", "give at least one token")
        if longest is not None and len(row) > longest:
            ids[number] = row[: longest - len(tokenizer.closing)] + tokenizer.closing
            cut += 1
        check_length(context, len(ids[number]), f"text {number + 1}")
    return ids, cut


def check_length(context: int | None, tokens: int, name: str) -> None:
    """Refuse a text that is longer than the model's context.

    Raises:
        InputError: it is.
    """
    if context is not None and tokens > context:
        raise InputError(f"{name}: {tokens} tokens, the model's context holds {context}", hint="give a shorter text")


def pooled_vectors(
    states: HiddenStates,
    ids: Sequence[Sequence[int]],
    way: SentencePooling,
    report: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """(n, k E) float32 vectors of texts that are token ids, with k poolings.

    Args:
        states: computes the hidden states, of which no more are kept than those of some texts.
        ids: of each text.
        way: how states become vectors.
        report: called with the number of texts whenever some are done.
    """
    vectors = np.empty((len(ids), states.width * len(way.modes)), np.float32)
    for group in states.of_texts(ids):
        for index, own in group:
            vectors[index] = np.concatenate([pool(own, mode) for mode in way.modes])
        report(len(group))
    return normalized(vectors) if way.normalize else vectors


def token_vectors(states: HiddenStates, ids: Sequence[Sequence[int]], normalize: bool) -> list[np.ndarray]:
    """The last hidden states of each text, (tokens, E) float32; to length 1 if ``normalize``."""
    result: list[np.ndarray] = [np.empty(0, np.float32)] * len(ids)
    for group in states.of_texts(ids):
        for index, own in group:
            result[index] = normalized(own) if normalize else own.copy()
    return result


def normalized(vectors: np.ndarray) -> np.ndarray:
    """(n, E) vectors divided by their lengths."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), SMALLEST_LENGTH)


def pool(states: np.ndarray, mode: str) -> np.ndarray:
    """(T, E) hidden states of a text -> (E,)."""
    if mode == "mean":
        return states.mean(0)
    if mode == "mean_sqrt_len_tokens":
        return states.sum(0) / np.float32(len(states) ** 0.5)
    if mode == "weightedmean":
        weights = np.arange(1, len(states) + 1, dtype=np.float32)
        return (weights[:, None] * states).sum(0) / weights.sum()
    if mode == "max":
        return states.max(0)
    return states[0] if mode == "cls" else states[-1]


def groups_by_length(sizes: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of texts of so many tokens each, those of similar lengths together, longest first; groups of about
    ``tokens`` tokens."""
    groups: list[list[int]] = []
    free_tokens = 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if not groups or sizes[index] > free_tokens:
            groups.append([])
            free_tokens = tokens
        groups[-1].append(index)
        free_tokens -= sizes[index]
    return groups


def _prepared(text: str, way: SentencePooling) -> str:
    text = way.prompt + text
    return text.lower() if way.lower_case else text
