"""A linear whose output or input is scaled by a learned vector. Knows no file format and no model.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", section 3.3.
"""

from __future__ import annotations

import torch
from torch import nn

from lmworks.adapt.adapters import Adapter, device_of
from lmworks.model.adapter_terms import ScaleTerm, scale
from lmworks.model.products import adapted_linear, rounds


class ScaledLinear(Adapter):
    """l * base(x), or base(l * x). The vector l starts as ones: at first it computes what its base computes.

    Args:
        base: the linear to wrap: any module with ``in_features``, ``out_features`` and ``forward``.
        of_input: whether its input is scaled; else its output, with the bias.
    """

    def __init__(self, base: nn.Module, of_input: bool) -> None:
        super().__init__(base)
        self.of_input = of_input
        device = device_of(base)
        self.ia3_l = nn.Parameter(torch.ones(self.in_features if of_input else self.out_features, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in_features) -> (..., out_features)."""
        if not self.active:
            return self.base(x)
        if rounds(x, self):
            return adapted_linear(x.to(torch.bfloat16), self)
        return self.base(scale(x, self.ia3_l)) if self.of_input else scale(self.base(x), self.ia3_l)

    @property
    def saves_input(self) -> bool:
        """Whether it is scaled."""
        return self.of_input

    @property
    def saved_elements(self) -> int:
        """The output, if that is scaled; some of a fused block's outputs are saved anyway."""
        return 0 if self.of_input else self.out_features

    def fused_term(self) -> tuple[ScaleTerm, tuple[nn.Parameter, ...]]:
        """See :meth:`Adapter.fused_term`."""
        return ScaleTerm(self.of_input), (self.ia3_l,)

    def merged_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """See :meth:`Adapter.merged_weight`: columns are scaled with the input, rows with the output."""
        return weight.double() * (self.ia3_l if self.of_input else self.ia3_l[:, None])

    def merged_bias(self, bias: nn.Parameter) -> torch.Tensor:
        """See :meth:`Adapter.merged_bias`."""
        return bias if self.of_input else bias.double() * self.ia3_l

    def extra_repr(self) -> str:
        return f"of_input={self.of_input}, enabled={self.enabled}"
