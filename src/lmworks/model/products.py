"""Matrix products of a fused block, forward and backward: linears with bias and LoRA terms that read one input.

Gradients are computed where autograd asks for them. Linears that read the same x share one product with all their
LoRA factors A (Hu et al. 2021, eq. 3: y = W x + b + s B A x); only A x is saved for the backward pass. In bfloat16 the
LoRA term is part of the weight, W + s B A, which is rounded once: while the term is small, adding it to a rounded W x
would round it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.dropout import draw_seed
from lmworks.kernels.library import library
from lmworks.kernels.matmul import matmul
from lmworks.model import accumulation
from lmworks.model.frozen_layers import StoredLinear
from lmworks.model.storage import WeightStorage

OptionalTensor = torch.Tensor | None
TENSORS = 4  # of a linear: weight, bias, A, B


class LoRATerm(NamedTuple):
    """The numbers of a linear's LoRA term: its scale s, and the rate of dropout on its input."""

    scale: float = 0.0
    dropout: float = 0.0


@runtime_checkable
class LoRALinearProtocol(Protocol):
    """What these products read of a linear with a LoRA term; adapt/low_rank has the module."""

    base: nn.Module
    lora_A: nn.Parameter
    lora_B: nn.Parameter
    scale: float
    dropout: float

    @property
    def active(self) -> bool:
        """Whether the LoRA term is computed: neither disabled nor merged into the base's weight."""


class LinearConstants(NamedTuple):
    """What autograd knows nothing of: the numbers of the LoRA term, and a frozen weight that is not a plain tensor."""

    lora: LoRATerm = LoRATerm()
    storage: WeightStorage | None = None


class LinearParameters(NamedTuple):
    """A linear's tensors: weight (out, in), bias (out,), A (r, in), B (out, r); all None where there is no such linear.

    A frozen weight may be a ``storage`` instead. ``place`` is that of the weight among the tensors of an autograd
    function; bias, A and B follow it.
    """

    weight: OptionalTensor
    bias: OptionalTensor
    a: OptionalTensor
    b: OptionalTensor
    constants: LinearConstants
    place: int

    @classmethod
    def at(cls, place: int, tensors: Sequence[OptionalTensor], constants: LinearConstants) -> LinearParameters:
        """Of the linear whose weight stands at ``place`` among the tensors."""
        weight, bias, a, b = tensors[place : place + TENSORS]
        return cls(weight, bias, a, b, constants, place)

    @property
    def lora(self) -> LoRATerm:
        """The numbers of its LoRA term."""
        return self.constants.lora

    @property
    def exists(self) -> bool:
        """Whether there is such a linear."""
        return self.weight is not None or self.constants.storage is not None


class Gradients:
    """Gradients of the tensors of an autograd function, by their place among its arguments.

    Args:
        tensors: the arguments.
        wanted: which of them need a gradient (``ctx.needs_input_grad``).
    """

    def __init__(self, tensors: Sequence[OptionalTensor], wanted: Sequence[bool]) -> None:
        self.tensors, self.wanted = tensors, wanted
        self.values: list[OptionalTensor] = [None] * len(wanted)

    def needs_input(self, linear: LinearParameters) -> bool:
        """Whether a gradient of this linear is computed from the linear's input."""
        return self.wanted[linear.place] or self.wanted[linear.place + 2]

    def set_product(self, place: int, left: torch.Tensor, right: OptionalTensor, scale: float = 1.0) -> None:
        """The gradient at a place is scale * left^T right."""
        if not self.wanted[place]:
            return
        weight = self.tensors[place]
        assert weight is not None
        assert right is not None
        self.values[place] = accumulation.weight_gradient(weight, left, right, scale)

    def set_sum(self, place: int, grad_y: torch.Tensor) -> None:
        """The gradient at a place is the sum over rows."""
        if self.wanted[place]:
            self.values[place] = grad_y.sum(0, dtype=torch.float32)


def is_supported(module: nn.Module | None) -> bool:
    """Whether these products compute a module: a plain linear, or one with a LoRA term, without hooks."""
    if module is None:
        return True
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if type(module) in (nn.Linear, StoredLinear):
        return True
    return (
        isinstance(module, LoRALinearProtocol)
        and type(module.base) in (nn.Linear, StoredLinear)
        and (is_supported(module.base))
    )


