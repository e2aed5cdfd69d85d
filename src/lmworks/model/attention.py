"""Attention: self and cross, multi-head and grouped-query, with optional additive bias and cache.

softmax(Q K^T / sqrt(D) + bias) V (Vaswani et al. 2017, eq. 1; grouped queries: Ainslie et al. 2023).
masks.AttentionMask says which keys a query attends to; cache.LayerCache holds earlier keys and values.
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from lmworks.kernels import attention as native
from lmworks.kernels.dropout import dropout
from lmworks.kernels.rotary import rotate
from lmworks.model.cache import LayerCache
from lmworks.model.config import ModelConfig
from lmworks.model.linear import Linear
from lmworks.model.masks import AttentionMask
from lmworks.model.norm import make_norm
from lmworks.model.virtual_tokens import LayerPrefix

CosSin = tuple[torch.Tensor, torch.Tensor]


class Rotation(NamedTuple):
    """Rotary cosines and sines of the queries and the keys of the same tokens; also of all cached keys, if their
    rotation changes with the length of the text (dynamic NTK, longrope)."""

    own: CosSin | None = None
    keys: CosSin | None = None


NO_ROTATION = Rotation()


class ScoreSettings(NamedTuple):
    """Scale of the attention scores (None: 1 / sqrt(D)), their soft cap, and dropout of the attention weights."""

    scale: float | None
    softcap: float | None
    dropout: float


class Attention(nn.Module):
    """(B, T, E) -> (B, T, E).

    Args:
        config: sizes and settings.
        window: sliding window: number of keys that a query attends to, its own included; None: all.
        cross: cross-attention: keys and values come from the encoder's output (``memory``) instead of x.
    """

    def __init__(self, config: ModelConfig, window: int | None = None, cross: bool = False) -> None:
        super().__init__()
        self.size, self.window, self.cross = config.head_size, window, cross
        self.scores = ScoreSettings(config.attention_scale, config.attention_softcap, config.attention_dropout)
        queries, keys = config.num_attention_heads * self.size, config.key_value_heads * self.size
        self.q_proj = Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k_proj = Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v_proj = Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o_proj = Linear(queries, config.hidden_size, bias=config.output_bias)
        self.q_norm = make_norm(config, self.size) if config.qk_norm else None
        self.k_norm = make_norm(config, self.size) if config.qk_norm else None

    def forward(
        self,
        x: torch.Tensor,
        mask: AttentionMask,
        rotation: Rotation = NO_ROTATION,
        bias: torch.Tensor | None = None,
        relative: torch.Tensor | None = None,
        cache: LayerCache | None = None,
        memory: torch.Tensor | None = None,
        prefix: LayerPrefix | None = None,
    ) -> torch.Tensor:
        """Attention over the tokens that each token attends to.

        Args:
            x: (B, T, E).
            mask: which keys each query attends to; with a prefix, of the rows with virtual tokens.
            rotation: of queries and keys.
            bias: (B or 1, H or 1, T, S) added to the scores.
            relative: relative-position bias of the same shape; for packed documents (1, H, L, L), L the longest.
            cache: keys and values of earlier tokens; extended by this call.
            memory: (B, S, E) the encoder's output, which cross-attention reads.
            prefix: keys and values before every document. Its queries are zeros, and what they attend to is left out:
                so the rows have as many queries as keys, as all masks and kernels expect.
        """
        query = self._heads(self.q_proj(x))
        if self.q_norm is not None:
            query = self.q_norm(query)
        if rotation.own is not None:
            query = rotate(query, *rotation.own)
        keys, values = self._keys_and_values(x, rotation, cache, memory, prefix)
        query = query if prefix is None else prefix.rows.insert(query)
        mixed = self._mix(query.transpose(1, 2), keys, values, mask, bias, relative).transpose(1, 2)
        mixed = mixed if prefix is None else prefix.rows.tokens_of(mixed.flatten(0, 1))
        return self.o_proj(mixed.reshape(*x.shape[:2], -1))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], -1, self.size)

    def _keys_and_values(
        self,
        x: torch.Tensor,
        rotation: Rotation,
        cache: LayerCache | None,
        memory: torch.Tensor | None,
        prefix: LayerPrefix | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.cross and cache is not None and cache.cross is not None:
            return cache.cross
        source = memory if self.cross and memory is not None else x
        keys, values = self._heads(self.k_proj(source)), self._heads(self.v_proj(source))
        if self.k_norm is not None:
            keys = self.k_norm(keys)
        if rotation.own is not None and rotation.keys is None:
            keys = rotate(keys, *rotation.own)
        if prefix is not None:
            keys, values = prefix.rows.insert(keys, prefix.keys), prefix.rows.insert(values, prefix.values)
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        if self.cross:
            if cache is not None:
                cache.cross = (keys, values)
        elif cache is not None:
            keys, values = cache.append(keys, values)
        if rotation.keys is not None:
            keys = rotate(keys.transpose(1, 2), *rotation.keys).transpose(1, 2)
        return keys, values

    def _mix(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: AttentionMask,
        bias: torch.Tensor | None,
        relative: torch.Tensor | None,
    ) -> torch.Tensor:
        """(B, H, T, D) queries, (B, K, S, D) keys and values -> (B, H, T, D)."""
        settings = self.scores if self.training else self.scores._replace(dropout=0.0)
        if bias is None and mask.fits_window(self.window):
            if relative is None and settings.softcap is None and mask.is_implicit and _is_native(query, keys, values):
                return _natively(query, keys, values, mask, settings)
            if mask.lengths:
                return _by_document(query, keys, values, mask, relative, settings)
            if relative is None and mask.all_visible and settings.softcap is None:
                return _step(query, keys, values, settings)
            if relative is None and mask.is_implicit:
                return _attend(query, keys, values, None, mask.causal, settings)
        if relative is not None:
            if mask.lengths:
                raise ValueError(
                    "relative positions with packed documents take neither an attention bias nor a sliding window"
                )
            bias = relative if bias is None else bias + relative
        matrix = mask.matrix(self.window)
        if bias is not None:
            matrix = bias.to(query.dtype).masked_fill(~matrix, torch.finfo(query.dtype).min)
        return _attend(query, keys, values, matrix, False, settings)


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    matrix: torch.Tensor | None,
    causal: bool,
    settings: ScoreSettings,
) -> torch.Tensor:
    """Attention by PyTorch; ``matrix``: bool (True: attends), or float and added to the scores."""
    groups = query.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = (part.repeat_interleave(groups, dim=1) for part in (keys, values))
    causal = causal and query.shape[2] > 1
    if settings.softcap is not None or (settings.dropout and query.is_cpu):
        return _explicit_attention(query, keys, values, matrix, causal, settings)
    return functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=matrix, dropout_p=settings.dropout, is_causal=causal, scale=settings.scale
    )


def _explicit_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    matrix: torch.Tensor | None,
    causal: bool,
    settings: ScoreSettings,
) -> torch.Tensor:
    """Attention from its definition, where SDPA does not fit: soft-capped scores (Gemma 2), which it does not have, and
    dropout of the attention weights on a CPU, where its dropout is slower."""
    scores = query @ keys.transpose(2, 3) * (settings.scale or query.shape[3] ** -0.5)
    if settings.softcap is not None:
        scores = torch.tanh(scores / settings.softcap) * settings.softcap
    hidden = torch.finfo(scores.dtype).min
    if causal:
        scores = scores + torch.full(scores.shape[2:], hidden, dtype=scores.dtype, device=scores.device).triu(1)
    elif matrix is not None:
        scores = scores.masked_fill(~matrix, hidden) if matrix.dtype == torch.bool else scores + matrix
    return dropout(scores.softmax(-1, dtype=torch.float32).to(values.dtype), settings.dropout) @ values


def _is_native(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether the kernel can run: all heads of a token must be contiguous, which they are except in a cache."""
    return native.can_run(query, keys, values) and all(x.transpose(1, 2).is_contiguous() for x in (keys, values))


