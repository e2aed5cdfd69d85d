"""Which parameters of a network are trained, by name and shape; networks without storage, to know it from a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

import torch
from torch.overrides import TorchFunctionMode

from lmworks.model.config import ModelConfig
from lmworks.model.linear_parameters import is_fused_adapter
from lmworks.model.sizes import LinearShape, linears
from lmworks.model.transformer import Transformer

WRAPPED = ".base."  # part of the name of a base parameter inside an adapter
SOFT_PROMPT, PREFIX = "virtual_tokens.embeddings", "virtual_tokens.keys_and_values"  # of model/virtual_tokens


@dataclass(frozen=True)
class TrainedParameters:
    """The trained parameters of a model.

    Attributes:
        own: trained parameters of the model itself: shapes by name.
        added: trained parameters of adapters: shapes by name.
        frozen: number of elements of the model's frozen parameters.
        saved: elements per token that adapters save for the backward pass, by the names of their linears.
        inputs: names of the linears whose input an adapter saves besides.
    """

    own: dict[str, tuple[int, ...]]
    added: dict[str, tuple[int, ...]]
    frozen: int
    saved: dict[str, int] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, network: Transformer) -> TrainedParameters:
        """The parameters of a network that require a gradient."""
        base = _sizes(network.config)
        own: dict[str, tuple[int, ...]] = {}
        added: dict[str, tuple[int, ...]] = {}
        for wrapped, parameter in network.named_parameters():
            name = wrapped.replace(WRAPPED, ".")
            if parameter.requires_grad:
                (own if name in base else added)[name] = tuple(parameter.shape)
        frozen = sum(size for name, size in base.items() if name not in own)
        adapters = {name: module for name, module in network.named_modules() if is_fused_adapter(module)}
        saved = {name: module.saved_elements for name, module in adapters.items()}
        return cls(own, added, frozen, saved, frozenset(name for name in adapters if adapters[name].saves_input))

    @property
    def names(self) -> list[str]:
        """All names, those of the model first."""
        return [*self.own, *self.added]

    def has(self, *beginnings: str) -> bool:
        """Whether a trained parameter's name begins with one of these."""
        return any(name.startswith(beginnings) for name in self.names)

    def added_to(self, module: str) -> int:
        """Number of elements that an adapter added to one module."""
        return sum(prod(shape) for name, shape in self.added.items() if name.startswith(f"{module}."))

    def linears(self, config: ModelConfig) -> list[LinearShape]:
        """The blocks' matrices whose input is saved for the backward pass: trained ones, and those of adapters that
        read it."""
        return [linear for linear in linears(config) if linear.weight_name in self.own or linear.name in self.inputs]

    @property
    def soft_prompt(self) -> int:
        """Virtual tokens that pass through all layers before every document."""
        return self.added[SOFT_PROMPT][0] if SOFT_PROMPT in self.added else 0

    @property
    def prefix(self) -> int:
        """Virtual tokens that attention alone reads before every document."""
        return self.added[PREFIX][2] if PREFIX in self.added else 0

    @property
    def count(self) -> int:
        """Number of trained elements."""
        return sum(prod(shape) for shape in (*self.own.values(), *self.added.values()))

    @property
    def count_added(self) -> int:
        """Number of trained elements that adapters added."""
        return sum(prod(shape) for shape in self.added.values())

    @property
    def is_whole(self) -> bool:
        """Whether every parameter of the model is trained."""
        return not self.frozen


class _Undrawn(TorchFunctionMode):
    """Leaves new weights undrawn. Numbers drawn for a tensor without memory are for nothing, and the first of them
    makes torch import its compiler, which takes longer than opening a small model, and 130 MB."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def meta_network(config: ModelConfig) -> Transformer:
    """A network on the device ``meta``, which takes no memory: modules, names and shapes without numbers."""
    with torch.device("meta"), _Undrawn():
        return Transformer(config)


@lru_cache(maxsize=8)
def _sizes(config: ModelConfig) -> Mapping[str, int]:
    """Number of elements of each parameter of a model, by name."""
    return {name: parameter.numel() for name, parameter in meta_network(config).named_parameters()}