def parameters_of(module: nn.Module | None, place: int = 0) -> LinearParameters:
    """The parameters of a linear as it stands now; A and B are None where its LoRA term is not computed."""
    if module is None:
        return LinearParameters(None, None, None, None, LinearConstants(), place)
    a = b = None
    base, lora = module, LoRATerm()
    if isinstance(module, LoRALinearProtocol):
        base = module.base
        if module.active:
            a, b = module.lora_A, module.lora_B
            lora = LoRATerm(module.scale, module.dropout if module.training else 0.0)
    if isinstance(base, StoredLinear):
        return LinearParameters(None, base.bias, a, b, LinearConstants(lora, base.storage), place)
    return LinearParameters(base.weight, base.bias, a, b, LinearConstants(lora), place)  # type: ignore[arg-type]


def draw_seeds(linears: Sequence[LinearParameters]) -> list[int]:
    """One seed a linear, of the dropout on its LoRA term's input; 0 where nothing is dropped."""
    return [draw_seed() if linear.lora.dropout else 0 for linear in linears]


def forward(
    x: torch.Tensor, linears: Sequence[LinearParameters], seeds: Sequence[int]
) -> tuple[list[torch.Tensor], OptionalTensor]:
    """x (T, in) through linears that read the same x.

    Args:
        x: float32 or bfloat16; weights of another precision are cast.
        linears: what x is multiplied by.
        seeds: of :func:`draw_seeds`.

    Returns:
        Their outputs (T, out), and A x of all LoRA terms side by side, to be saved for :func:`backward`.
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
    wants_x: bool = True,
) -> OptionalTensor:
    """The gradient of x (T, in), from those of the outputs (T, out); those of the weights go to ``gradients``.

    Args:
        x, linears, low, seeds: of :func:`forward`; x may be None where :meth:`Gradients.needs_input` is False for all.
        grads_y: gradients of the outputs.
        gradients: receives the gradients of trainable parameters.
        wants_x: False where the gradient of x is not needed.
    """
    grad_x: OptionalTensor = None
    for linear, grad_y in zip(linears, grads_y, strict=True):
        gradients.set_product(linear.place, grad_y, x)
        gradients.set_sum(linear.place + 1, grad_y)
        if wants_x:
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
            wants_a = gradients.wanted[linear.place + 2]
            gradients.set_product(linear.place + 2, grad_low, _drop(x, linear.lora.dropout, seed) if wants_a else None)
            if grad_x is not None and not _is_merged(linear, grad_low):
                grad_x += _drop(matmul(grad_low, _cast(linear.a, grad_low)), linear.lora.dropout, seed)
        return grad_x
    for (linear, *_), grad_low in zip(adapted, grads_low, strict=True):
        gradients.set_product(linear.place + 2, grad_low, x)
    if grad_x is None or _is_merged(adapted[0][0], grad_x):
        return grad_x
    grad_low = grads_low[0] if len(grads_low) == 1 else torch.cat(grads_low, 1)
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
    """x (..., in), bfloat16, through a linear whose LoRA term is summed into its weight before rounding: (..., out)."""
    linear = parameters_of(module)  # type: ignore[arg-type]
    with torch.autocast(x.device.type, enabled=False):
        y = _MergedLinear.apply(x.flatten(0, -2), linear.constants, *linear[:TENSORS])
        return y.unflatten(0, x.shape[:-1])


def _linear(x: torch.Tensor, linear: LinearParameters) -> torch.Tensor:
    bias = None if linear.bias is None else _cast(linear.bias, x)
    return matmul(x, _weight(linear, x).t(), bias)


def _is_merged(linear: LinearParameters, x: torch.Tensor) -> bool:
    """Whether the LoRA term is part of the weight that x is multiplied by."""
    return linear.a is not None and x.dtype != torch.float32 and not linear.lora.dropout


def _weight(linear: LinearParameters, x: torch.Tensor) -> torch.Tensor:
    """The matrix that x is multiplied by, in x's precision. A storage's is not cached: it exists for one product."""
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
    library().dropout(to_dlpack(x.contiguous()), to_dlpack(y), rate, seed)
    return y
