"""Attention over packed sequences of different lengths, as a native kernel with a backward pass.

model/attention has the definition: softmax(Q K^T scale) V of each sequence alone (Vaswani et al. 2017, eq. 1).
PyTorch's scaled_dot_product_attention is slow on short sequences and materialises the weights when it applies dropout;
this kernel saves the output and one number per query and head (Dao et al. 2022).
"""

from __future__ import annotations

from typing import Any

import torch

from lmworks.kernels.dispatch import supports, to_dlpack
from lmworks.kernels.dropout import draw_seed
from lmworks.kernels.native_module import native_module


def can_run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernel is available for these tensors."""
    return supports(query, key, value) and query.dtype == key.dtype == value.dtype


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    scale: float,
    causal: bool,
    dropout_rate: float,
) -> torch.Tensor:
    """(T, H, D) queries, (S, K, D) keys and values -> (T, H, D).

    T: query tokens of all sequences, S: key tokens of all sequences, H: heads, K: key-value heads (H is a multiple of
    K), D: head size. No sequence may be empty.

    Args:
        query, key, value: all float32 or all bfloat16.
        cu_seqlens: (sequences + 1,) int64: cumulative lengths of the sequences of queries; the first is 0, the last T.
        cu_seqlens_k: (sequences + 1,) int64: the same for the keys; the last is S.
        scale: factor of the scores.
        causal: query i of a sequence attends to its keys 0 to i.
        dropout_rate: probability with which an attention weight is zeroed.
    """
    return _NativeAttention.apply(query, key, value, cu_seqlens, cu_seqlens_k, scale, causal, dropout_rate)


class _NativeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query, key, value, cu_seqlens, cu_seqlens_k, scale, causal, dropout_rate):
        inputs = list(map(_rows, (query, key, value)))
        out = torch.empty(query.shape, dtype=query.dtype)
        logsumexp = torch.empty(query.shape[:2], dtype=torch.float32)
        ctx.settings = (query.shape[2], scale, causal, dropout_rate, draw_seed() if dropout_rate else 0)
        arrays = (*inputs, cu_seqlens, cu_seqlens_k, out, logsumexp)
        native_module().varlen_attention(*map(to_dlpack, arrays), *ctx.settings)
        ctx.save_for_backward(query, key, value, cu_seqlens, cu_seqlens_k, out, logsumexp)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, cu_seqlens, cu_seqlens_k, out, logsumexp = ctx.saved_tensors
        inputs = list(map(_rows, (query, key, value)))
        gradients = [torch.empty(tensor.shape, dtype=tensor.dtype) for tensor in (query, key, value)]
        arrays = (*inputs, cu_seqlens, cu_seqlens_k, out, logsumexp, grad_out.contiguous(), *gradients)
        native_module().varlen_attention_backward(*map(to_dlpack, arrays), *ctx.settings)
        return (*gradients, None, None, None, None, None)


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """(T, H, D) -> (T, H * D), a view where each row is contiguous: rows may be slices of wider ones."""
    rows = tensor.flatten(1)
    return rows if rows.stride(1) == 1 else rows.contiguous()
