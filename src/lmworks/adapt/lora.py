"""Low rank over any linear: y = base(x) + alpha / r * (dropout(x) A^T) B^T. Knows no file format and no model.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from lmworks.adapt.settings import LoRASettings
from lmworks.kernels.dropout import dropout
from lmworks.model.products import merged_linear

__all__ = ["LoRALinear", "LoRASettings"]


class LoRALinear(nn.Module):
    """A linear with a trainable low-rank update beside it.

    The wrapped linear is frozen, so autograd keeps its input for A's gradient alone, and linears that read the same
    input (q, k, v) share that one tensor. A and B stay float32 whatever the base's precision; they are cast where
    they are used.

    Args:
        base: the linear to wrap: any module with ``in_features``, ``out_features`` and ``forward``.
        rank: r.
        scale: what the update is multiplied by (alpha / r).
        dropout: part of the update's input set to zero while training.
        generator: random numbers of A's start; B starts at zero, so the first update is nothing.
    """

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        scale: float,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features: int = int(base.in_features)  # type: ignore[arg-type]
        self.out_features: int = int(base.out_features)  # type: ignore[arg-type]
        self.base = base
        self.rank, self.scale, self.dropout = rank, scale, dropout
        self.enabled = True
        self._unmerged: nn.Parameter | None = None
        base.requires_grad_(False)
        device = next((tensor.device for tensor in (*base.parameters(), *base.buffers())), torch.device("cpu"))
        start = torch.empty(rank, self.in_features)
        # The bound of Kaiming's uniform start with a = sqrt(5), as PEFT starts A.
        start.uniform_(-1 / math.sqrt(self.in_features), 1 / math.sqrt(self.in_features), generator=generator)
        self.lora_A = nn.Parameter(start.to(device))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, device=device))

    @property
    def merged(self) -> bool:
        """Whether the base's weight holds the update already."""
        return self._unmerged is not None

    @property
    def active(self) -> bool:
        """Whether the update is computed beside the base: neither switched off nor part of the base's weight."""
        return self.enabled and not self.merged

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in_features) -> (..., out_features), in x's precision, or autocast's."""
        if self._rounds(x):
            return merged_linear(x.to(torch.bfloat16), self)
        y = self.base(x)
        if not self.active:
            return y
        x = dropout(x, self.dropout) if self.training else x
        low = functional.linear(x.to(y.dtype), self.lora_A.to(y.dtype)).flatten(0, -2)
        # One call adds the product to the base's output: no second pass over (..., out_features).
        return torch.addmm(y.flatten(0, -2), low, self.lora_B.to(y.dtype).t(), alpha=self.scale).view_as(y)

    def _rounds(self, x: torch.Tensor) -> bool:
        """Whether products are made in bfloat16 over a plain float32 base, which rounds away what is added to them."""
        if not self.active or (self.dropout and self.training) or type(self.base) is not nn.Linear:
            return False
        autocast = torch.is_autocast_enabled(x.device.type)
        width = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
        return width == torch.bfloat16 and self.base.weight.dtype == torch.float32

    def update(self) -> torch.Tensor:
        """The update as one matrix, scale * B A: (out_features, in_features) float32, from float64 sums."""
        return (self.scale * (self.lora_B.double() @ self.lora_A.double())).float()

    @torch.no_grad()
    def merge(self) -> None:
        """Put the update into the base's weight; the old weight is kept, so that unmerge is exact.

        Raises:
            TypeError: the base has no plain weight to add to.
        """
        if self.merged:
            return
        weight = getattr(self.base, "weight", None)
        if not isinstance(weight, nn.Parameter) or not weight.dtype.is_floating_point:
            raise TypeError(f"an update cannot be merged into a {type(self.base).__name__}")
        self._unmerged = weight
        total = weight.double().add_(self.lora_B.double() @ self.lora_A.double(), alpha=self.scale)
        self.base.weight = nn.Parameter(total.to(weight.dtype), requires_grad=False)

    def unmerge(self) -> None:
        """Give the base its own weight again, bit for bit."""
        if self._unmerged is not None:
            self.base.weight, self._unmerged = self._unmerged, None

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scale={self.scale:g}, dropout={self.dropout:g}, enabled={self.enabled}"
