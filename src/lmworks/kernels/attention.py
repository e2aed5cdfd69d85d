"""Attention over documents that lie one after another in a flat row, as a kernel each way.

Its definition is model/attention's: each document alone through softmax(Q K^T scale) V. PyTorch's own attention is slow
on short documents and, with dropout, is written out; this one keeps the output and a number a query and head.
"""

from __future__ import annotations

from typing import Any

import torch

from lmworks.kernels.dropout import draw_seed
from lmworks.kernels.library import library
from lmworks.kernels.native import capsule, serves


def can_attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether the kernel serves these."""
    return serves(query, keys, values) and query.dtype == keys.dtype == values.dtype


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    borders: torch.Tensor,
    key_borders: torch.Tensor,
    scale: float,
    causal: bool,
    rate: float,
) -> torch.Tensor:
    """(tokens, H, D) queries, (tokens', K, D) keys and values -> (tokens, H, D).

    Args:
        query, keys, values: float32 or bfloat16, heads side by side.
        borders, key_borders: (documents + 1,) int64: where each document begins among the queries and the keys, and
            where the last ends.
        scale: of the scores.
        causal: a query sees the keys up to its own place.
        rate: of dropout on the weights.
    """
    return _Native.apply(query, keys, values, borders, key_borders, scale, causal, rate)


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query, keys, values, borders, key_borders, scale, causal, rate):
        flat = [part.flatten(1) for part in (query, keys, values)]
        out = torch.empty(query.shape, dtype=query.dtype)
        log_sum = torch.empty(query.shape[:2], dtype=torch.float32)
        ctx.rest = (query.shape[2], scale, causal, rate, draw_seed() if rate else 0)
        library().attend(*map(capsule, (*flat, borders, key_borders, out, log_sum)), *ctx.rest)
        ctx.save_for_backward(query, keys, values, borders, key_borders, out, log_sum)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, keys, values, borders, key_borders, out, log_sum = ctx.saved_tensors
        flat = [part.flatten(1) for part in (query, keys, values)]
        grads = [torch.empty(part.shape, dtype=part.dtype) for part in (query, keys, values)]
        library().attend_back(
            *map(capsule, (*flat, borders, key_borders, out, log_sum, grad.contiguous(), *grads)), *ctx.rest
        )
        return (*grads, None, None, None, None, None)
