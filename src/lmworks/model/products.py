"""Matrix products of a fused block, forward and backward: linears with bias and LoRA terms that read the same input.

Only the gradients that autograd needs are computed. For linears with the same input x, one matmul computes A x of all
their LoRA terms (Hu et al. 2021, eq. 3: y = W x + b + s B A x), and only A x is saved for the backward pass. In
bfloat16 the LoRA term is part of the weight, W + s B A, which is rounded once: as long as the term is small, rounding
would remove it if it were added to an already rounded W x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from torch import nn

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.dropout import draw_seed
from lmworks.kernels.matmul import matmul
from lmworks.kernels.native_module import native_module
from lmworks.model import accumulation
from lmworks.model.linear import PLAIN_LINEARS
from lmworks.model.storage import WeightStorage
from lmworks.model.stored_layers import StoredLinear

OptionalTensor = torch.Tensor | None
TENSORS = 4  # per linear: weight, bias, A, B


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
    """A linear's tensors: weight (out, in), bias (out,), A (r, in), B (out, r); all None if the linear does not exist.

    A frozen weight may be in ``constants.storage`` instead. ``place`` is the index of the weight among the tensors of
    an autograd function; bias, A and B follow it.
    """

    weight: OptionalTensor
    bias: OptionalTensor
    a: OptionalTensor
    b: OptionalTensor
    constants: LinearConstants
    place: int

    @classmethod
    def at(cls, place: int, tensors: Sequence[OptionalTensor], constants: LinearConstants) -> LinearParameters:
        """The linear whose weight is ``tensors[place]``."""
        weight, bias, a, b = tensors[place : place + TENSORS]
        return cls(weight, bias, a, b, constants, place)

    @property
    def lora(self) -> LoRATerm:
        """Scale and dropout of its LoRA term."""
        return self.constants.lora

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
    """The current parameters of a linear; A and B are None if its LoRA term is not active."""
    if module is None:
        return LinearParameters(None, None, None, None, LinearConstants(), 0)
    a = b = None
    base, lora = module, LoRATerm()
    if has_lora_term(module):
        base = module.base
        if module.active:
            a, b = module.lora_A, module.lora_B
            lora = LoRATerm(module.scale, module.dropout if module.training else 0.0)
    if isinstance(base, StoredLinear):
        return LinearParameters(None, base.bias, a, b, LinearConstants(lora, base.storage), 0)
    return LinearParameters(base.weight, base.bias, a, b, LinearConstants(lora), 0)  # type: ignore[arg-type]


def draw_seeds(linears: Sequence[LinearParameters]) -> list[int]:
    """For each linear, the seed of dropout on its LoRA term's input; 0: no dropout."""
    return [draw_seed() if linear.lora.dropout else 0 for linear in linears]


def forward(
    x: torch.Tensor, linears: Sequence[LinearParameters], seeds: Sequence[int]
) -> tuple[list[torch.Tensor], OptionalTensor]:
    """The outputs of several linears for the same input x (T, in).

    Args:
        x: float32 or bfloat16; weights of another precision are cast.
        linears: their parameters.
        seeds: from :func:`draw_seeds`.

    Returns:
        Their outputs (T, out), and A x of all LoRA terms, concatenated (T, sum of r), to be saved for
        :func:`backward`.
    """
    outputs = [_linear(x, linear) for linear in linears]
    adapted = [entry for entry in zip(outputs, linears, seeds, strict=True) if entry[1].a is not None]
    if not adapted:
        return outputs, None
    if any(seeds):
        parts = [matmul(_drop(x, linear.lora.dropout, seed), _cast(linear.a, x).t()) for _, linear, seed in adapted]
        low = torch.cat(parts, 1)
    else:
        low = matmul(x, _joined_a([linear for _, linear, _ in adapted], x).t())
    for (y, linear, _), part in zip(adapted, _split(low, [linear for _, linear, _ in adapted]), strict=True):
        if not _is_merged(linear, x):
            matmul(part, _cast(linear.b, x).t(), y, linear.lora.scale, in_place=True)
    return outputs, low


