"""A decoder's linears in four bits, chosen block after block by what calibration rows make of them.

Each block reads what the quantized blocks below it give, so that it can make up for their errors. Of the rows, only the
input of one block is kept at a time, and the sums of one block's linears.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from lmworks.base.errors import InputError
from lmworks.calibrate.gptq import quantize_matrix
from lmworks.calibrate.inputs import LinearInputs, record_inputs
from lmworks.calibrate.scaling import scale_block
from lmworks.data.batch import Batch
from lmworks.model.block import BlockInputs
from lmworks.model.config import ModelConfig
from lmworks.model.forward import hidden_states
from lmworks.model.four_bit_blocks import FourBitKind
from lmworks.model.rounding_rules import GROUP, RULES
from lmworks.model.sizes import linears
from lmworks.model.stored_layers import store, stored_layers
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer

BlockCall = tuple[torch.Tensor, BlockInputs]
"""What a block is called with: (B, T, E), and what all blocks share."""
Progress = Callable[[int, int], None]
"""Called with the number of blocks that are done, and that of all blocks."""


def check_decoder(config: ModelConfig) -> None:
    """Raise if the linears of such a model cannot be calibrated.

    Raises:
        InputError: it is no decoder with attention, its blocks share weights, or the columns of a matrix are no whole
            number of groups; names the matrix.
    """
    any_shape = "lmworks save MODEL FOLDER --quantize nf4 takes any model"
    if config.architecture != "decoder" or config.layer != "attention":
        is_decoder = config.architecture == "decoder"
        kind = f"a decoder of {config.layer} layers" if is_decoder else f"an {config.architecture}"
        raise InputError(f"calibration is of decoders with attention, and this model is {kind}", "model", any_shape)
    if config.num_layer_groups is not None:
        raise InputError("its layers share their weights, of which each would ask for others", "model", any_shape)
    for linear in linears(config):
        if linear.inputs % GROUP:
            fault = f"it has {linear.inputs} columns, which are no whole number of groups of {GROUP}"
            raise InputError(fault, linear.name, any_shape)


@torch.no_grad()
def quantize_blocks(
    network: Transformer,
    batches: Sequence[Batch],
    kind: FourBitKind = "Q4_1",
    scaling: bool = False,
    progress: Progress | None = None,
) -> None:
    """Quantize the linears of a decoder's blocks in place: GPTQ, if asked for after activation-aware scaling.

    Embeddings, head, norms and biases stay as they are, but for norms and biases that scales are folded into.

    Args:
        network: on the CPU, in float32, without adapters and storages.
        batches: calibration rows.
        kind: of the blocks of all linears.
        scaling: whether channels are scaled first where that is exact (calibrate/scaling).
        progress: called after every block.

    Raises:
        InputError: see :func:`check_decoder`; or the rows make numbers that are not finite.
        ValueError: the network has weights in a storage.
    """
    check_decoder(network.config)
    if next(stored_layers(network), None) is not None:
        raise ValueError("the network's weights are in a storage: widen them first")
    training = network.training
    network.eval()
    try:
        calls = block_calls(network, batches)
        for index, block in enumerate(network.layers):
            inputs = _inputs_of(block, calls, f"layers.{index}")
            if scaling:
                inputs = scale_block(block, network.config, inputs, RULES[kind])
            for sums in inputs:
                _quantize_linears(network, f"layers.{index}", sums, kind)
            calls = [(block(x, shared), shared) for x, shared in calls]
            if progress is not None:
                progress(index + 1, len(network.layers))
    finally:
        network.train(training)


class _FirstBlock(Exception):
    """The first block was reached."""


def block_calls(network: Transformer, batches: Sequence[Batch]) -> list[BlockCall]:
    """What the first block is called with for each batch; the pass is stopped there by an exception."""
    calls: list[BlockCall] = []

    def keep(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        calls.append((arguments[0], arguments[1]))
        raise _FirstBlock

    handle = network.layers[0].register_forward_pre_hook(keep)
    try:
        for batch in batches:
            with suppress(_FirstBlock):
                hidden_states(network, batch)
    finally:
        handle.remove()
    return calls


def _inputs_of(block: nn.Module, calls: Sequence[BlockCall], name: str) -> list[LinearInputs]:
    """The sums of what a block's linears read.

    Raises:
        InputError: some are not finite.
    """
    with record_inputs(dict(named_linears(block))) as inputs:
        for x, shared in calls:
            block(x, shared)
    for sums in inputs:
        if not bool(sums.products.isfinite().all()):
            fault = "the calibration rows make inputs that are not finite numbers"
            raise InputError(fault, f"{name}.{sums.names[0]}", "open the model in float32, or leave these rows out")
    return inputs


def _quantize_linears(network: Transformer, block: str, inputs: LinearInputs, kind: FourBitKind) -> None:
    """Quantize linears that read the same input as one matrix, since GPTQ computes each row by itself."""
    weights = [network.get_submodule(f"{block}.{name}").get_parameter("weight") for name in inputs.names]
    storage = quantize_matrix(torch.cat([weight.float() for weight in weights]), inputs.products, kind)
    begin = 0
    for name, weight in zip(inputs.names, weights, strict=True):
        store(network, f"{block}.{name}", storage.rows(slice(begin, begin + len(weight))))
        network.dequantized_from.pop(f"{block}.{name}", None)  # the file's blocks are no longer the weight's
        begin += len(weight)
