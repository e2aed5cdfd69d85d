"""RMSNorm and LayerNorm over the last dimension: their definitions in PyTorch, and native kernels with one pass.

For the backward pass they save the input and one or two numbers per row, not the intermediate tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from lmworks.kernels.dispatch import supports, to_dlpack
from lmworks.kernels.native_module import native_module


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019, eq. 4); computed in float32, returned in x's dtype.

    Args:
        x: (..., E).
        weight: (E,).
        eps: added to the mean of the squares.
    """
    if torch.is_grad_enabled():
        return _NativeRMSNorm.apply(x, weight, eps) if supports(x, weight) else _RMSNorm.apply(x, weight, eps)
    x32 = x.float()
    if x.numel() == weight.numel() and x.is_cpu:  # one token: a dot product and a scalar need fewer passes
        flat = x32.view(-1)
        return (x32 * (float(flat.dot(flat)) / flat.numel() + eps) ** -0.5).mul_(weight).to(x.dtype)
    scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)
    return (x32 * scale).mul_(weight).to(x.dtype)


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias (Ba et al. 2016); computed in float32, returned in x's dtype.

    Args:
        x: (..., E).
        weight, bias: (E,).
        eps: added to the variance.
    """
    if torch.is_grad_enabled() and supports(x, weight, bias):
        return _NativeLayerNorm.apply(x, weight, bias, eps)
    if x.dtype == torch.float32:
        return functional.layer_norm(x, weight.shape, weight, bias, eps)
    bias = None if bias is None else bias.float()
    return functional.layer_norm(x.float(), weight.shape, weight.float(), bias, eps).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """Saves the input and one number per row; autograd would save four tensors."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        x32 = x.float()
        scale = torch.linalg.vector_norm(x32, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x32 * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        grad_y, normalized = grad_y.float(), x.float() * scale
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad_y * normalized).reshape(-1, x.shape[-1]).sum(0).to(weight.dtype)
        grad_normalized = grad_y * weight
        projection = (grad_normalized * normalized).mean(-1, keepdim=True)
        grad_x = grad_normalized.sub_(normalized.mul_(projection)).mul_(scale).to(x.dtype)
        return grad_x, grad_weight, None


class _NativeRMSNorm(torch.autograd.Function):
    """RMSNorm with one pass over the data forward and one backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        y, scale = torch.empty_like(x), x.new_empty(x.numel() // weight.numel(), dtype=torch.float32)
        native_module().rms_norm(*map(to_dlpack, (x, weight, y, scale)), eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        grad_y, grad_x = grad_y.contiguous(), torch.empty_like(x)
        grad_weight = _zeros_f32(weight) if ctx.needs_input_grad[1] else None
        native_module().rms_norm_backward(
            *map(to_dlpack, (x, weight, scale, grad_y, grad_x)), _optional_dlpack(grad_weight)
        )
        return grad_x, _cast_to(weight, grad_weight), None


class _NativeLayerNorm(torch.autograd.Function):
    """LayerNorm with one pass over the data forward and one backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        rows = x.numel() // weight.numel()
        y, (mean, scale) = torch.empty_like(x), x.new_empty(2, rows, dtype=torch.float32)
        inputs = to_dlpack(x), to_dlpack(weight), _optional_dlpack(bias)
        native_module().layer_norm(*inputs, *map(to_dlpack, (y, mean, scale)), eps)
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        grad_y, grad_x = grad_y.contiguous(), torch.empty_like(x)
        grad_weight = _zeros_f32(weight) if ctx.needs_input_grad[1] else None
        grad_bias = _zeros_f32(weight) if ctx.needs_input_grad[2] else None
        arrays = map(to_dlpack, (x, weight, mean, scale, grad_y, grad_x))
        native_module().layer_norm_backward(*arrays, _optional_dlpack(grad_weight), _optional_dlpack(grad_bias))
        return grad_x, _cast_to(weight, grad_weight), _cast_to(weight, grad_bias), None


def _zeros_f32(weight: torch.Tensor) -> torch.Tensor:
    """A buffer to which a kernel adds the gradient of a weight; float32 for any dtype of the weight."""
    return torch.zeros_like(weight, dtype=torch.float32)


def _cast_to(weight: torch.Tensor, grad: torch.Tensor | None) -> torch.Tensor | None:
    return None if grad is None else grad.to(weight.dtype)


def _optional_dlpack(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else to_dlpack(tensor.contiguous())
