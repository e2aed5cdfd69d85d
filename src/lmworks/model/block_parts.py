"""The parts of a fused block besides its matrix products, as calls of native kernels: norms, rotary positions,
activations, dropout and residuals, forward and backward. Rows are (tokens, size), float32 or bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.native_module import native_module
from lmworks.model.linear_parameters import Gradients, LinearConstants, OptionalTensor


class BlockSettings(NamedTuple):
    """Settings of a fused block's parts; rates are 0 without dropout."""

    pre_norm: bool
    layer_norm: bool  # or RMSNorm
    eps: float
    head_size: int
    scale: float
    causal: bool
    activation: int
    attention_dropout: float
    hidden_dropout: float
    mlp_dropout: float
    linears: tuple[LinearConstants, ...]
    in_one_call: bool = False  # by model/small_block
    saves_bfloat16: bool = False  # activations of float32 are saved in bfloat16


class NormParameters(NamedTuple):
    """Weight and bias (E,) of a norm, and the index of the weight in the list of the block's tensors."""

    weight: torch.Tensor
    bias: OptionalTensor
    place: int


class NormStatistics(NamedTuple):
    """Mean (LayerNorm only) and reciprocal root of the variance or mean square of each row, (tokens,) float32."""

    mean: OptionalTensor = None
    scale: OptionalTensor = None


def residual(
    x: torch.Tensor, part: torch.Tensor, rate: float, seed: int, saved: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """x + dropout(part); ``part`` may be overwritten if it is not among the ``saved`` tensors."""
    if not rate:
        return x + part if any(tensor is part for tensor in saved) else part.add_(x)
    y = torch.empty_like(x)
    native_module().dropout_add(to_dlpack(x), to_dlpack(part), to_dlpack(y), rate, seed)
    return y


def drop(x: OptionalTensor, rate: float, seed: int) -> torch.Tensor:
    """Dropout of x; with the same seed, the backward pass of a gradient."""
    assert x is not None
    if not rate:
        return x
    y = torch.empty_like(x)
    native_module().dropout(to_dlpack(x), to_dlpack(y), rate, seed)
    return y


def norm(settings: BlockSettings, x: torch.Tensor, parameters: NormParameters) -> tuple[torch.Tensor, NormStatistics]:
    """Normalised rows, and the statistics of each."""
    y, scale = torch.empty_like(x), x.new_empty(len(x), dtype=torch.float32)
    weight, bias = (None if part is None else to_dlpack(part) for part in parameters[:2])
    if not settings.layer_norm:
        native_module().rms_norm(to_dlpack(x), weight, to_dlpack(y), to_dlpack(scale), settings.eps)
        return y, NormStatistics(None, scale)
    mean = torch.empty_like(scale)
    native_module().layer_norm(
        to_dlpack(x), weight, bias, to_dlpack(y), to_dlpack(mean), to_dlpack(scale), settings.eps
    )
    return y, NormStatistics(mean, scale)


def norm_backward(
    settings: BlockSettings,
    x: torch.Tensor,
    parameters: NormParameters,
    statistics: NormStatistics,
    grad_y: torch.Tensor,
    gradients: Gradients,
) -> torch.Tensor:
    """The gradient of a norm's input; those of its weight and bias go to ``gradients``."""
    grad_x, parts = torch.empty_like(x), []
    for place, weight in enumerate(parameters[:2], parameters.place):
        gradient = None
        if weight is not None and gradients.needed[place]:
            gradient = gradients.values[place] = torch.zeros_like(weight, dtype=torch.float32)
        parts.append(None if gradient is None else to_dlpack(gradient))
    arrays = [to_dlpack(array) for array in (x, parameters.weight, *statistics, grad_y, grad_x) if array is not None]
    if settings.layer_norm:
        native_module().layer_norm_backward(*arrays, *parts)
    else:
        native_module().rms_norm_backward(*arrays, parts[0])
    return grad_x


def rotate(
    settings: BlockSettings, x: torch.Tensor, cos_sin: tuple[torch.Tensor, ...] | None, sign: float
) -> torch.Tensor:
    """Queries or keys (tokens, H * D) rotated by their positions; ``sign`` -1: backward pass of a gradient."""
    if cos_sin is None:
        return x
    y = torch.empty_like(x)
    native_module().rotate(*map(to_dlpack, (x, *cos_sin, y)), settings.head_size, sign)
    return y


def activate(settings: BlockSettings, up: torch.Tensor, gate: OptionalTensor) -> torch.Tensor:
    """act(up), or act(gate) * up."""
    y = torch.empty_like(up)
    x, factor = (up, None) if gate is None else (gate, to_dlpack(up))
    native_module().activate(settings.activation, to_dlpack(x), factor, to_dlpack(y))
    return y


def activate_backward(
    settings: BlockSettings, up: torch.Tensor, gate: OptionalTensor, grad_y: torch.Tensor
) -> tuple[torch.Tensor, OptionalTensor]:
    """Gradients of up and of gate."""
    grad_up = torch.empty_like(up)
    if gate is None:
        native_module().activate_backward(
            settings.activation, to_dlpack(up), None, to_dlpack(grad_y), to_dlpack(grad_up), None
        )
        return grad_up, None
    grad_gate = torch.empty_like(gate)
    native_module().activate_backward(settings.activation, *map(to_dlpack, (gate, up, grad_y, grad_gate, grad_up)))
    return grad_up, grad_gate
