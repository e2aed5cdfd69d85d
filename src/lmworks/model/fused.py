"""Forward and backward of a whole block as one autograd function, where the native kernels are available.

It computes the same as block.Block, which is the definition, in the same order and with the same random numbers (a test
compares). It is faster in training for three reasons. Autograd has one node per block instead of some thirty, whose
overhead exceeds the arithmetic of small models. Outputs of norms and activations are recomputed in the backward pass
instead of saved; beside weights in NF4 or int8, float32 activations are saved in bfloat16. Nothing is saved for the
gradients of frozen weights. Without gradients, passes of many tokens use it
for its kernels.

    pre-norm:  x1 = x + drop(attention(norm1(x)));  y = x1 + drop(mlp(norm2(x1)))
    post-norm: x1 = norm1(x + drop(attention(x)));  y = norm2(x1 + drop(mlp(x1)))
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from lmworks.kernels.dispatch import compute_dtype, to_dlpack
from lmworks.kernels.native_module import NATIVE_ACTIVATIONS, native_module
from lmworks.model import block_parts as parts
from lmworks.model import products, small_block
from lmworks.model.attention import Attention, Rotation
from lmworks.model.block_arrays import BlockParameters, PackedSequences, SavedActivations, Seeds
from lmworks.model.block_parts import BlockSettings, NormParameters, NormStatistics
from lmworks.model.blockwise import BlockwiseStorage
from lmworks.model.feedforward import FeedForward
from lmworks.model.linear_parameters import Gradients, OptionalTensor, is_supported, parameters_of
from lmworks.model.masks import AttentionMask
from lmworks.model.norm import NORMS, LayerNorm
from lmworks.model.virtual_tokens import LayerPrefix

INFERENCE_TOKENS = 128
"""Without gradients, passes of fewer tokens (of one that is generated, say) are faster in PyTorch's operations."""


def can_run(
    x: torch.Tensor, attention: Attention, mlp: FeedForward, norms: tuple[nn.Module, nn.Module], mask: AttentionMask
) -> bool:
    """Whether a fusable block (model/fusion) can run fused: its modules have the expected types and no hooks, the mask
    needs no matrix, and the native kernels accept x."""
    return (
        (torch.is_grad_enabled() or x.shape[0] * x.shape[1] >= INFERENCE_TOKENS)
        and compute_dtype(x) is not None
        and mask.is_implicit
        and mask.fits_window(attention.window)
        and all(map(is_supported, _linears(attention, mlp)))
        and type(norms[0]) in NORMS.values()
        and all(not module._forward_hooks and not module._forward_pre_hooks for module in (attention, mlp))
    )


def run(
    x: torch.Tensor,
    attention: Attention,
    mlp: FeedForward,
    norms: tuple[nn.Module, nn.Module],
    mask: AttentionMask,
    rotation: Rotation,
    pre_norm: bool,
    dropout: float,
    training: bool,
    prefix: LayerPrefix | None = None,
) -> torch.Tensor:
    """(B, T, E) -> (B, T, E). Arguments as in block.Block."""
    norm1, norm2 = (NormParameters(norm.weight, getattr(norm, "bias", None), 0) for norm in norms)  # type: ignore[arg-type]
    block = BlockParameters(norm1, norm2, *map(parameters_of, _linears(attention, mlp)))
    settings = BlockSettings(
        pre_norm=pre_norm,
        layer_norm=isinstance(norms[0], LayerNorm),
        eps=float(norms[0].eps),  # type: ignore[arg-type]
        head_size=attention.size,
        scale=attention.scores.scale or attention.size**-0.5,
        causal=mask.causal,
        activation=NATIVE_ACTIVATIONS[mlp.activation],
        attention_dropout=attention.scores.dropout if training else 0.0,
        hidden_dropout=dropout if training else 0.0,
        mlp_dropout=mlp.dropout if training else 0.0,
        linears=tuple(linear.constants for linear in block.linears),
    )
    cos_sin = None if rotation.own is None else tuple(_flat_table(part, x) for part in rotation.own)
    longest = max(mask.lengths) if mask.lengths else x.shape[1]
    settings = settings._replace(
        in_one_call=prefix is None and small_block.can_run(x, block, longest), saves_bfloat16=_is_quantized(block)
    )
    sequences = PackedSequences(mask.cu_seqlens(), cos_sin, None if prefix is None else prefix.rows)
    keys, values = (None, None) if prefix is None else (part.flatten(1) for part in prefix[:2])
    return _Block.apply(x.to(compute_dtype(x)), settings, sequences, keys, values, *block.flatten())


