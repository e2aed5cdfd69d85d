"""Dropout (Srivastava et al. 2014) whose random numbers are cheap on a CPU.

PyTorch draws a float a number there and compares. In PyTorch's own operations, each draw of 64 bits serves four
numbers here, and masks are made by arithmetic on floats, which is many times faster than comparing; a rate is met to
one part in 65,536. The kernels make the factors from a seed and the place alone, so nothing is kept for the way back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from lmworks.kernels.library import library
from lmworks.kernels.native import capsule, serves

STEPS = 1 << 16  # values of the 16 bits that decide about one number


def dropout(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Zero each number with probability ``rate`` and divide the others by 1 - rate; for training.

    What is drawn follows from torch's default generator.
    """
    if rate == 0:
        return x
    if serves(x):
        return _Native.apply(None, x, rate)
    return _Dropout.apply(x, rate) if x.is_cpu else functional.dropout(x, rate)


def add_dropped(x: torch.Tensor, part: torch.Tensor, rate: float) -> torch.Tensor:
    """x + dropout(part): a residual."""
    if rate == 0:
        return x + part
    return _Native.apply(x, part, rate) if serves(x, part) and x.dtype == part.dtype else x + dropout(part, rate)


def draw_seed() -> int:
    """A seed from torch's default generator."""
    return int(torch.empty((), dtype=torch.int64).random_())


def _factors(count: int, rate: float) -> torch.Tensor:
    """(count,) float32: 0 with probability ``rate``, else 1 / (1 - rate)."""
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)[:count]
    last_dropped = round(rate * STEPS) - STEPS // 2 - 1
    return bits.float().sub_(last_dropped).clamp_(0, 1).mul_(1 / (1 - rate))


class _Dropout(torch.autograd.Function):
    """Keeps the factors alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rate: float) -> torch.Tensor:
        factors = _factors(x.numel(), rate).view(x.shape).to(x.dtype)
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad * ctx.saved_tensors[0], None


class _Native(torch.autograd.Function):
    """x + dropout(part), or dropout(part) where x is None; keeps the seed alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor | None, part: torch.Tensor, rate: float) -> torch.Tensor:
        part, y, ctx.rate, ctx.seed = part.contiguous(), torch.empty_like(part), rate, draw_seed()
        if x is None:
            library().drop(capsule(part), capsule(y), rate, ctx.seed)
        else:
            library().add_dropped(capsule(x.contiguous()), capsule(part), capsule(y), rate, ctx.seed)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None]:
        grad = grad.contiguous()
        part_grad = torch.empty_like(grad)
        library().drop(capsule(grad), capsule(part_grad), ctx.rate, ctx.seed)
        return (grad if ctx.needs_input_grad[0] else None), part_grad, None
