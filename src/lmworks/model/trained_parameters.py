"""Which parameters of a network are trained, by name and shape; and networks without storage, for asking early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch

from lmworks.model.config import ModelConfig
from lmworks.model.sizes import Linear, linears
from lmworks.model.transformer import Transformer

WRAPPED = ".base."  # in the name of a parameter of the base that an adapter has wrapped


@dataclass(frozen=True)
class TrainedParameters:
    """What training changes.

    Attributes:
        own: shapes by name of the model's own parameters that are trained.
        added: shapes by name of trained parameters that an adapter added.
        frozen: numbers of the model's own that are not trained.
    """

    own: dict[str, tuple[int, ...]]
    added: dict[str, tuple[int, ...]]
    frozen: int

    @classmethod
    def of(cls, network: Transformer) -> TrainedParameters:
        """Of a network: what requires a gradient."""
        base = _sizes(network.config)
        own: dict[str, tuple[int, ...]] = {}
        added: dict[str, tuple[int, ...]] = {}
        for wrapped, parameter in network.named_parameters():
            name = wrapped.replace(WRAPPED, ".")
            if parameter.requires_grad:
                (own if name in base else added)[name] = tuple(parameter.shape)
        return cls(own, added, sum(size for name, size in base.items() if name not in own))

    @property
    def names(self) -> list[str]:
        """All of them, those of the model first."""
        return [*self.own, *self.added]

    def has(self, *beginnings: str) -> bool:
        """Whether one's name begins so."""
        return any(name.startswith(beginnings) for name in self.names)

    def added_to(self, module: str) -> int:
        """Numbers that were added beside one module."""
        return sum(prod(shape) for name, shape in self.added.items() if name.startswith(f"{module}."))

    def linears(self, config: ModelConfig) -> list[Linear]:
        """The blocks' matrices whose input is saved: trained themselves, or with something trained beside them."""
        return [
            linear for linear in linears(config) if f"{linear.name}.weight" in self.own or self.added_to(linear.name)
        ]

    @property
    def rank(self) -> int:
        """Of the matrices that were added, the largest inner size: numbers saved for each token beside a linear."""
        return max((min(shape) for shape in self.added.values() if len(shape) == 2), default=0)

    @property
    def count(self) -> int:
        """Trained numbers."""
        return sum(prod(shape) for shape in (*self.own.values(), *self.added.values()))

    @property
    def count_added(self) -> int:
        """Of those, the numbers that the model did not have."""
        return sum(prod(shape) for shape in self.added.values())

    @property
    def is_whole(self) -> bool:
        """Whether every parameter of the model is trained."""
        return not self.frozen


def without_storage(config: ModelConfig) -> Transformer:
    """A network on the device ``meta``: modules, names and shapes, no numbers."""
    with torch.device("meta"):
        return Transformer(config)


@lru_cache(maxsize=8)
def _sizes(config: ModelConfig) -> Mapping[str, int]:
    """Of all parameters of a model, by name."""
    return {name: parameter.numel() for name, parameter in without_storage(config).named_parameters()}
