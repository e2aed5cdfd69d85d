"""A whole block of a small network as one native call forward and one backward (native/block.inl).

With few tokens and narrow layers a step consists of calls: each starts the threads and waits for them. Here a thread
takes a few documents through the whole block. Norms, attention, activation, dropout and random numbers are those of the
kernels that model/fused calls one by one; products are the package's own, since a library's start threads of their own.
"""

from __future__ import annotations

import torch

from lmworks.kernels.dispatch import to_dlpack
from lmworks.kernels.native_module import native_module
from lmworks.model.accumulation import gradient_buffer
from lmworks.model.block_arrays import BlockParameters, PackedSequences, SavedActivations, Seeds
from lmworks.model.block_parts import BlockSettings
from lmworks.model.linear_parameters import Gradients, OptionalTensor

# Sizes of the published tiny models, with room. Beyond them products outweigh calls, and the fastest provider should
# compute them.
MAX_WIDTH, MAX_INNER, MAX_TOKENS = 256, 1024, 2048
MAX_DOCUMENT = 256  # tokens of one work item of attention


def can_run(x: torch.Tensor, block: BlockParameters, longest: int) -> bool:
    """Whether the kernel is there and the block is small: float32, all weights dense and trained, no adapter.

    Args:
        x: (B, T, E).
        block: its parameters.
        longest: tokens of the longest document.
    """
    if x.dtype != torch.float32 or torch.is_autocast_enabled("cpu") or native_module() is None:
        return False
    if x.shape[-1] > MAX_WIDTH or x.shape[0] * x.shape[1] > MAX_TOKENS or longest > MAX_DOCUMENT:
        return False
    up = block.up_proj.weight
    if up is None or len(up) > MAX_INNER or any(linear.term is not None for linear in block.linears):
        return False
    if any(linear.constants.storage is not None for linear in block.linears):
        return False
    tensors = [tensor for tensor in block.flatten() if tensor is not None]
    return all(tensor.requires_grad and tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in tensors)


def forward(
    settings: BlockSettings, x: torch.Tensor, sequences: PackedSequences, block: BlockParameters, seeds: Seeds
) -> tuple[torch.Tensor, SavedActivations]:
    """x (tokens, E) -> y, and the activations saved for the backward pass."""
    tokens, post = len(x), not settings.pre_norm
    q_size, kv_size, inner = (len(linear.weight) for linear in (block.q_proj, block.k_proj, block.up_proj))  # type: ignore[arg-type]

    def rows(size: int, exists: bool = True) -> OptionalTensor:
        return x.new_empty(tokens, size) if exists else None

    statistics = [x.new_empty(tokens) if exists else None for exists in (settings.layer_norm, True) * 2]
    saved = SavedActivations(
        x=x.contiguous(),
        q=rows(q_size),  # type: ignore[arg-type]
        k=rows(kv_size),  # type: ignore[arg-type]
        v=rows(kv_size),  # type: ignore[arg-type]
        attention=rows(q_size),  # type: ignore[arg-type]
        log_sum=rows(q_size // settings.head_size),  # type: ignore[arg-type]
        sum1=rows(x.shape[1]),  # type: ignore[arg-type]
        mean1=statistics[0],
        scale1=statistics[1],
        gate=rows(inner, block.gate_proj.exists),
        up=rows(inner),  # type: ignore[arg-type]
        sum2=rows(x.shape[1], post),
        mean2=statistics[2],
        scale2=statistics[3],
    )
    y = torch.empty_like(saved.x)
    native_module().block_forward(*_arguments(settings, sequences, block, seeds, saved, y))
    return y, saved


def backward(
    settings: BlockSettings,
    grad_y: torch.Tensor,
    sequences: PackedSequences,
    block: BlockParameters,
    saved: SavedActivations,
    seeds: Seeds,
    gradients: Gradients,
    needs_x: bool,
) -> OptionalTensor:
    """The gradient of x, or None if it is not needed; those of the parameters are written to ``gradients``."""
    grad_x = torch.empty_like(grad_y)
    norm_grads: list[OptionalTensor] = []
    for place, weight in enumerate((*block.norm1[:2], *block.norm2[:2])):
        norm_grads.append(None if weight is None else torch.zeros_like(weight))
        gradients.values[place] = norm_grads[-1]
    linear_grads: list[OptionalTensor] = []
    accumulate = []
    for linear in block.linears:
        for place, weight in enumerate((linear.weight, linear.bias), linear.place):
            buffer = None if weight is None or weight.grad is None else gradient_buffer(weight)
            accumulate.append(buffer is not None)
            linear_grads.append(torch.empty_like(weight) if buffer is None and weight is not None else buffer)
            if weight is not None and buffer is None:
                gradients.values[place] = linear_grads[-1]
    arguments = _arguments(settings, sequences, block, seeds, saved, None)
    grads = (to_dlpack(grad_y), to_dlpack(grad_x), _arrays(*norm_grads), _arrays(*linear_grads), accumulate)
    native_module().block_backward(*arguments, *grads)
    return grad_x if needs_x else None


def _arguments(
    settings: BlockSettings,
    sequences: PackedSequences,
    block: BlockParameters,
    seeds: Seeds,
    saved: SavedActivations,
    y: OptionalTensor,
) -> tuple[object, ...]:
    """The arguments that both native functions have, in the order of native/training.cpp."""
    s, a = settings, saved
    flags = (s.pre_norm, s.layer_norm, s.causal, s.activation, s.head_size)
    rates = (s.eps, s.scale, s.attention_dropout, s.hidden_dropout, s.mlp_dropout)
    numbers = (*flags, *rates, seeds.attention, seeds.residual1, seeds.activation, seeds.residual2)
    norm_and_activations = (a.sum1, a.mean1, a.scale1, a.gate, a.up, a.sum2, a.mean2, a.scale2)
    return (
        numbers,
        to_dlpack(sequences.cu_seqlens[0]),
        _arrays(*(part.contiguous() for part in sequences.cos_sin or ())),
        _arrays(*block.norm1[:2], *block.norm2[:2]),
        _arrays(*(tensor for linear in block.linears for tensor in (linear.weight, linear.bias))),
        _arrays(a.x, y, a.q, a.k, a.v, a.attention, a.log_sum, *norm_and_activations),
    )


def _arrays(*tensors: OptionalTensor) -> list[object]:
    return [None if tensor is None else to_dlpack(tensor.detach()) for tensor in tensors]
