"""The low-rank update of any linear: y = base(x) + alpha / r * (dropout(x) A^T) B^T. Knows no file format and no model.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3; with a magnitude for each output,
Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lmworks.adapt.adapters import Adapter, device_of
from lmworks.kernels.dropout import dropout
from lmworks.model.adapter_terms import LoRATerm
from lmworks.model.linear import linear
from lmworks.model.linear_parameters import is_supported
from lmworks.model.products import adapted_linear, product_dtype, rounds
from lmworks.model.row_factors import row_factors, row_norms
from lmworks.model.stored_layers import StoredLinear


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
        device = device_of(base)
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, device=device))
        if device.type != "meta":
            # The bound of Kaiming's uniform initialization with a = sqrt(5), as PEFT initializes A.
            bound = 1 / math.sqrt(self.in_features)
            initial = torch.empty(rank, self.in_features).uniform_(-bound, bound, generator=generator)
            self.lora_A.data.copy_(initial)
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in_features) -> (..., out_features), in x's precision, or autocast's."""
        if self._is_one_function() and rounds(x, self):
            return adapted_linear(x.to(torch.bfloat16), self)
        y = self.base(x)
        if not self.active:
            return y
        x = dropout(x, self.dropout) if self.training else x
        low = linear(x.to(y.dtype), self.lora_A.to(y.dtype)).flatten(0, -2)
        # addmm adds the update to the base's output without a second pass over (..., out_features).
        return torch.addmm(y.flatten(0, -2), low, self.lora_B.to(y.dtype).t(), alpha=self.scale).view_as(y)

    def _is_one_function(self) -> bool:
        """Whether model/products can compute it."""
        return self.active and not (self.dropout and self.training) and is_supported(self)

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


def weight_of(linear: nn.Module) -> torch.Tensor:
    """(out_features, in_features) of a frozen linear, in float32."""
    if isinstance(linear, StoredLinear):
        return linear.storage.dequantized()
    return linear.get_parameter("weight").detach().float()


class DoRALinear(LoRALinear):
    """A linear whose updated weight has rows of trained lengths: y = f (W x + s B A dropout(x)) + b, where the factor f
    of each output makes its row of W + s B A as long as its magnitude.

    Magnitudes start as the norms of W's rows, so that the initial update is zero here too. Arguments are those of
    :class:`LoRALinear`.
    """

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        scale: float,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(base, rank, scale, dropout, generator)
        self.lora_magnitude_vector = nn.Parameter(row_norms(weight_of(self.base)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in_features) -> (..., out_features), in x's precision, or autocast's.

        With dropout ``peft`` drops elements of the base's input as well; without, and in evaluation, both are equal.
        """
        if self._is_one_function():
            return adapted_linear(x.to(product_dtype(x)), self)
        y = super().forward(x)
        if not self.active:
            return y
        bias = getattr(self.base, "bias", None)
        factors = row_factors(self.lora_magnitude_vector, self._updated(weight_of(self.base))).to(y.dtype)
        return y * factors if bias is None else (y - bias.to(y.dtype)) * factors + bias.to(y.dtype)

    @property
    def saved_elements(self) -> int:
        """A x, and the output, from which the gradient of the magnitude is computed."""
        return self.rank + self.out_features

    def fused_term(self) -> tuple[LoRATerm, tuple[nn.Parameter, ...]]:
        """See :meth:`Adapter.fused_term`."""
        term, tensors = super().fused_term()
        return term, (*tensors, self.lora_magnitude_vector)

    def merged_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.merged_weight`."""
        merged = super().merged_weight(weight)
        return merged * row_factors(self.lora_magnitude_vector.double(), merged)[:, None]

    @torch.no_grad()
    def _updated(self, weight: torch.Tensor) -> torch.Tensor:
        """weight + s B A, as model/products adds it."""
        return torch.addmm(weight, self.lora_B, self.lora_A, alpha=self.scale)
