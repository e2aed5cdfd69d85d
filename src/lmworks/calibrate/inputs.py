"""What the linears of a block read on calibration rows: sums over tokens, collected by hooks; no inputs are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn


@dataclass
class LinearInputs:
    """The inputs x (tokens, in) of linears that read the same tensor, as sums over tokens.

    Attributes:
        names: of the linears.
        products: (in, in) float32: x^T x.
        magnitudes: (in,) float32: sums of |x|.
        tokens: how many were read.
    """

    names: list[str]
    products: torch.Tensor
    magnitudes: torch.Tensor
    tokens: int = 0

    @classmethod
    def zeros(cls, name: str, features: int) -> LinearInputs:
        """Nothing read yet, by a linear of so many in_features."""
        return cls([name], torch.zeros(features, features), torch.zeros(features))

    def add(self, x: torch.Tensor) -> None:
        """Add inputs (..., in)."""
        flat = x.detach().flatten(0, -2).float()
        self.products.addmm_(flat.t(), flat)
        self.magnitudes += flat.abs().sum(0)
        self.tokens += len(flat)

    def divided(self, scales: torch.Tensor) -> LinearInputs:
        """The sums of x / scales, with scales (in,) above 0."""
        products = self.products / scales[:, None] / scales
        return replace(self, products=products, magnitudes=self.magnitudes / scales)


@contextmanager
def record_inputs(linears: Mapping[str, nn.Module]) -> Iterator[list[LinearInputs]]:
    """Within this block, what linears read is added up; those that are called with the same tensor, one after another,
    share their sums.

    Args:
        linears: by name.

    Yields:
        The sums, which the calls within the block fill.
    """
    recorded: list[LinearInputs] = []
    first: dict[str, LinearInputs] = {}  # by the name of the linear that reads a tensor first
    # the tensor that was read last, and its sums; it is kept, as another tensor could get the memory of a freed one
    last: list[Any] = [None, None]

    def read(name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        x = arguments[0]
        if last[0] is x:
            if name not in last[1].names:
                last[1].names.append(name)
            return
        if name not in first:
            first[name] = LinearInputs.zeros(name, x.shape[-1])
            recorded.append(first[name])
        first[name].add(x)
        last[:] = x, first[name]

    handles = [module.register_forward_pre_hook(partial(read, name)) for name, module in linears.items()]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
        last[:] = None, None
