"""Vectors of texts from the last hidden states, pooled as a sentence encoder's folder says or as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch.nn import functional

from lmworks.base.errors import InputError
from lmworks.families.sentence_pooling import SentencePooling
from lmworks.generate.encode import encode_texts
from lmworks.generate.fill import check_length
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

Pooling = Literal["mean", "first", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "none"]
"""As sentence-transformers names them; "first" is "cls", "none" keeps the states of all tokens."""


@torch.no_grad()
def embed(
    network: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    own: SentencePooling | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Vectors of texts: the last hidden states, of an encoder-decoder those of its encoder.

    Args:
        network: of any architecture.
        tokenizer: its own.
        texts: at most one context each.
        pooling: one of Pooling. Special tokens count. None: the encoder's own, else the mean.
        normalize: to length 1; None: as the encoder's own pooling says; else pooled vectors are, those of tokens not.
        own: of a sentence encoder; its prompt and lower case hold for every pooling.

    Returns:
        (n, E) float32, or (n, k E) where the encoder joins k poolings; with "none" a list of (tokens, E).

    Raises:
        InputError: a text is empty or too long, or there is no such pooling.
    """
    if pooling is not None and pooling not in get_args(Pooling):
        raise InputError(f"there is no pooling {pooling!r}", "pooling", f"one of: {', '.join(get_args(Pooling))}")
    way = own or SentencePooling()
    if pooling is not None:
        way = replace(way, modes=("cls" if pooling == "first" else pooling,), normalize=pooling != "none")
    if normalize is not None:
        way = replace(way, normalize=normalize)
    ids = [tokenizer.encode(_prepared(text, way), special=True) for text in texts]
    for number, row in enumerate(ids, 1):
        if not row:
            raise InputError("the text is empty", f"text {number}", "give at least one token")
        check_length(network, row, f"text {number}")
    states = [state.float().cpu() for state in encode_texts(network, ids)]
    if pooling == "none":
        return [functional.normalize(state, dim=-1) if way.normalize else state for state in states]
    pooled = [torch.cat([_pool(state, mode) for mode in way.modes]) for state in states]
    vectors = torch.stack(pooled) if pooled else torch.empty(0, network.config.hidden_size * len(way.modes))
    return functional.normalize(vectors, dim=-1) if way.normalize else vectors


def _prepared(text: str, way: SentencePooling) -> str:
    text = way.prompt + text
    return text.lower() if way.lower_case else text


def _pool(states: torch.Tensor, mode: str) -> torch.Tensor:
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