def _is_quantized(block: BlockParameters) -> bool:
    """Whether a block's linears are in NF4 or int8, beside whose error that of bfloat16 activations is small."""
    storages = (linear.constants.storage for linear in block.linears)
    return torch.is_grad_enabled() and any(isinstance(storage, BlockwiseStorage) for storage in storages)


def _linears(attention: Attention, mlp: FeedForward) -> tuple[nn.Module | None, ...]:
    own = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    return (*own, mlp.gate_proj, mlp.up_proj, mlp.down_proj)


def _flat_table(part: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Cosines or sines (B or 1, T, 1, R/2) -> (B * T, R/2)."""
    return part.float().expand(len(x), -1, -1, -1).reshape(-1, part.shape[-1])


class BlockGradients(NamedTuple):
    """Gradients of a block's input, and of the keys and values (P, K * D) of a prefix; None where not needed."""

    x: OptionalTensor
    keys: OptionalTensor
    values: OptionalTensor


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        settings: BlockSettings,
        sequences: PackedSequences,
        keys: OptionalTensor,
        values: OptionalTensor,
        *tensors: OptionalTensor,
    ) -> torch.Tensor:
        block = BlockParameters.unflatten(tensors, settings.linears)
        seeds = Seeds.draw(settings, block)
        flat = x.reshape(-1, x.shape[-1])
        with torch.autocast("cpu", enabled=False):
            if settings.in_one_call:
                y, saved = small_block.forward(settings, flat, sequences, block, seeds)
            else:
                y, saved = _forward(settings, flat, sequences, block, seeds, keys, values)
        if settings.saves_bfloat16:
            saved = saved.cast(torch.bfloat16)
        activations = saved.flatten()
        ctx.save_for_backward(*sequences.cu_seqlens, *activations, *tensors)
        ctx.saved, ctx.counts = len(activations), saved.counts
        ctx.settings, ctx.cos_sin, ctx.rows = settings, sequences.cos_sin, sequences.rows
        ctx.seeds, ctx.shape = seeds, x.shape
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[Any, ...]:
        cu_seqlens_q, cu_seqlens_k, *tensors = ctx.saved_tensors
        saved, tensors = SavedActivations.unflatten(tensors[: ctx.saved], ctx.counts), tensors[ctx.saved :]
        block = BlockParameters.unflatten(tensors, ctx.settings.linears)
        sequences = PackedSequences((cu_seqlens_q, cu_seqlens_k), ctx.cos_sin, ctx.rows)
        gradients = Gradients(tensors, ctx.needs_input_grad[5:])
        flat = grad_y.reshape(-1, grad_y.shape[-1]).contiguous()
        if ctx.settings.saves_bfloat16:
            saved = saved.cast(flat.dtype)
        needs_x = ctx.needs_input_grad[0]
        arguments = (ctx.settings, flat, sequences, block, saved, ctx.seeds, gradients, needs_x)
        prefix_grads: tuple[OptionalTensor, ...] = (None, None)
        if ctx.settings.in_one_call:
            grad_x = small_block.backward(*arguments)
        else:
            grad_x, *prefix_grads = _backward(*arguments)  # type: ignore[assignment]
        return (None if grad_x is None else grad_x.view(ctx.shape), None, None, *prefix_grads, *gradients.values)


