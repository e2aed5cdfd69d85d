"""LayerNorm and RMSNorm, computed in float32 for activations of any precision."""

from __future__ import annotations

import torch
from torch import nn

from lmworks.kernels.norms import layer_norm, rms_norm
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


class OffsetRMSNorm(RMSNorm):
    """RMSNorm whose weights are stored as weight - 1 (Gemma)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps)
        nn.init.zeros_(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., size)."""
        return rms_norm(x, 1.0 + self.weight.float(), self.eps)


class LayerNorm(nn.LayerNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimension (Ba et al. 2016)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., size) -> (..., size)."""
        return layer_norm(x, self.weight, self.bias, self.eps)


def make_norm(config: ModelConfig, size: int | None = None) -> nn.Module:
    """The config's norm over ``size`` elements (default: hidden_size)."""
    return NORMS[config.norm](size or config.hidden_size, config.norm_eps)


NORMS: dict[str, type[nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm, "rms_offset": OffsetRMSNorm}
