"""Vectors of texts from the last hidden states, pooled as a sentence encoder's folder says or as asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch.nn import functional

from lmworks.base.errors import InputError
from lmworks.families.sentence_pooling import SentencePooling
from lmworks.generate.encode import context_of, encode_groups
from lmworks.generate.fill import check_length
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

Pooling = Literal[
    "mean", "first", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "last", "none"
]  # fmt: skip
"""As sentence-transformers names them; "first" is "cls", "last" is "lasttoken", "none" keeps the states of all
tokens."""
OTHER_NAMES = {"first": "cls", "last": "lasttoken"}


def embed(
    network: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    own: SentencePooling | None = None,
    max_tokens: int | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Vectors of texts: the last hidden states, of an encoder-decoder those of its encoder.

    Args:
        network: of any architecture.
        tokenizer: its own.
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
    ids, cut = text_ids(network, tokenizer, texts, way, max_tokens)
    if cut:
        warnings.warn(f"{cut} of {len(ids)} texts were cut to {max(map(len, ids))} tokens", stacklevel=2)
    return states_of(network, ids, way.normalize) if pooling == "none" else vectors_of(network, ids, way)


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
    network: Transformer,
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
    longest, context = max_tokens or way.max_tokens, context_of(network)
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
        check_length(network, ids[number], f"text {number + 1}")
    return ids, cut


@torch.no_grad()
def vectors_of(
    network: Transformer,
    ids: Sequence[Sequence[int]],
    way: SentencePooling,
    report: Callable[[int], None] = lambda count: None,
) -> torch.Tensor:
    """(n, k E) float32 vectors of texts that are token ids, with k poolings; ``report`` is called with the number of
    texts whenever some are done. Texts are read by length, and no more states are kept than those of one row."""
    vectors = torch.empty(len(ids), network.config.hidden_size * len(way.modes))
    for group in encode_groups(network, ids):
        for index, states in group:
            states = states.float().cpu()
            vectors[index] = torch.cat([pool(states, mode) for mode in way.modes])
        report(len(group))
    return functional.normalize(vectors, dim=-1) if way.normalize else vectors


@torch.no_grad()
def states_of(network: Transformer, ids: Sequence[Sequence[int]], normalize: bool) -> list[torch.Tensor]:
    """The last hidden states of each text, (tokens, E) float32."""
    result: list[torch.Tensor] = [torch.empty(0)] * len(ids)
    for group in encode_groups(network, ids):
        for index, states in group:
            own = states.float().cpu()
            result[index] = functional.normalize(own, dim=-1) if normalize else own
    return result


def _prepared(text: str, way: SentencePooling) -> str:
    text = way.prompt + text
    return text.lower() if way.lower_case else text


def pool(states: torch.Tensor, mode: str) -> torch.Tensor:
    """(T, E) hidden states of a text -> (E,)."""
    count = len(states)
    if mode == "mean":
        return states.mean(0)
    if mode == "mean_sqrt_len_tokens":
        return states.sum(0) / count**0.5
    if mode == "weightedmean":
        weights = torch.arange(1, count + 1, dtype=states.dtype)
        return weights @ states / weights.sum()
    if mode == "max":
        return states.amax(0)
    return states[0] if mode == "cls" else states[-1]
