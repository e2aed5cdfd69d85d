"""Dropout (Srivastava et al. 2014) whose random numbers are cheap on a CPU.

PyTorch draws a float a number there and compares; here each draw of 64 bits serves four numbers, and masks are made by
arithmetic on floats, which is many times faster than comparing. A rate is met to one part in 65,536.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

STEPS = 1 << 16  # values of the 16 bits that decide about one number


def dropout(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Zero each number with probability ``rate`` and divide the others by 1 - rate; for training.

    What is drawn follows from torch's default generator.
    """
    if rate == 0:
        return x
    return _Dropout.apply(x, rate) if x.is_cpu else functional.dropout(x, rate)


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
