"""The tensors of a linear in a fused block, those of its adapter's term among them, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from torch import nn

from lmworks.kernels.dropout import draw_seed
from lmworks.kernels.matmul import matmul
from lmworks.model import accumulation
from lmworks.model.accumulation import Update
from lmworks.model.adapter_terms import LoRATerm, ScaleTerm, Term
from lmworks.model.linear import PLAIN_LINEARS
from lmworks.model.storage import WeightStorage
from lmworks.model.stored_layers import StoredLinear

OptionalTensor = torch.Tensor | None
ADDED = 4  # the most tensors that an adapter's term has
TENSORS = 2 + ADDED  # per linear: weight, bias, and those of its term


@runtime_checkable
class FusedAdapter(Protocol):
    """A module around a linear whose term is computed here: what adapt/ has of LoRA, (IA)3 and bottlenecks."""

    base: nn.Module

    @property
    def saves_input(self) -> bool:
        """Whether the linear's input is saved for the backward pass."""

    @property
    def saved_elements(self) -> int:
        """Elements per token that are saved for the backward pass, besides the linear's input if it saves that."""

    @property
    def active(self) -> bool:
        """Whether the term is computed: neither disabled nor merged into the base's weight."""

    def fused_term(self) -> tuple[Term | None, tuple[nn.Parameter, ...]]:
        """Its term and the term's tensors; a term of None cannot be computed here."""


@runtime_checkable
class LoRALinearProtocol(FusedAdapter, Protocol):
    """A linear with a LoRA term; adapt/low_rank has the module."""

    lora_A: nn.Parameter
    lora_B: nn.Parameter


_known_types: dict[tuple[type, type], bool] = {}


def _fits(module: nn.Module, protocol: type) -> bool:
    """Whether a module has a protocol's attributes.

    The answer is kept by type: Python's check of a protocol takes longer than a call of a small kernel.
    """
    known = _known_types.get((type(module), protocol))
    if known is None:
        known = _known_types[type(module), protocol] = isinstance(module, protocol)
    return known


def has_lora_term(module: nn.Module) -> TypeGuard[LoRALinearProtocol]:
    """Whether a module is a linear with a LoRA term, active or not."""
    return _fits(module, LoRALinearProtocol)


def merges_term(module: nn.Module) -> bool:
    """Whether a module is a linear with a term that is part of the weight in bfloat16, which model/products rounds."""
    return is_fused_adapter(module) and isinstance(module.fused_term()[0], LoRATerm | ScaleTerm)


def is_fused_adapter(module: nn.Module) -> TypeGuard[FusedAdapter]:
    """Whether a module is a linear with an adapter's term, active or not."""
    return _fits(module, FusedAdapter)


class LinearConstants(NamedTuple):
    """The parts of a linear that are not tensors: the adapter's term, and the storage of a frozen weight."""

    term: Term | None = None
    storage: WeightStorage | None = None


class LinearParameters(NamedTuple):
    """A linear's tensors: weight (out, in), bias (out,), and those of an adapter's term; all None if the linear does
    not exist.

    A frozen weight may be in ``constants.storage`` instead. ``place`` is the index of the weight among the tensors of
    an autograd function; bias and the term's tensors follow it.
    """

    weight: OptionalTensor
    bias: OptionalTensor
    added: tuple[OptionalTensor, ...]
    constants: LinearConstants
    place: int

    @classmethod
    def at(cls, place: int, tensors: Sequence[OptionalTensor], constants: LinearConstants) -> LinearParameters:
        """The linear whose weight is ``tensors[place]``."""
        weight, bias, *added = tensors[place : place + TENSORS]
        return cls(weight, bias, tuple(added), constants, place)

    @property
    def tensors(self) -> tuple[OptionalTensor, ...]:
        """Weight, bias and the term's tensors: :data:`TENSORS` in all."""
        return (self.weight, self.bias, *self.added)

    @property
    def term(self) -> Term | None:
        """The term of its adapter."""
        return self.constants.term

    @property
    def lora(self) -> LoRATerm | None:
        """Its LoRA term."""
        return self.term if isinstance(self.term, LoRATerm) else None

    @property
    def a(self) -> OptionalTensor:
        """LoRA's A (r, in)."""
        return self.added[0]

    @property
    def b(self) -> OptionalTensor:
        """LoRA's B (out, r)."""
        return self.added[1]

    @property
    def magnitude(self) -> OptionalTensor:
        """DoRA's magnitude (out,); None: its LoRA term has none."""
        return self.added[2] if self.lora is not None else None

    @property
    def update(self) -> Update:
        """The change of the weight by its LoRA term, which it has."""
        assert self.a is not None
        assert self.b is not None
        assert self.lora is not None
        return Update(self.a, self.b, self.magnitude, self.lora.scale)

    @property
    def scales_input(self) -> bool:
        """Whether its input is scaled."""
        return isinstance(self.term, ScaleTerm) and self.term.of_input

    @property
    def scales_output(self) -> bool:
        """Whether its output is scaled."""
        return isinstance(self.term, ScaleTerm) and not self.term.of_input

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
        """Whether a gradient of this linear (of its weight, of A, of its input's scale) is computed from the linear's
        input."""
        reads_input = linear.lora is not None or linear.scales_input
        return self.needed[linear.place] or (reads_input and self.needed[linear.place + 2])

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
        """Compute the gradient of the magnitude at an index from those of the outputs y (T, out), without bias: since
        these are multiples of it, the sum of grad_y y over the magnitude."""
        magnitude = self.tensors[place]
        if self.needed[place] and magnitude is not None:
            total = (grad_y * y).sum(0, dtype=torch.float32)
            self.values[place] = torch.where(magnitude == 0, 0.0, total / magnitude)  # of a row of zeros y is 0


def is_supported(module: nn.Module | None) -> bool:
    """Whether model/products can compute a module: a linear, with or without an adapter's term, without hooks."""
    if module is None:
        return True
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if type(module) in (*PLAIN_LINEARS, StoredLinear):
        return True
    if not is_fused_adapter(module) or type(module.base) not in (*PLAIN_LINEARS, StoredLinear):
        return False
    return is_supported(module.base) and module.fused_term()[0] is not None


def parameters_of(module: nn.Module | None) -> LinearParameters:
    """The current parameters of a linear; without those of an adapter that is not active."""
    term: Term | None = None
    added: tuple[nn.Parameter, ...] = ()
    base = module
    if module is None:
        return LinearParameters(None, None, _filled(()), LinearConstants(), 0)
    if is_fused_adapter(module):
        base = module.base
        if module.active:
            term, added = module.fused_term()
    if isinstance(base, StoredLinear):
        return LinearParameters(None, base.bias, _filled(added), LinearConstants(term, base.storage), 0)
    return LinearParameters(base.weight, base.bias, _filled(added), LinearConstants(term), 0)  # type: ignore[arg-type, union-attr]


def _filled(added: Sequence[nn.Parameter]) -> tuple[OptionalTensor, ...]:
    return (*added, *(None,) * (ADDED - len(added)))


def draw_seeds(linears: Sequence[LinearParameters]) -> list[int]:
    """For each linear, the seed of dropout on its LoRA term's input; 0: no dropout."""
    return [draw_seed() if linear.lora and linear.lora.dropout else 0 for linear in linears]
