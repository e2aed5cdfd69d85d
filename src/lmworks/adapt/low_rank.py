"""The low-rank update of any linear: y = base(x) + alpha / r * (dropout(x) A^T) B^T. Knows no file format and no model.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lmworks.adapt.adapters import Adapter
from lmworks.kernels.dropout import dropout
from lmworks.model.adapter_terms import LoRATerm
from lmworks.model.linear import linear
from lmworks.model.linear_parameters import is_supported
from lmworks.model.products import merged_linear


class LoRALinear(Adapter):
    """A linear with a trainable low-rank update.

    The wrapped linear is frozen, so autograd saves its input only for the gradient of A, and linears with the same
    input (q, k, v) share the saved tensor. A and B are float32 for any precision of the base; they are cast where
    they are used.

    Args:
        base: the linear to wrap: any module with ``in_features``, ``out_features`` and ``forward``.
        rank: r.
        scale: factor of the update (alpha / r).
        dropout: dropout rate of the update's input in training.
        generator: for A's initial values; B starts at zero, so the initial update is zero.
    """

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        scale: float,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(base)
        self.rank, self.scale, self.dropout = rank, scale, dropout
        device = next((tensor.device for tensor in (*base.parameters(), *base.buffers())), torch.device("cpu"))
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, device=device))
        if device.type != "meta":
            # The bound of Kaiming's uniform initialization with a = sqrt(5), as PEFT initializes A.
            bound = 1 / math.sqrt(self.in_features)
            initial = torch.empty(rank, self.in_features).uniform_(-bound, bound, generator=generator)
            self.lora_A.data.copy_(initial)
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in_features) -> (..., out_features), in x's precision, or autocast's."""
        if self._rounds(x):
            return merged_linear(x.to(torch.bfloat16), self)
        y = self.base(x)
        if not self.active:
            return y
        x = dropout(x, self.dropout) if self.training else x
        low = linear(x.to(y.dtype), self.lora_A.to(y.dtype)).flatten(0, -2)
        # addmm adds the update to the base's output without a second pass over (..., out_features).
        return torch.addmm(y.flatten(0, -2), low, self.lora_B.to(y.dtype).t(), alpha=self.scale).view_as(y)

    def _rounds(self, x: torch.Tensor) -> bool:
        """Whether x is multiplied in bfloat16 by a float32 base. Rounding would remove a small update of the output, so
        the update is added to the weight."""
        if not self.active or (self.dropout and self.training) or not is_supported(self):
            return False
        autocast = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
        plain = not isinstance(self.base, nn.Linear) or self.base.weight.dtype == torch.float32
        return dtype == torch.bfloat16 and plain

    @property
    def saved_elements(self) -> int:
        """A x."""
        return self.rank

    def fused_term(self) -> tuple[LoRATerm, tuple[nn.Parameter, ...]]:
        """See :meth:`Adapter.fused_term`."""
        return LoRATerm(self.scale, self.dropout if self.training else 0.0), (self.lora_A, self.lora_B)

    def merged_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.merged_weight`."""
        return weight.double().add_(self.lora_B.double() @ self.lora_A.double(), alpha=self.scale)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scale={self.scale:g}, dropout={self.dropout:g}, enabled={self.enabled}"
