"""The tensors of a linear, with a LoRA term or without, as autograd functions pass them; and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from torch import nn

from lmworks.kernels.matmul import matmul
from lmworks.model import accumulation
from lmworks.model.accumulation import Update
from lmworks.model.linear import PLAIN_LINEARS
from lmworks.model.storage import WeightStorage
from lmworks.model.stored_layers import StoredLinear

OptionalTensor = torch.Tensor | None
TENSORS = 5  # per linear: weight, bias, A, B, magnitude


class LoRATerm(NamedTuple):
    """Scale s of a linear's LoRA term, and the dropout rate of its input."""

    scale: float = 0.0
    dropout: float = 0.0


@runtime_checkable
class LoRALinearProtocol(Protocol):
    """The attributes of a linear with a LoRA term that are used here; adapt/low_rank has the module."""

    base: nn.Module
    lora_A: nn.Parameter
    lora_B: nn.Parameter
    scale: float
    dropout: float
    training: bool

    @property
    def lora_magnitude_vector(self) -> nn.Parameter | None:
        """DoRA's magnitude (out_features,); None: the term is LoRA's."""

    @property
    def active(self) -> bool:
        """Whether the LoRA term is computed: neither disabled nor merged into the base's weight."""


_lora_types: dict[type, bool] = {}


def has_lora_term(module: nn.Module) -> TypeGuard[LoRALinearProtocol]:
    """Whether a module is a linear with a LoRA term, active or not.

    The answer is kept by type: Python's check of a protocol takes longer than a call of a small kernel.
    """
    known = _lora_types.get(type(module))
    if known is None:
        known = _lora_types[type(module)] = isinstance(module, LoRALinearProtocol)
    return known


class LinearConstants(NamedTuple):
    """The parts of a linear that are not tensors: settings of the LoRA term, and the storage of a frozen weight."""

    lora: LoRATerm = LoRATerm()
    storage: WeightStorage | None = None


class LinearParameters(NamedTuple):
    """A linear's tensors: weight (out, in), bias (out,), A (r, in), B (out, r), magnitude (out,); all None if there is
    no such linear.

    A frozen weight may be in ``constants.storage`` instead. ``place`` is the index of the weight among the tensors of
    an autograd function; the others follow it.
    """

    weight: OptionalTensor
    bias: OptionalTensor
    a: OptionalTensor
    b: OptionalTensor
    magnitude: OptionalTensor
    constants: LinearConstants
    place: int

    @classmethod
    def at(cls, place: int, tensors: Sequence[OptionalTensor], constants: LinearConstants) -> LinearParameters:
        """The linear whose weight is ``tensors[place]``."""
        weight, bias, a, b, magnitude = tensors[place : place + TENSORS]
        return cls(weight, bias, a, b, magnitude, constants, place)

    @property
    def lora(self) -> LoRATerm:
        """Scale and dropout of its LoRA term."""
        return self.constants.lora

    @property
    def update(self) -> Update:
        """Its LoRA term, which it has."""
        assert self.a is not None
        assert self.b is not None
        return Update(self.a, self.b, self.magnitude, self.lora.scale)

    @property
    def exists(self) -> bool:
        """Whether there is such a linear."""
        return self.weight is not None or self.constants.storage is not None


class Gradients:
    """Gradients of the tensors of an autograd function, by their index among its arguments.

    Args:
        tensors: the arguments.
        needed: which of them need a gradient (``ctx.needs_input_grad``).
    """

    def __init__(self, tensors: Sequence[OptionalTensor], needed: Sequence[bool]) -> None:
        self.tensors, self.needed = tensors, needed
        self.values: list[OptionalTensor] = [None] * len(needed)

    def needs_input(self, linear: LinearParameters) -> bool:
        """Whether a gradient of this linear (of its weight or of A) is computed from the linear's input."""
        return self.needed[linear.place] or self.needed[linear.place + 2]

    def set_product(self, place: int, left: torch.Tensor, right: OptionalTensor, scale: float = 1.0) -> None:
        """Compute the gradient at an index as scale * left^T right."""
        if not self.needed[place]:
            return
        weight = self.tensors[place]
        assert weight is not None
        assert right is not None
        self.values[place] = accumulation.weight_gradient(weight, left, right, scale)

    def set_products(self, places: Sequence[int], left: torch.Tensor, right: OptionalTensor) -> None:
        """Compute the gradients at several indices as left^T right, whose rows belong to them in turn; one product if
        all are needed."""
        weights = [self.tensors[place] for place in places]
        sizes = [len(weight) for weight in weights if weight is not None]
        if len(places) == 1 or not all(self.needed[place] for place in places):
            for place, part in zip(places, left.split(sizes, 1), strict=True):
                self.set_product(place, part, right)
            return
        assert right is not None
        for place, weight, part in zip(places, weights, matmul(left.t(), right).split(sizes), strict=True):
            assert weight is not None
            self.values[place] = accumulation.added_gradient(weight, part)

    def set_sum(self, place: int, grad_y: torch.Tensor) -> None:
        """Compute the gradient at an index as the sum of the rows of ``grad_y``."""
        if self.needed[place]:
            self.values[place] = grad_y.sum(0, dtype=torch.float32)

    def set_magnitude(self, place: int, grad_y: torch.Tensor, y: torch.Tensor) -> None:
        """Compute the gradient of the magnitude at an index from those of the outputs y (T, out), without bias."""
        magnitude = self.tensors[place]
        if self.needed[place] and magnitude is not None:
            total = (grad_y * y).sum(0, dtype=torch.float32)
            self.values[place] = torch.where(magnitude == 0, 0.0, total / magnitude)  # of a row of zeros y is 0


def is_supported(module: nn.Module | None) -> bool:
    """Whether :func:`forward` can compute a module: a linear, with or without a LoRA term, without hooks."""
    if module is None:
        return True
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if type(module) in (*PLAIN_LINEARS, StoredLinear):
        return True
    return has_lora_term(module) and type(module.base) in (*PLAIN_LINEARS, StoredLinear) and is_supported(module.base)


def parameters_of(module: nn.Module | None) -> LinearParameters:
    """The current parameters of a linear; A, B and magnitude are None if its LoRA term is not active."""
    if module is None:
        return LinearParameters(None, None, None, None, None, LinearConstants(), 0)
    a = b = magnitude = None
    base, lora = module, LoRATerm()
    if has_lora_term(module):
        base = module.base
        if module.active:
            a, b, magnitude = module.lora_A, module.lora_B, module.lora_magnitude_vector
            lora = LoRATerm(module.scale, module.dropout if module.training else 0.0)
    if isinstance(base, StoredLinear):
        return LinearParameters(None, base.bias, a, b, magnitude, LinearConstants(lora, base.storage), 0)
    return LinearParameters(base.weight, base.bias, a, b, magnitude, LinearConstants(lora), 0)  # type: ignore[arg-type]
