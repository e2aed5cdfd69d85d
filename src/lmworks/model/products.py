"""Matrix products of a fused block, forward and backward: linears with bias and an adapter's term that read the same
input.

Only the gradients that autograd needs are computed. For linears with the same input x, one matmul computes A x of all
their LoRA terms (Hu et al. 2021, eq. 3: y = W x + b + s B A x), and only A x is saved for the backward pass. In
bfloat16 the LoRA term is part of the weight, W + s B A, which is rounded once: as long as the term is small, rounding
would remove it if it were added to an already rounded W x; so are DoRA's factors of the outputs. A scale is part of the
weight in any precision. A bottleneck changes the output (model/adapter_terms); the unchanged output is saved for its
backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.matmul import matmul
from lmworks.kernels.native_module import native_module
from lmworks.model import accumulation, adapter_terms
from lmworks.model.adapter_terms import BottleneckTensors, BottleneckTerm, ScaleTerm
from lmworks.model.linear_parameters import (
    TENSORS,
    Gradients,
    LinearConstants,
    LinearParameters,
    OptionalTensor,
    is_fused_adapter,
    is_supported,
    parameters_of,
)


def forward(
    x: torch.Tensor, linears: Sequence[LinearParameters], seeds: Sequence[int]
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """The outputs of several linears for the same input x (T, in).

    Args:
        x: float32 or bfloat16; weights of another precision are cast.
        linears: their parameters.
        seeds: from linear_parameters.draw_seeds.

    Returns:
        Their outputs (T, out), and what is to be saved for :func:`backward`: A x of all LoRA terms, concatenated
        (T, sum of r), then what each other term saves; of a scale it is the output itself.
    """
    outputs = [_linear(x, linear) for linear in linears]
    saved = _add_lora_terms(x, linears, seeds, outputs)
    for index, linear in enumerate(linears):
        y = outputs[index]
        if linear.scales_output:
            saved.append(y)
        elif linear.magnitude is not None:
            y = y if _is_merged(linear, x) else y * _row_factors(linear, x)
            saved.append(y)  # apart from the output, which a caller may overwrite
            outputs[index] = y.clone() if linear.bias is None else y + _cast(linear.bias, x)
        elif isinstance(linear.term, BottleneckTerm):
            tensors = _bottleneck_tensors(linear, y)
            outputs[index], low = adapter_terms.bottleneck(y, tensors, linear.term.activation)
            saved += [y, low]
    return outputs, tuple(saved)


def _add_lora_terms(
    x: torch.Tensor, linears: Sequence[LinearParameters], seeds: Sequence[int], outputs: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Add s B A x to the outputs; returns A x of all terms (T, sum of r), or nothing if there are none."""
    adapted = [entry for entry in zip(outputs, linears, seeds, strict=True) if entry[1].lora]
    if not adapted:
        return []
    if any(seeds):
        parts = [matmul(_drop(x, linear, seed), _cast(linear.a, x).t()) for _, linear, seed in adapted]
        low = torch.cat(parts, 1)
    else:
        low = matmul(x, _joined_a([linear for _, linear, _ in adapted], x).t())
    for (y, linear, _), part in zip(adapted, _split(low, [linear for _, linear, _ in adapted]), strict=True):
        if not _is_merged(linear, x):
            matmul(part, _cast(linear.b, x).t(), y, linear.lora.scale, in_place=True)  # type: ignore[union-attr]
    return [low]


def backward(
    x: OptionalTensor,
    linears: Sequence[LinearParameters],
    saved: Sequence[torch.Tensor],
    grads_y: Sequence[torch.Tensor],
    seeds: Sequence[int],
    gradients: Gradients,
    needs_x: bool = True,
) -> OptionalTensor:
    """The gradient of x (T, in), from those of the outputs (T, out); those of weights are written to ``gradients``.

    Args:
        x, linears, saved, seeds: of :func:`forward`; x may be None if :meth:`Gradients.needs_input` is False for all.
        grads_y: gradients of the outputs; not changed.
        gradients: receives the gradients of trainable parameters.
        needs_x: whether the gradient of x is needed.
    """
    tensors = iter(saved)
    low = next(tensors) if any(linear.lora for linear in linears) else None
    grads_y = [
        _output_backward(linear, grad, tensors, gradients) for linear, grad in zip(linears, grads_y, strict=True)
    ]
    grad_x: OptionalTensor = None
    grads = [_before_factors(linear, grad_y) for linear, grad_y in zip(linears, grads_y, strict=True)]
    for linear, grad_y, grad in zip(linears, grads_y, grads, strict=True):
        gradients.set_product(linear.place, grad_y, x)
        gradients.set_sum(linear.place + 1, grad_y)
        if linear.scales_input:
            grad_x = _scaled_input_backward(x, linear, grad_y, grad_x, gradients)
        elif needs_x:
            grad = grad_y if _is_merged(linear, grad_y) else grad
            grad_x = matmul(grad, _weight(linear, grad_y), grad_x, in_place=grad_x is not None)
    if low is None:
        return grad_x
    return _lora_backward(x, linears, low, grads, seeds, gradients, grad_x)


