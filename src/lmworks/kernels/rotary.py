"""Rotary position embeddings: their definition in PyTorch, and a native kernel with one pass over the data."""

from __future__ import annotations

from typing import Any

import torch

from lmworks.kernels.dispatch import supports, to_dlpack
from lmworks.kernels.native_module import native_module


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (i, i + R/2) of the first R dimensions of each head (Su et al. 2021, eq. 34).

    Args:
        x: (B, T, H, D).
        cos, sin: (B or 1, T, 1, R/2); R is at most D, the other D - R dimensions are copied.

    Returns:
        The shape and dtype of x; computed in float32 where x has fewer bits.
    """
    if torch.is_grad_enabled() and supports(x, cos, sin):
        if len(cos) != len(x):
            cos, sin = (table.expand(len(x), -1, -1, -1) for table in (cos, sin))
        return _NativeRotary.apply(x, cos.float().contiguous(), sin.float().contiguous())
    if x.element_size() < cos.element_size():
        return rotate(x.float(), cos, sin).to(x.dtype)
    half = cos.shape[-1]
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    rotated = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat((*rotated, rest) if rest.shape[-1] else rotated, dim=-1)


def _run_kernel(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: float) -> torch.Tensor:
    """``sign``: 1 rotates by the angles, -1 by their negatives."""
    rows = x.reshape(-1, x.shape[2] * x.shape[3])
    y = torch.empty(x.shape, dtype=x.dtype)
    native_module().rotate(*map(to_dlpack, (rows, cos, sin, y)), x.shape[3], sign)
    return y


class _NativeRotary(torch.autograd.Function):
    """A rotation is orthogonal, so its backward pass rotates the gradient by the negative angles."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _run_kernel(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _run_kernel(grad_y, cos, sin, -1.0), None, None
