"""LayerNorm and RMSNorm, computed in float32 whatever the width of the activations."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from lmworks.model.config import ModelConfig


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., size)."""
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension."""
    if torch.is_grad_enabled():
        return _ScaledByRMS.apply(x, weight, eps)
    wide = x.float()
    if x.numel() == weight.numel() and x.is_cpu:  # one token: a product and a number, no passes over tensors
        flat = wide.view(-1)
        return (wide * (float(flat.dot(flat)) / flat.numel() + eps) ** -0.5).mul_(weight).to(x.dtype)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).mul_(weight).to(x.dtype)


class _ScaledByRMS(torch.autograd.Function):
    """RMSNorm that keeps its input and one number a row, not the four tensors that autograd would."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        grad, unit = grad.float(), x.float() * scale
        weight_grad = None
        if ctx.needs_input_grad[1]:
            weight_grad = (grad * unit).reshape(-1, x.shape[-1]).sum(0).to(weight.dtype)
        inner = grad * weight
        along = (inner * unit).mean(-1, keepdim=True)
        x_grad = inner.sub_(unit.mul_(along)).mul_(scale).to(x.dtype)
        return x_grad, weight_grad, None


class OffsetRMSNorm(RMSNorm):
    """RMSNorm whose weights are kept as their distance from 1 (Gemma)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps)
        nn.init.zeros_(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., size)."""
        return rms_norm(x, 1.0 + self.weight.float(), self.eps)


class LayerNorm(nn.LayerNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimension (Ba et al. 2016)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float32:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        wide = functional.layer_norm(x.float(), self.normalized_shape, self.weight.float(), bias, self.eps)
        return wide.to(x.dtype)


def make_norm(config: ModelConfig, size: int | None = None) -> nn.Module:
    """The config's norm over ``size`` elements (default: hidden_size)."""
    return NORMS[config.norm](size or config.hidden_size, config.norm_eps)


NORMS: dict[str, type[nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm, "rms_offset": OffsetRMSNorm}