def _output_backward(
    linear: LinearParameters, grad: torch.Tensor, saved: Iterator[torch.Tensor], gradients: Gradients
) -> torch.Tensor:
    """The gradient of W x + b, with a scale as part of W and b, from that of the linear's output; those of the term's
    tensors, but for A and B, are written to ``gradients``."""
    place = linear.place + 2
    if linear.scales_output:
        y = next(saved)
        if gradients.needed[place]:
            gradients.values[place] = adapter_terms.scale_gradient(y, grad, _present(linear.added[0]))
    if linear.magnitude is not None:
        gradients.set_magnitude(place + 2, grad, next(saved))
    if isinstance(linear.term, BottleneckTerm):
        y, low = next(saved), next(saved)
        inner = adapter_terms.bottleneck_backward(low, grad, _bottleneck_tensors(linear, y), linear.term.activation)
        gradients.set_product(place, inner.low, y)
        gradients.set_sum(place + 1, inner.low)
        gradients.set_product(place + 2, grad, inner.activated)
        gradients.set_sum(place + 3, grad)
        return inner.y
    return grad


def _scaled_input_backward(
    x: OptionalTensor, linear: LinearParameters, grad_y: torch.Tensor, grad_x: OptionalTensor, gradients: Gradients
) -> torch.Tensor:
    """The gradient of x with that of W (l * x) added, (T, in)."""
    grad, place = matmul(grad_y, _weight(linear, grad_y)), linear.place + 2
    if gradients.needed[place]:
        gradients.values[place] = adapter_terms.scale_gradient(grad, _present(x), _present(linear.added[0]))
    return grad if grad_x is None else grad_x.add_(grad)


def _lora_backward(
    x: OptionalTensor,
    linears: Sequence[LinearParameters],
    low: torch.Tensor,
    grads_y: Sequence[torch.Tensor],
    seeds: Sequence[int],
    gradients: Gradients,
    grad_x: OptionalTensor,
) -> OptionalTensor:
    """The gradients of A and B, and the gradient of x with those of the LoRA terms added; None if it is not needed."""
    adapted = [entry for entry in zip(linears, grads_y, seeds, strict=True) if entry[0].lora]
    scales = [linear.lora.scale for linear, *_ in adapted if linear.lora]
    parts = _split(low, [linear for linear, *_ in adapted])
    for (linear, grad_y, _), part, scale in zip(adapted, parts, scales, strict=True):
        gradients.set_product(linear.place + 3, grad_y, part, scale)
    grads_low = [
        matmul(grad_y, _cast(linear.b, grad_y), scale=scale)
        for (linear, grad_y, _), scale in zip(adapted, scales, strict=True)
    ]
    if any(seed for *_, seed in adapted):
        for (linear, _, seed), grad_low in zip(adapted, grads_low, strict=True):
            needs_a = gradients.needed[linear.place + 2]
            gradients.set_product(linear.place + 2, grad_low, _drop(x, linear, seed) if needs_a else None)
            if grad_x is not None and not _is_merged(linear, grad_low):
                grad_x += _drop(matmul(grad_low, _cast(linear.a, grad_low)), linear, seed)
        return grad_x
    grad_low = grads_low[0] if len(grads_low) == 1 else torch.cat(grads_low, 1)
    gradients.set_products([linear.place + 2 for linear, *_ in adapted], grad_low, x)
    if grad_x is None or _is_merged(adapted[0][0], grad_x):
        return grad_x
    return matmul(grad_low, _joined_a([linear for linear, *_ in adapted], grad_low), grad_x, in_place=True)


class _AdaptedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, constants: LinearConstants, *tensors: OptionalTensor) -> torch.Tensor:
        (y,), saved = forward(x, [LinearParameters.at(0, tensors, constants)], [0])
        ctx.constants = constants
        ctx.save_for_backward(x, *saved, *tensors)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[Any, ...]:
        x, *rest = ctx.saved_tensors
        saved, tensors = rest[:-TENSORS], rest[-TENSORS:]
        gradients = Gradients(tensors, ctx.needs_input_grad[2:])
        linear = LinearParameters.at(0, tensors, ctx.constants)
        grad_x = backward(x, [linear], saved, [grad_y.contiguous()], [0], gradients, ctx.needs_input_grad[0])
        return grad_x, None, *gradients.values


def rounds(x: torch.Tensor, module: nn.Module) -> bool:
    """Whether an adapter's float32 base multiplies x in bfloat16. Rounding would remove a small change of the output,
    which is therefore made part of the weight by :func:`adapted_linear`."""
    if not is_supported(module) or not is_fused_adapter(module) or not module.active:
        return False
    base = module.base
    return product_dtype(x) == torch.bfloat16 and (
        not isinstance(base, nn.Linear) or base.weight.dtype == torch.float32
    )


