"""Which parameters of a network are trained, by name and shape; and networks without storage, for asking early."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import nn

from lmworks.model.config import ModelConfig
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
        base = _names(network.config)
        own: dict[str, tuple[int, ...]] = {}
        added: dict[str, tuple[int, ...]] = {}
        frozen = 0
        for name, parameter in network.named_parameters():
            plain = name.replace(WRAPPED, ".")
            if parameter.requires_grad:
                (own if plain in base else added)[plain] = tuple(parameter.shape)
            elif plain in base:
                frozen += parameter.numel()
        return cls(own, added, frozen)

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
def _names(config: ModelConfig) -> frozenset[str]:
    return frozenset(name for name, _ in without_storage(config).named_parameters())


def trainable_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """What training changes, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