def backward(
    x: OptionalTensor,
    linears: Sequence[LinearParameters],
    low: OptionalTensor,
    grads_y: Sequence[torch.Tensor],
    seeds: Sequence[int],
    gradients: Gradients,
    needs_x: bool = True,
) -> OptionalTensor:
    """The gradient of x (T, in), from those of the outputs (T, out); those of weights are written to ``gradients``.

    Args:
        x, linears, low, seeds: of :func:`forward`; x may be None if :meth:`Gradients.needs_input` is False for all.
        grads_y: gradients of the outputs.
        gradients: receives the gradients of trainable parameters.
        needs_x: whether the gradient of x is needed.
    """
    grad_x: OptionalTensor = None
    for linear, grad_y in zip(linears, grads_y, strict=True):
        gradients.set_product(linear.place, grad_y, x)
        gradients.set_sum(linear.place + 1, grad_y)
        if needs_x:
            weight = _weight(linear, grad_y)
            grad_x = matmul(grad_y, weight, grad_x, in_place=grad_x is not None)
    adapted = [entry for entry in zip(linears, grads_y, seeds, strict=True) if entry[0].a is not None]
    if low is None or not adapted:
        return grad_x
    for (linear, grad_y, _), part in zip(adapted, _split(low, [linear for linear, *_ in adapted]), strict=True):
        gradients.set_product(linear.place + 3, grad_y, part, linear.lora.scale)
    grads_low = [matmul(grad_y, _cast(linear.b, grad_y), scale=linear.lora.scale) for linear, grad_y, _ in adapted]
    if any(seed for *_, seed in adapted):
        for (linear, _, seed), grad_low in zip(adapted, grads_low, strict=True):
            needs_a = gradients.needed[linear.place + 2]
            gradients.set_product(linear.place + 2, grad_low, _drop(x, linear.lora.dropout, seed) if needs_a else None)
            if grad_x is not None and not _is_merged(linear, grad_low):
                grad_x += _drop(matmul(grad_low, _cast(linear.a, grad_low)), linear.lora.dropout, seed)
        return grad_x
    grad_low = grads_low[0] if len(grads_low) == 1 else torch.cat(grads_low, 1)
    gradients.set_products([linear.place + 2 for linear, *_ in adapted], grad_low, x)
    if grad_x is None or _is_merged(adapted[0][0], grad_x):
        return grad_x
    return matmul(grad_low, _joined_a([linear for linear, *_ in adapted], grad_low), grad_x, in_place=True)


class _MergedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, constants: LinearConstants, *tensors: OptionalTensor) -> torch.Tensor:
        (y,), low = forward(x, [LinearParameters.at(0, tensors, constants)], [0])
        ctx.constants = constants
        ctx.save_for_backward(x, low, *tensors)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[Any, ...]:
        x, low, *tensors = ctx.saved_tensors
        gradients = Gradients(tensors, ctx.needs_input_grad[2:])
        linear = LinearParameters.at(0, tensors, ctx.constants)
        grad_x = backward(x, [linear], low, [grad_y.contiguous()], [0], gradients, ctx.needs_input_grad[0])
        return grad_x, None, *gradients.values


def merged_linear(x: torch.Tensor, module: LoRALinearProtocol) -> torch.Tensor:
    """The output (..., out) of a LoRA linear for x (..., in), bfloat16; W + s B A is summed before it is rounded."""
    linear = parameters_of(module)  # type: ignore[arg-type]
    with torch.autocast(x.device.type, enabled=False):
        y = _MergedLinear.apply(x.flatten(0, -2), linear.constants, *linear[:TENSORS])
        return y.unflatten(0, x.shape[:-1])


def _linear(x: torch.Tensor, linear: LinearParameters) -> torch.Tensor:
    bias = None if linear.bias is None else _cast(linear.bias, x)
    return matmul(x, _weight(linear, x).t(), bias)


def _is_merged(linear: LinearParameters, x: torch.Tensor) -> bool:
    """Whether the LoRA term is added to the weight before x is multiplied by it."""
    return linear.a is not None and x.dtype != torch.float32 and not linear.lora.dropout


def _weight(linear: LinearParameters, x: torch.Tensor) -> torch.Tensor:
    """The weight in x's precision, with a merged LoRA term. That of a storage is not cached: it is used once."""
    storage = linear.constants.storage
    if linear.a is None or linear.b is None or not _is_merged(linear, x):
        return _cast(linear.weight, x) if storage is None else storage.dequantized(x.dtype)
    lora = (linear.a, linear.b, linear.lora.scale, x.dtype)
    if storage is not None:
        return accumulation.merge(storage.dequantized(), *lora)
    assert linear.weight is not None
    return accumulation.merged_weight(linear.weight, *lora)


def _cast(tensor: OptionalTensor, x: torch.Tensor) -> torch.Tensor:
    """In x's precision."""
    assert tensor is not None
    return accumulation.cast(tensor, x.dtype)


def _joined_a(linears: Sequence[LinearParameters], x: torch.Tensor) -> torch.Tensor:
    """The rows of all A: (sum of r, in)."""
    parts = [_cast(linear.a, x) for linear in linears]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _split(low: torch.Tensor, linears: Sequence[LinearParameters]) -> list[torch.Tensor]:
    """(T, sum of r) -> (T, r) of each."""
    return list(low.split([len(linear.a) for linear in linears], 1))  # type: ignore[arg-type]


def _drop(x: OptionalTensor, rate: float, seed: int) -> torch.Tensor:
    assert x is not None
    if not rate:
        return x
    y = torch.empty_like(x)
    native_module().dropout(to_dlpack(x.contiguous()), to_dlpack(y), rate, seed)
    return y
