"""Matrix products of a fused block, forward and backward: linears with bias and LoRA terms that read the same input.

Only the gradients that autograd needs are computed. For linears with the same input x, one matmul computes A x of all
their LoRA terms (Hu et al. 2021, eq. 3: y = W x + b + s B A x), and only A x is saved for the backward pass. In
bfloat16 the LoRA term is part of the weight, W + s B A, which is rounded once: as long as the term is small, rounding
would remove it if it were added to an already rounded W x.

With a magnitude (DoRA: Liu et al. 2024, eq. 5), y = f (W x + s B A x) + b with a factor f of each output
(model/row_factors). The gradient of a magnitude m is that of f, over the norm: the sum of grad_y (y - b) / m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.dropout import draw_seed
from lmworks.kernels.matmul import matmul
from lmworks.kernels.native_module import native_module
from lmworks.model import accumulation
from lmworks.model.linear_parameters import (
    TENSORS,
    Gradients,
    LinearConstants,
    LinearParameters,
    LoRALinearProtocol,
    OptionalTensor,
    parameters_of,
)


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
        Their outputs (T, out), and what :func:`backward` needs besides: A x of all LoRA terms, and the outputs of
        linears with a magnitude, without bias, concatenated (T, sum of r and of their out).
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
    parts, _ = _split(low, [linear for _, linear, _ in adapted])
    for (y, linear, _), part in zip(adapted, parts, strict=True):
        if not _is_merged(linear, x):
            matmul(part, _cast(linear.b, x).t(), y, linear.lora.scale, in_place=True)
            if linear.magnitude is not None:
                y *= _row_factors(linear, x)
    scaled = [(y, linear) for y, linear, _ in adapted if linear.magnitude is not None]
    if scaled:
        low = torch.cat([low, *(y for y, _ in scaled)], 1)
        for y, linear in scaled:
            if linear.bias is not None:
                y += _cast(linear.bias, x)
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
    unscaled = [_before_factors(linear, grad_y) for linear, grad_y in zip(linears, grads_y, strict=True)]
    for linear, grad_y, grad in zip(linears, grads_y, unscaled, strict=True):
        gradients.set_product(linear.place, grad, x)
        gradients.set_sum(linear.place + 1, grad_y)
        if needs_x:
            weight = _weight(linear, grad_y)
            grad = grad_y if _is_merged(linear, grad_y) else grad
            grad_x = matmul(grad, weight, grad_x, in_place=grad_x is not None)
    adapted = [entry for entry in zip(linears, unscaled, seeds, strict=True) if entry[0].a is not None]
    if low is None or not adapted:
        return grad_x
    parts, outputs = _split(low, [linear for linear, *_ in adapted])
    scaled = [entry for entry in zip(linears, grads_y, strict=True) if entry[0].magnitude is not None]
    for (linear, grad_y), y in zip(scaled, outputs, strict=True):
        gradients.set_magnitude(linear.place + 4, grad_y, y)
    return _lora_backward(x, adapted, parts, gradients, grad_x)


def _lora_backward(
    x: OptionalTensor,
    adapted: Sequence[tuple[LinearParameters, torch.Tensor, int]],
    parts: Sequence[torch.Tensor],
    gradients: Gradients,
    grad_x: OptionalTensor,
) -> OptionalTensor:
    """The gradients of A and B, and the gradient of x with the share that passes through the LoRA terms.

    Args:
        x: of :func:`forward`.
        adapted: linears with a LoRA term, the gradient of W x + s B A x (T, out) of each, and its seed.
        parts: A x of each, (T, r).
        gradients: receives those of A and B.
        grad_x: that passes through the weights; may be overwritten.
    """
    for (linear, grad, _), part in zip(adapted, parts, strict=True):
        gradients.set_product(linear.place + 3, grad, part, linear.lora.scale)
    grads_low = [matmul(grad, _cast(linear.b, grad), scale=linear.lora.scale) for linear, grad, _ in adapted]
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


class _AdaptedLinear(torch.autograd.Function):
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


def adapted_linear(x: torch.Tensor, module: LoRALinearProtocol) -> torch.Tensor:
    """The output (..., out) of a linear with a LoRA term, without dropout, for x (..., in), float32 or bfloat16; in
    bfloat16, W + s B A is summed before it is rounded."""
    linear = parameters_of(module)  # type: ignore[arg-type]
    with torch.autocast(x.device.type, enabled=False):
        y = _AdaptedLinear.apply(x.flatten(0, -2), linear.constants, *linear[:TENSORS])
        return y.unflatten(0, x.shape[:-1])


def _linear(x: torch.Tensor, linear: LinearParameters) -> torch.Tensor:
    has_factors = linear.magnitude is not None  # the bias is added after them
    bias = None if linear.bias is None or has_factors else _cast(linear.bias, x)
    return matmul(x, _weight(linear, x).t(), bias)


def _is_merged(linear: LinearParameters, x: torch.Tensor) -> bool:
    """Whether the LoRA term, and its factors, are part of the weight that x is multiplied by."""
    return linear.a is not None and x.dtype != torch.float32 and not linear.lora.dropout


def _weight(linear: LinearParameters, x: torch.Tensor) -> torch.Tensor:
    """The weight in x's precision, with a merged LoRA term. That of a storage is not cached: it is used once."""
    storage = linear.constants.storage
    if not _is_merged(linear, x):
        return _cast(linear.weight, x) if storage is None else storage.dequantized(x.dtype)
    if storage is not None:
        return linear.update.merged_into(storage.dequantized(), x.dtype)
    assert linear.weight is not None
    return accumulation.merged_weight(linear.weight, linear.update, x.dtype)


def _row_factors(linear: LinearParameters, x: torch.Tensor) -> torch.Tensor:
    """(out,) what the outputs of a linear with a magnitude are multiplied by, in x's precision."""

    def weight() -> torch.Tensor:
        storage = linear.constants.storage
        frozen = linear.weight if storage is None else storage.dequantized()
        assert frozen is not None
        return frozen

    return linear.update.row_factors(weight).to(x.dtype)


def _before_factors(linear: LinearParameters, grad_y: torch.Tensor) -> torch.Tensor:
    """The gradient of W x + s B A x, from that of the output."""
    return grad_y if linear.magnitude is None else grad_y * _row_factors(linear, grad_y)


def _cast(tensor: OptionalTensor, x: torch.Tensor) -> torch.Tensor:
    """In x's precision."""
    assert tensor is not None
    return accumulation.cast(tensor, x.dtype)


def _joined_a(linears: Sequence[LinearParameters], x: torch.Tensor) -> torch.Tensor:
    """The rows of all A: (sum of r, in)."""
    parts = [_cast(linear.a, x) for linear in linears]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _split(low: torch.Tensor, linears: Sequence[LinearParameters]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What :func:`forward` saves -> (T, r) of each linear with a LoRA term, and (T, out) of each with a magnitude."""
    ranks = [len(linear.a) for linear in linears if linear.a is not None]
    columns = [len(linear.magnitude) for linear in linears if linear.magnitude is not None]
    parts = list(low[:, : sum(ranks)].split(ranks, 1))
    outputs = low[:, sum(ranks) :]
    return parts, list(outputs.split(columns, 1)) if outputs.shape[1] else []


def _drop(x: OptionalTensor, rate: float, seed: int) -> torch.Tensor:
    assert x is not None
    if not rate:
        return x
    y = torch.empty_like(x)
    native_module().dropout(to_dlpack(x.contiguous()), to_dlpack(y), rate, seed)
    return y
