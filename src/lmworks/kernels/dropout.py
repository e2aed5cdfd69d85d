"""Dropout (Srivastava et al. 2014) with random numbers that are cheap on a CPU.

PyTorch draws one random float per element on a CPU and compares it with the rate. The PyTorch definition here draws 64
bits for four elements and computes the mask with float arithmetic, which is many times faster than comparing; the rate
is rounded to a multiple of 1/65,536. The native kernels compute each element's factor from a seed and the element's
index, so the backward pass recomputes the factors and no mask is saved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from lmworks.kernels.dispatch import supports, to_dlpack
from lmworks.kernels.native_module import native_module

LEVELS = 1 << 16  # values of the 16 random bits that one element gets


def dropout(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Zero each element with probability ``rate`` and divide the others by 1 - rate; for training.

    The random numbers come from torch's default generator.

    Args:
        x: any shape.
        rate: at least 0, below 1.
    """
    if rate == 0:
        return x
    if supports(x):
        return _NativeDropout.apply(None, x, rate)
    return _Dropout.apply(x, rate) if x.is_cpu else functional.dropout(x, rate)


def dropout_add(residual: torch.Tensor, x: torch.Tensor, rate: float) -> torch.Tensor:
    """residual + dropout(x), in one pass where the kernels run; both of one shape."""
    if rate == 0:
        return residual + x
    native = supports(residual, x) and residual.dtype == x.dtype
    return _NativeDropout.apply(residual, x, rate) if native else residual + dropout(x, rate)


def draw_seed() -> int:
    """A seed from torch's default generator."""
    return int(torch.empty((), dtype=torch.int64).random_())


def _factors(count: int, rate: float) -> torch.Tensor:
    """(count,) float32: 0 with probability ``rate``, else 1 / (1 - rate)."""
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)[:count]
    highest_dropped = round(rate * LEVELS) - LEVELS // 2 - 1
    return bits.float().sub_(highest_dropped).clamp_(0, 1).mul_(1 / (1 - rate))


class _Dropout(torch.autograd.Function):
    """The definition; saves the factors only."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rate: float) -> torch.Tensor:
        factors = _factors(x.numel(), rate).view(x.shape).to(x.dtype)
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad_y * ctx.saved_tensors[0], None


class _NativeDropout(torch.autograd.Function):
    """residual + dropout(x), or dropout(x) where residual is None; saves the seed only."""

    @staticmethod
    def forward(ctx: Any, residual: torch.Tensor | None, x: torch.Tensor, rate: float) -> torch.Tensor:
        x, ctx.rate, ctx.seed = x.contiguous(), rate, draw_seed()
        y = torch.empty_like(x)
        if residual is None:
            native_module().dropout(to_dlpack(x), to_dlpack(y), rate, ctx.seed)
        else:
            native_module().dropout_add(to_dlpack(residual.contiguous()), to_dlpack(x), to_dlpack(y), rate, ctx.seed)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None]:
        grad_y = grad_y.contiguous()
        grad_x = torch.empty_like(grad_y)
        native_module().dropout(to_dlpack(grad_y), to_dlpack(grad_x), ctx.rate, ctx.seed)
        return (grad_y if ctx.needs_input_grad[0] else None), grad_x, None
