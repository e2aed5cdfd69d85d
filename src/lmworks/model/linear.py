"""The linear of all models: its products are computed by the matmul providers that were chosen for this machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lmworks.kernels import matmul
from lmworks.model import accumulation


class Linear(nn.Linear):
    """x (..., in_features) -> (..., out_features): x W^T + b."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return linear(x, self.weight, self.bias)


PLAIN_LINEARS = (nn.Linear, Linear)
"""Modules that compute x W^T + b and nothing else, compared by type: a subclass may compute something else."""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x (..., in) -> (..., out): x W^T + bias; float32 on a CPU by the chosen provider (kernels/matmul)."""
    if not matmul.has_choice() or not _is_supported(x, weight):
        return functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (x, weight, bias)):
        return _Linear.apply(x, weight, bias)
    return flat_product(x, weight, bias)


def _is_supported(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return x.is_cpu and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and x.ndim > 1


def flat_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x (..., in) -> (..., out): x W^T + bias as one matrix product over all tokens; autograd does not record it."""
    y = matmul.matmul(x.reshape(-1, x.shape[-1]).contiguous(), weight.t(), bias)
    return y.view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return flat_product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        flat_grad = grad_y.reshape(-1, grad_y.shape[-1]).contiguous()
        grad_x = grad_weight = None
        if needs_x:
            grad_x = matmul.matmul(flat_grad, weight).view(*grad_y.shape[:-1], -1)
        if needs_weight:
            grad_weight = accumulation.weight_gradient(
                weight, flat_grad, x.reshape(flat_grad.shape[0], -1).contiguous()
            )
        return grad_x, grad_weight, flat_grad.sum(0) if needs_bias else None
