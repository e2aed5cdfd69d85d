"""Activation-aware scaling of input channels before rounding.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration" (arXiv 2306.00978),
section 3.2. Columns of a matrix that meet large inputs are multiplied by a scale before the matrix is rounded, and the
inputs divided by it: their weights are rounded more finely. The scales of a matrix are the mean magnitudes of its
inputs to a power, and the power is the one, of a grid, with the smallest error of the outputs (equations 4 and 5).

The division is folded into what comes before the linear, where that is exact:

    input_layernorm           -> q_proj, k_proj, v_proj    norms with a weight for each channel, before the residual
    post_attention_layernorm  -> gate_proj, up_proj        branches off (norm_position pre or both)
    up_proj                   -> down_proj                 in gated feed-forwards: act(gate(x)) * up(x)
    v_proj                    -> o_proj                    where every query head has its own values
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from lmworks.calibrate.inputs import LinearInputs
from lmworks.model.config import ModelConfig
from lmworks.model.norm import OffsetRMSNorm
from lmworks.model.rounding_rules import Rule

STEPS = 20
"""Powers of the grid: 0, 1/20 ... 19/20, as in the authors' code."""
LEAST_SHARE = 1e-4
"""The smallest magnitude of a channel, as a share of the mean: one that is always zero would have no scale."""


class Fold(NamedTuple):
    """Linears of a block that read the same input, and what can divide it.

    Attributes:
        readers: names of all linears that read it.
        producer: name of the norm or linear whose output it is, if need be multiplied by what does not depend on the
            producer.
    """

    readers: tuple[str, ...]
    producer: str


def folds(config: ModelConfig) -> list[Fold]:
    """The exact folds of a decoder's blocks."""
    result = []
    if config.norm_position != "post":
        queries_keys_values = tuple(f"self_attn.{name}_proj" for name in "qkv")
        result.append(Fold(queries_keys_values, "input_layernorm"))
        ups = ("mlp.gate_proj", "mlp.up_proj") if config.gated else ("mlp.up_proj",)
        result.append(Fold(ups, "post_attention_layernorm"))
    if config.key_value_heads == config.num_attention_heads:
        result.append(Fold(("self_attn.o_proj",), "self_attn.v_proj"))
    if config.gated:
        result.append(Fold(("mlp.down_proj",), "mlp.up_proj"))
    return result


@torch.no_grad()
def scale_block(block: nn.Module, config: ModelConfig, inputs: list[LinearInputs], rule: Rule) -> list[LinearInputs]:
    """Scale the channels of a block's linears in place, where a fold is exact and lowers the error.

    Args:
        block: with plain linears.
        config: of its network.
        inputs: of its linears.
        rule: that rounds them.

    Returns:
        The inputs as they are afterwards; the block computes the same as before, but for float rounding.
    """
    exact = {frozenset(fold.readers): fold for fold in folds(config)}
    result = []
    for sums in inputs:
        fold = exact.get(frozenset(sums.names))
        if fold is None:
            result.append(sums)
            continue
        weight = torch.cat([block.get_submodule(name).get_parameter("weight") for name in fold.readers])
        scales = search_scales(weight, sums, rule)
        if scales is None:
            result.append(sums)
            continue
        apply_fold(block, fold, scales)
        result.append(sums.divided(scales))
    return result


def search_scales(weight: torch.Tensor, inputs: LinearInputs, rule: Rule, steps: int = STEPS) -> torch.Tensor | None:
    """The scales (in,) of the grid with the smallest error of the outputs; None: rounding is best without scales.

    Args:
        weight: (out, in) of all linears that read the inputs.
        inputs: their sums.
        rule: of rounding.
        steps: of the grid.
    """
    weight = weight.detach().float()
    magnitudes = inputs.magnitudes.clamp_min(LEAST_SHARE * float(inputs.magnitudes.mean()))
    best, least = None, output_error(rule(weight).dequantized() - weight, inputs.products)
    if not float(magnitudes.min()) > 0:
        return None
    for step in range(1, steps):
        scales = magnitudes.pow(step / steps)
        scales = scales / (scales.max() * scales.min()).sqrt()  # around 1, so that the producer's numbers stay so
        error = output_error(rule(weight * scales).dequantized() / scales - weight, inputs.products)
        if error < least:
            best, least = scales, error
    return best


def output_error(error: torch.Tensor, products: torch.Tensor) -> float:
    """The squared error of a linear's outputs, summed over tokens and outputs: ||X E^T||^2 = sum of (E X^T X) * E.

    Args:
        error: E (out, in), the error of the weights.
        products: X^T X (in, in).
    """
    return float(((error @ products) * error).sum())


@torch.no_grad()
def apply_fold(block: nn.Module, fold: Fold, scales: torch.Tensor) -> None:
    """Multiply the readers' columns by scales (in,) above 0, and divide the producer's outputs by them.

    Tensors are replaced, not written to: they may be mapped from a file.
    """
    for name in fold.readers:
        weight = block.get_submodule(name).get_parameter("weight")
        weight.data = weight.data * scales
    producer = block.get_submodule(fold.producer)
    weight, bias = producer.get_parameter("weight"), getattr(producer, "bias", None)
    if isinstance(producer, OffsetRMSNorm):
        weight.data = (1.0 + weight.data) / scales - 1.0
    else:
        weight.data = weight.data / (scales[:, None] if weight.ndim == 2 else scales)
    if bias is not None:
        bias.data = bias.data / scales