def _forward(
    settings: BlockSettings,
    x: torch.Tensor,
    sequences: PackedSequences,
    block: BlockParameters,
    seeds: Seeds,
    keys: OptionalTensor,
    values: OptionalTensor,
) -> tuple[torch.Tensor, SavedActivations]:
    """x (tokens, E) -> y, and the activations saved for the backward pass; ``keys`` and ``values`` (P, K * D) of a
    prefix."""
    pre_norm, stats1, stats2 = settings.pre_norm, NormStatistics(), NormStatistics()
    normed = x
    if pre_norm:
        normed, stats1 = parts.norm(settings, x, block.norm1)
    (q, k, v), terms_qkv = products.forward(normed, block.qkv, seeds.qkv)
    q, k = (parts.rotate(settings, part, sequences.cos_sin, 1.0) for part in (q, k))
    rows = sequences.rows
    if rows is not None:
        q, k, v = (rows.insert_flat(part, own) for part, own in ((q, None), (k, keys), (v, values)))
    mixed, log_sum = torch.empty_like(q), q.new_empty(len(q), q.shape[1] // settings.head_size, dtype=torch.float32)
    numbers = (settings.head_size, settings.scale, settings.causal, settings.attention_dropout, seeds.attention)
    native_module().varlen_attention(*map(to_dlpack, (q, k, v, *sequences.cu_seqlens, mixed, log_sum)), *numbers)
    read = mixed if rows is None else rows.tokens_of(mixed)
    (part,), terms_o = products.forward(read, [block.o_proj], seeds.o_proj)
    x1 = sum1 = parts.residual(x, part, settings.hidden_dropout, seeds.residual1, terms_o)
    if not pre_norm:
        x1, stats1 = parts.norm(settings, sum1, block.norm1)
    normed = x1
    if pre_norm:
        normed, stats2 = parts.norm(settings, x1, block.norm2)
    (*gates, up), terms_up = products.forward(normed, block.gate_and_up, seeds.gate_and_up)
    gate = gates[0] if gates else None
    inner = parts.drop(parts.activate(settings, up, gate), settings.mlp_dropout, seeds.activation)
    (part,), terms_down = products.forward(inner, [block.down_proj], seeds.down_proj)
    y = sum2 = parts.residual(x1, part, settings.hidden_dropout, seeds.residual2, terms_down)
    if not pre_norm:
        y, stats2 = parts.norm(settings, sum2, block.norm2)
    sums = (sum1, *stats1, gate, up, None if pre_norm else sum2, *stats2)
    return y, SavedActivations(x, q, k, v, mixed, log_sum, *sums, terms_qkv, terms_o, terms_up, terms_down)


def _backward(
    settings: BlockSettings,
    grad_y: torch.Tensor,
    sequences: PackedSequences,
    block: BlockParameters,
    saved: SavedActivations,
    seeds: Seeds,
    gradients: Gradients,
    needs_x: bool,
) -> BlockGradients:
    """The gradients of x and of a prefix; those of the parameters are written to ``gradients``."""
    if settings.pre_norm:
        x1 = saved.sum1
    else:
        assert saved.sum2 is not None
        grad_y = parts.norm_backward(settings, saved.sum2, block.norm2, saved.norm2, grad_y, gradients)
        x1, _ = parts.norm(settings, saved.sum1, block.norm1)
    grad_normed = _mlp_backward(settings, x1, grad_y, block, saved, seeds, gradients)
    if settings.pre_norm:
        grad_normed = parts.norm_backward(settings, x1, block.norm2, saved.norm2, grad_normed, gradients)
    grad_x1 = grad_normed.add_(grad_y)
    if not settings.pre_norm:
        grad_x1 = parts.norm_backward(settings, saved.sum1, block.norm1, saved.norm1, grad_x1, gradients)
    return _attention_backward(settings, grad_x1, sequences, block, saved, seeds, gradients, needs_x)


def _mlp_backward(
    settings: BlockSettings,
    x1: torch.Tensor,
    grad_sum: torch.Tensor,
    block: BlockParameters,
    saved: SavedActivations,
    seeds: Seeds,
    gradients: Gradients,
) -> torch.Tensor:
    """The gradient of the input of gate_proj and up_proj, from that of the second residual sum."""
    inner = normed = None  # recomputed only if a gradient needs them
    if gradients.needs_input(block.down_proj):
        inner = parts.drop(parts.activate(settings, saved.up, saved.gate), settings.mlp_dropout, seeds.activation)
    if any(map(gradients.needs_input, block.gate_and_up)):
        normed = parts.norm(settings, x1, block.norm2)[0] if settings.pre_norm else x1
    grad_part = parts.drop(grad_sum, settings.hidden_dropout, seeds.residual2)
    grad_inner = products.backward(inner, [block.down_proj], saved.terms_down, [grad_part], seeds.down_proj, gradients)
    grad_inner = parts.drop(grad_inner, settings.mlp_dropout, seeds.activation)
    grad_up, grad_gate = parts.activate_backward(settings, saved.up, saved.gate, grad_inner)
    grads = [grad_up] if grad_gate is None else [grad_gate, grad_up]
    grad = products.backward(normed, block.gate_and_up, saved.terms_up, grads, seeds.gate_and_up, gradients)
    assert grad is not None
    return grad


def _attention_backward(
    settings: BlockSettings,
    grad_sum: torch.Tensor,
    sequences: PackedSequences,
    block: BlockParameters,
    saved: SavedActivations,
    seeds: Seeds,
    gradients: Gradients,
    needs_x: bool,
) -> BlockGradients:
    """The gradients of the block's input and of a prefix, from that of the first residual sum."""
    q, k, v = saved.q, saved.k, saved.v
    grad_part = parts.drop(grad_sum, settings.hidden_dropout, seeds.residual1)
    rows = sequences.rows
    read = saved.attention if rows is None else rows.tokens_of(saved.attention)
    grad_mixed = products.backward(read, [block.o_proj], saved.terms_o, [grad_part], seeds.o_proj, gradients)
    assert grad_mixed is not None
    grad_mixed = grad_mixed if rows is None else rows.insert_flat(grad_mixed)
    grads = [torch.empty_like(part) for part in (q, k, v)]
    numbers = (settings.head_size, settings.scale, settings.causal, settings.attention_dropout, seeds.attention)
    arrays = (q, k, v, *sequences.cu_seqlens, saved.attention, saved.log_sum, grad_mixed, *grads)
    native_module().varlen_attention_backward(*map(to_dlpack, arrays), *numbers)
    prefix_grads: tuple[OptionalTensor, OptionalTensor] = (None, None)
    if rows is not None:
        prefix_grads = (rows.virtual_sum(grads[1]), rows.virtual_sum(grads[2]))
        grads = [rows.tokens_of(part) for part in grads]
    grads[:2] = [parts.rotate(settings, part, sequences.cos_sin, -1.0) for part in grads[:2]]
    normed = saved.x
    if settings.pre_norm and any(map(gradients.needs_input, block.qkv)):
        normed = parts.norm(settings, saved.x, block.norm1)[0]
    needs_normed = needs_x or (settings.pre_norm and any(gradients.needed[:2]))
    grad = products.backward(normed, block.qkv, saved.terms_qkv, grads, seeds.qkv, gradients, needs_normed)
    if grad is None:
        return BlockGradients(None, *prefix_grads)
    if settings.pre_norm:
        grad = parts.norm_backward(settings, saved.x, block.norm1, saved.norm1, grad, gradients)
    return BlockGradients(grad.add_(grad_sum) if needs_x else None, *prefix_grads)
