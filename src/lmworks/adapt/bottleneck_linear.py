"""A linear followed by a bottleneck: two small layers around an activation. Knows no file format and no model.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from lmworks.adapt.adapters import Adapter, device_of
from lmworks.kernels.activations import activate
from lmworks.kernels.native_module import NATIVE_ACTIVATIONS
from lmworks.model.adapter_terms import BottleneckTerm
from lmworks.model.linear import linear


class BottleneckLinear(Adapter):
    """y + up(act(down(y))), y = base(x).

    ``up`` starts as zeros, so that at first it computes what its base computes; Houlsby et al. start near that.

    Args:
        base: the linear to wrap: any module with ``in_features``, ``out_features`` and ``forward``.
        size: of the inner layer, r.
        activation: a key of kernels.activations.ACTIVATIONS.
        generator: for the initial values of ``down``.
    """

    mergeable: ClassVar[bool] = False

    def __init__(self, base: nn.Module, size: int, activation: str, generator: torch.Generator | None = None) -> None:
        super().__init__(base)
        self.size, self.activation = size, activation
        device = device_of(base)
        self.down = nn.Parameter(torch.empty(size, self.out_features, device=device))
        self.down_bias = nn.Parameter(torch.zeros(size, device=device))
        self.up = nn.Parameter(torch.zeros(self.out_features, size, device=device))
        self.up_bias = nn.Parameter(torch.zeros(self.out_features, device=device))
        if device.type != "meta":
            bound = 1 / math.sqrt(self.out_features)
            self.down.data.copy_(torch.empty(self.down.shape).uniform_(-bound, bound, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in_features) -> (..., out_features)."""
        y = self.base(x)
        if not self.active:
            return y
        low = linear(y, self.down.to(y.dtype), self.down_bias.to(y.dtype))
        return y + linear(activate(self.activation, low), self.up.to(y.dtype), self.up_bias.to(y.dtype))

    @property
    def saves_input(self) -> bool:
        """It reads the base's output alone."""
        return False

    @property
    def saved_elements(self) -> int:
        """The base's output, and the inner layer before and after its activation, which a fused block recomputes."""
        return self.out_features + 2 * self.size

    def fused_term(self) -> tuple[BottleneckTerm | None, tuple[nn.Parameter, ...]]:
        """See :meth:`Adapter.fused_term`."""
        if self.activation not in NATIVE_ACTIVATIONS:
            return None, ()
        term = BottleneckTerm(NATIVE_ACTIVATIONS[self.activation])
        return term, (self.down, self.down_bias, self.up, self.up_bias)

    def extra_repr(self) -> str:
        return f"size={self.size}, activation={self.activation}, enabled={self.enabled}"
