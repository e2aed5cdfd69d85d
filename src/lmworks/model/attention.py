"""The one attention: self and cross, grouped or not, with optional additive bias and cache.

softmax(Q K^T / sqrt(D) + bias) V (Vaswani et al. 2017, eq. 1; grouped queries: Ainslie et al. 2023). Knows nothing
of texts: masks.Sight says who sees whom, cache.LayerCache holds what came before.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from lmworks.model.cache import LayerCache
from lmworks.model.config import ModelConfig
from lmworks.model.masks import Sight
from lmworks.model.norm import make_norm
from lmworks.model.positions import rotate

Turns = tuple[torch.Tensor, torch.Tensor]


class Attention(nn.Module):
    """(B, T, E) -> (B, T, E).

    Args:
        config: sizes and words.
        window: tokens this layer looks back, itself included; None: all.
        cross: look at another stack's output (``memory``) instead of at x.
    """

    def __init__(self, config: ModelConfig, window: int | None = None, cross: bool = False) -> None:
        super().__init__()
        self.size, self.window, self.cross = config.head_size, window, cross
        self.dropout = config.attention_dropout
        queries, keys = config.num_attention_heads * self.size, config.key_value_heads * self.size
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=config.output_bias)
        self.q_norm = make_norm(config, self.size) if config.qk_norm else None
        self.k_norm = make_norm(config, self.size) if config.qk_norm else None

    def forward(
        self,
        x: torch.Tensor,
        sight: Sight,
        turns: Turns | None = None,
        key_turns: Turns | None = None,
        bias: torch.Tensor | None = None,
        cache: LayerCache | None = None,
        memory: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mix each token with those it may see.

        Args:
            x: (B, T, E).
            sight: who sees whom.
            turns: rotary cosines and sines of the queries (and of their own keys); None: no rotation.
            key_turns: rotations of all cached keys, where these change with the length (dynamic NTK).
            bias: (B or 1, H or 1, T, S) added to the scores.
            cache: keys and values of earlier tokens; extended by this call.
            memory: (B, S, E) what cross-attention looks at.
        """
        query = self._heads(self.q_proj(x))
        if self.q_norm is not None:
            query = self.q_norm(query)
        if turns is not None:
            query = rotate(query, turns)
        keys, values = self._keys_and_values(x, turns, key_turns, cache, memory)
        mixed = self._mix(query.transpose(1, 2), keys, values, sight, bias)
        return self.o_proj(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], -1, self.size)

    def _keys_and_values(
        self,
        x: torch.Tensor,
        turns: Turns | None,
        key_turns: Turns | None,
        cache: LayerCache | None,
        memory: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.cross and cache is not None and cache.cross is not None:
            return cache.cross
        source = memory if self.cross and memory is not None else x
        keys, values = self._heads(self.k_proj(source)), self._heads(self.v_proj(source)).transpose(1, 2)
        if self.k_norm is not None:
            keys = self.k_norm(keys)
        if turns is not None and key_turns is None:
            keys = rotate(keys, turns)
        keys = keys.transpose(1, 2)
        if self.cross:
            if cache is not None:
                cache.cross = (keys, values)
        elif cache is not None:
            keys, values = cache.append(keys, values)
        if key_turns is not None:
            keys = rotate(keys.transpose(1, 2), key_turns).transpose(1, 2)
        return keys, values

    def _mix(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, sight: Sight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, H, T, D) queries, (B, K, S, D) keys and values -> (B, H, T, D)."""
        dropout = self.dropout if self.training else 0.0
        if bias is None and sight.within(self.window):
            if sight.spans:
                return _by_document(query, keys, values, sight.spans, sight.causal, dropout)
            if sight.step:
                return _step(query, keys, values)
            if sight.aligned:
                return _attend(query, keys, values, None, sight.causal, dropout)
        mask = sight.mask(self.window)
        if bias is not None:
            mask = bias.to(query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
        return _attend(query, keys, values, mask, False, dropout)


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
) -> torch.Tensor:
    groups = query.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = (part.repeat_interleave(groups, dim=1) for part in (keys, values))
    return functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, dropout_p=dropout, is_causal=causal and query.shape[2] > 1
    )


def _by_document(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    spans: tuple[int, ...],
    causal: bool,
    dropout: float,
) -> torch.Tensor:
    """Documents one after another in a flat row: each attends to itself, and nothing is computed between them."""
    parts = zip(*(part.split(spans, dim=2) for part in (query, keys, values)), strict=True)
    return torch.cat([_attend(q, k, v, None, causal, dropout) for q, k, v in parts], dim=2)


def _step(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """One new token that sees every key: heads that share keys become rows of one product, nothing is repeated."""
    batch, heads, _, size = query.shape
    grouped = query.reshape(batch, keys.shape[1], heads // keys.shape[1], size)
    return functional.scaled_dot_product_attention(grouped, keys, values).reshape(batch, heads, 1, size)