def _natively(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: AttentionMask, settings: ScoreSettings
) -> torch.Tensor:
    """All packed documents, or all rows of a batch, in one call of the native kernel."""
    q, k, v = (part.transpose(1, 2).flatten(0, 1) for part in (query, keys, values))
    scale = settings.scale or query.shape[3] ** -0.5
    mixed = native.varlen_attention(q, k, v, *mask.cu_seqlens(), scale, mask.causal, settings.dropout)
    return mixed.unflatten(0, (len(query), -1)).transpose(1, 2)


def _by_document(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: AttentionMask,
    relative: torch.Tensor | None,
    settings: ScoreSettings,
) -> torch.Tensor:
    """Documents packed in a flat row: each attends only to itself (or to its own source), and nothing is computed for
    pairs of different documents. Adjacent documents of equal length are computed as a batch."""
    sizes = list(zip(mask.lengths, mask.key_lengths or mask.lengths, strict=True))
    runs = [(size, len(list(same))) for size, same in groupby(sizes)]
    queries = query.split([size[0] * count for size, count in runs], dim=2)
    sources = [part.split([size[1] * count for size, count in runs], dim=2) for part in (keys, values)]
    mixed = []
    for (size, count), run_queries, run_keys, run_values in zip(runs, queries, *sources, strict=True):
        matrix, causal = None, mask.causal
        if relative is not None:
            matrix, causal = relative[:, :, : size[0], : size[1]], False
            if mask.causal:
                later = torch.ones(size, dtype=torch.bool, device=matrix.device).triu(1)
                matrix = matrix.masked_fill(later, torch.finfo(matrix.dtype).min)
            matrix = matrix.to(run_queries.dtype)
        q, k, v = (_stacked(part, count) for part in (run_queries, run_keys, run_values))
        mixed.append(_unstacked(_attend(q, k, v, matrix, causal, settings)))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=2)


def _stacked(x: torch.Tensor, count: int) -> torch.Tensor:
    """(1, H, count * L, D) -> (count, H, L, D)."""
    return x if count == 1 else x.transpose(1, 2).reshape(count, -1, x.shape[1], x.shape[3]).transpose(1, 2)


def _unstacked(x: torch.Tensor) -> torch.Tensor:
    """(count, H, L, D) -> (1, H, count * L, D)."""
    return x if len(x) == 1 else x.transpose(1, 2).reshape(1, -1, x.shape[1], x.shape[3]).transpose(1, 2)


def _step(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, settings: ScoreSettings) -> torch.Tensor:
    """One new token that attends to all keys. Query heads that share a key head become rows of one matmul, so that keys
    and values are not repeated."""
    batch, heads, _, size = query.shape
    grouped = query.reshape(batch, keys.shape[1], heads // keys.shape[1], size)
    mixed = functional.scaled_dot_product_attention(grouped, keys, values, scale=settings.scale)
    return mixed.reshape(batch, heads, 1, size)