def product_dtype(x: torch.Tensor) -> torch.dtype:
    """The precision of matrix products with x: its own, or autocast's."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def adapted_linear(x: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """The output (..., out) of a linear with an adapter's term, without dropout, for x (..., in), float32 or bfloat16.
    In bfloat16, W + s B A is summed, and a scale multiplied, before the weight is rounded."""
    linear = parameters_of(module)
    with torch.autocast(x.device.type, enabled=False):
        y = _AdaptedLinear.apply(x.flatten(0, -2), linear.constants, *linear.tensors)
        return y.unflatten(0, x.shape[:-1])


def _linear(x: torch.Tensor, linear: LinearParameters) -> torch.Tensor:
    has_factors = linear.magnitude is not None  # after which the bias is added
    bias = None if linear.bias is None or has_factors else _cast(linear.bias, x)
    if bias is not None and linear.scales_output:
        bias = adapter_terms.scale(bias, _factors(linear))
    return matmul(x, _weight(linear, x).t(), bias)


def _is_merged(linear: LinearParameters, x: torch.Tensor) -> bool:
    """Whether the LoRA term, and its factors, are part of the weight that x is multiplied by."""
    return linear.lora is not None and x.dtype != torch.float32 and not linear.lora.dropout


def _weight(linear: LinearParameters, x: torch.Tensor) -> torch.Tensor:
    """The weight in x's precision, with a scale or a merged LoRA term. That of a storage is not cached: it is used
    once."""
    storage = linear.constants.storage
    if isinstance(linear.term, ScaleTerm):
        return _scaled_weight(linear, x.dtype)
    if not _is_merged(linear, x):
        return _cast(linear.weight, x) if storage is None else storage.dequantized(x.dtype)
    if storage is not None:
        return linear.update.merged_into(storage.dequantized(), x.dtype)
    return accumulation.merged_weight(_present(linear.weight), linear.update, x.dtype)


def _row_factors(linear: LinearParameters, x: torch.Tensor) -> torch.Tensor:
    """(out,) what DoRA multiplies the outputs by, in x's precision."""

    def weight() -> torch.Tensor:
        storage = linear.constants.storage
        return _present(linear.weight) if storage is None else storage.dequantized()

    return linear.update.row_factors(weight).to(x.dtype)


def _before_factors(linear: LinearParameters, grad_y: torch.Tensor) -> torch.Tensor:
    """The gradient of W x + s B A x, from that of W x + b or, of DoRA, of its multiple."""
    return grad_y if linear.magnitude is None else grad_y * _row_factors(linear, grad_y)


def _cast(tensor: OptionalTensor, x: torch.Tensor) -> torch.Tensor:
    """In x's precision."""
    assert tensor is not None
    return accumulation.cast(tensor, x.dtype)


def _present(tensor: OptionalTensor) -> torch.Tensor:
    assert tensor is not None
    return tensor


def _scaled_weight(linear: LinearParameters, dtype: torch.dtype) -> torch.Tensor:
    """The weight with its rows or columns scaled. In float32 it is not cached: that of each layer would stay beside the
    weight for the whole step."""
    scale, storage = _present(linear.added[0]), linear.constants.storage
    factors = _factors(linear) if linear.scales_input else _factors(linear)[:, None]
    if storage is not None:
        return accumulation.scale_weight(storage.dequantized(), factors, dtype)
    weight = _present(linear.weight)
    if dtype == torch.float32:
        return accumulation.scale_weight(weight, factors, dtype)
    return accumulation.scaled_weight(weight, scale, factors, dtype)


def _factors(linear: LinearParameters) -> torch.Tensor:
    """The factors of its scale, none of them 0."""
    return adapter_terms.divisors(_present(linear.added[0]).detach())


def _bottleneck_tensors(linear: LinearParameters, x: torch.Tensor) -> BottleneckTensors:
    """Those of its bottleneck, in x's precision."""
    return BottleneckTensors(*(_cast(tensor, x) for tensor in linear.added))


def _joined_a(linears: Sequence[LinearParameters], x: torch.Tensor) -> torch.Tensor:
    """The rows of all A: (sum of r, in)."""
    parts = [_cast(linear.a, x) for linear in linears]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _split(low: torch.Tensor, linears: Sequence[LinearParameters]) -> list[torch.Tensor]:
    """(T, sum of r) -> (T, r) of each."""
    return list(low.split([len(linear.a) for linear in linears], 1))  # type: ignore[arg-type]


def _drop(x: OptionalTensor, linear: LinearParameters, seed: int) -> torch.Tensor:
    """Dropout of the input of a linear's LoRA term; with the same seed, the backward pass of a gradient."""
    assert x is not None
    rate = linear.lora.dropout if linear.lora else 0.0
    if not rate:
        return x
    y = torch.empty_like(x)
    native_module().dropout(to_dlpack(x.contiguous()), to_dlpack(y), rate, seed)
    return y
