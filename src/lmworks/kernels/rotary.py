"""Rotary turns of heads: their definition in PyTorch, and a kernel that makes one pass."""

from __future__ import annotations

from typing import Any

import torch

from lmworks.kernels.library import library
from lmworks.kernels.native import capsule, serves


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (i, i + R/2) of the first R dimensions of each head (Su et al. 2021, eq. 34).

    Args:
        x: (B, T, H, D).
        cos, sin: (B or 1, T, 1, R/2); R is at most D, the other dimensions pass unturned.

    Returns:
        Of x's shape and type; computed in float32 where x is narrower.
    """
    if torch.is_grad_enabled() and serves(x, cos, sin):
        if len(cos) != len(x):
            cos, sin = (part.expand(len(x), -1, -1, -1) for part in (cos, sin))
        return _Native.apply(x, cos.float().contiguous(), sin.float().contiguous())
    if x.element_size() < cos.element_size():
        return rotate(x.float(), cos, sin).to(x.dtype)
    half = cos.shape[-1]
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    turned = torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)
    return torch.cat((*turned, rest) if rest.shape[-1] else turned, dim=-1)


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: float) -> torch.Tensor:
    rows = x.reshape(-1, x.shape[2] * x.shape[3])
    y = torch.empty(x.shape, dtype=x.dtype)
    library().rotate(capsule(rows), capsule(cos), capsule(sin), capsule(y), x.shape[3], sign)
    return y


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, -1.0), None, None
