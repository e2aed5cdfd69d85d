"""RMSNorm and LayerNorm over the last dimension: their definitions in PyTorch, and kernels that make one pass.

For training, both keep the input and a number or two a row, not the intermediate tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from lmworks.kernels.library import library
from lmworks.kernels.native import capsule, serves


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019, eq. 4); in float32 whatever the width of x.

    Args:
        x: (..., size).
        weight: (size,).
        eps: added to the mean square.
    """
    if torch.is_grad_enabled():
        return _NativeRMS.apply(x, weight, eps) if serves(x, weight) else _ScaledByRMS.apply(x, weight, eps)
    wide = x.float()
    if x.numel() == weight.numel() and x.is_cpu:  # one token: a product and a number, no passes over tensors
        flat = wide.view(-1)
        return (wide * (float(flat.dot(flat)) / flat.numel() + eps) ** -0.5).mul_(weight).to(x.dtype)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).mul_(weight).to(x.dtype)


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias (Ba et al. 2016); in float32 whatever the width of x.

    Args:
        x: (..., size).
        weight, bias: (size,).
        eps: added to the variance.
    """
    if torch.is_grad_enabled() and serves(x, weight, bias):
        return _NativeLayer.apply(x, weight, bias, eps)
    if x.dtype == torch.float32:
        return functional.layer_norm(x, weight.shape, weight, bias, eps)
    shift = None if bias is None else bias.float()
    return functional.layer_norm(x.float(), weight.shape, weight.float(), shift, eps).to(x.dtype)


class _ScaledByRMS(torch.autograd.Function):
    """RMSNorm that keeps its input and one number a row, not the four tensors that autograd would."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        grad, unit = grad.float(), x.float() * scale
        weight_grad = None
        if ctx.needs_input_grad[1]:
            weight_grad = (grad * unit).reshape(-1, x.shape[-1]).sum(0).to(weight.dtype)
        inner = grad * weight
        along = (inner * unit).mean(-1, keepdim=True)
        x_grad = inner.sub_(unit.mul_(along)).mul_(scale).to(x.dtype)
        return x_grad, weight_grad, None


class _NativeRMS(torch.autograd.Function):
    """The same in one pass each way."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        y, scale = torch.empty_like(x), x.new_empty(x.numel() // weight.numel(), dtype=torch.float32)
        library().rms_norm(capsule(x), capsule(weight), capsule(y), capsule(scale), eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        grad, x_grad = grad.contiguous(), torch.empty_like(x)
        weight_grad = _zeros(weight) if ctx.needs_input_grad[1] else None
        library().rms_norm_back(
            capsule(x), capsule(weight), capsule(scale), capsule(grad), capsule(x_grad), _maybe(weight_grad)
        )
        return x_grad, _as(weight, weight_grad), None


class _NativeLayer(torch.autograd.Function):
    """LayerNorm in one pass each way."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        rows = x.numel() // weight.numel()
        y, (mean, scale) = torch.empty_like(x), x.new_empty(2, rows, dtype=torch.float32)
        library().layer_norm(capsule(x), capsule(weight), _maybe(bias), capsule(y), capsule(mean), capsule(scale), eps)
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        grad, x_grad = grad.contiguous(), torch.empty_like(x)
        weight_grad = _zeros(weight) if ctx.needs_input_grad[1] else None
        bias_grad = _zeros(weight) if ctx.needs_input_grad[2] else None
        library().layer_norm_back(
            capsule(x), capsule(weight), capsule(mean), capsule(scale), capsule(grad), capsule(x_grad),
            _maybe(weight_grad), _maybe(bias_grad),
        )  # fmt: skip
        return x_grad, _as(weight, weight_grad), _as(weight, bias_grad), None


def _zeros(weight: torch.Tensor) -> torch.Tensor:
    """Where a kernel adds up the gradient of a weight: float32 whatever its width."""
    return torch.zeros_like(weight, dtype=torch.float32)


def _as(weight: torch.Tensor, grad: torch.Tensor | None) -> torch.Tensor | None:
    return None if grad is None else grad.to(weight.dtype)


def _maybe(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else capsule(tensor)
