"""What the bits of a run's results depend on besides its settings: threads, precision, and matmul providers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lmworks.base import machine
from lmworks.base.journal import RunFolder
from lmworks.base.processor import use_threads
from lmworks.kernels import native_module, product_rates
from lmworks.kernels.matmul import available
from lmworks.kernels.product_shapes import (
    FORWARD,
    INPUT_GRADIENT,
    TOKENS,
    WEIGHT_GRADIENT,
    ProductShape,
    token_class,
)
from lmworks.model import sizes
from lmworks.model.attention import Attention
from lmworks.model.chunks import EVALUATED_LOGITS, trained_logits
from lmworks.model.config import ModelConfig
from lmworks.model.feedforward import FeedForward
from lmworks.model.linear_parameters import has_lora_term, is_fused_adapter
from lmworks.model.stored_layers import StoredLinear
from lmworks.model.transformer import Transformer
from lmworks.train.settings import TrainSettings, with_row_tokens

ROW_TOKENS = (512, 1024)  # classes of the tokens of a row in training
SMALL_NETWORK = 1 << 22  # parameters
# elements of a matrix, and multiply-adds of a product, below which no provider is worth measuring
SMALL_MATRIX, SMALL_PRODUCT = 1 << 13, 1 << 22


@dataclass(frozen=True)
class Arithmetic:
    """How a run computes, as far as the bits of its results depend on it.

    Attributes:
        precision: of the matrix products.
        reason: why this precision, as a sentence.
        providers: matmul provider by shape (kernels/matmul); PyTorch's own for all other shapes.
    """

    precision: str
    reason: str
    providers: dict[str, str]


def of_run(network: Transformer, run: RunFolder, settings: TrainSettings, device: torch.device) -> Arithmetic:
    """Set the number of threads, and choose precision and providers from this machine's measurements.

    A resumed run takes all three from its first session: rounding depends on them, and a new measurement may give
    another choice.
    """
    before = next(iter(run.events("session")), None)
    if before is not None:
        use_threads(settings.threads or before["threads"])
        return Arithmetic(str(before["precision"]), str(before["precision_reason"]), before.get("providers", {}))
    use_threads(settings.threads)
    rates = product_rates.fastest_rates() if settings.precision == "auto" and device.type == "cpu" else None
    precision, reason = machine.choose_precision(settings.precision, device.type, rates)
    start = next(iter(run.events("start")), {})
    if start.get("precision") == precision:  # the plan chose it, by memory too, and the settings hold its choice
        reason = str(start["precision_reason"])
    if device.type != "cpu":
        return Arithmetic(precision, reason, {})
    row_tokens = with_row_tokens(settings, network.config, precision).row_capacity
    return Arithmetic(precision, reason, training_providers(network, precision, row_tokens))


def training_providers(network: Transformer, precision: str, row_tokens: int) -> dict[str, str]:
    """The matmul provider of each shape of training, from cached measurements; missing ones are measured first.

    Args:
        network: as it is trained, with its adapters.
        precision: of the matrix products.
        row_tokens: largest number of tokens in a row.
    """
    return _fastest(precision, product_shapes(network, precision, row_tokens))


def evaluation_providers(network: Transformer) -> dict[str, str]:
    """The matmul provider of each shape of evaluation, in float32, which reads documents and generates texts."""
    return _fastest("float32", evaluation_shapes(network))


def _fastest(precision: str, product_shapes: set[ProductShape]) -> dict[str, str]:
    if native_module.native_module() is None or precision not in product_rates.precisions():
        return {}
    shapes = {str(shape) for shape in product_shapes}
    if not shapes:
        return {}
    rates = product_rates.product_rates({*shapes, *product_rates.limit_shapes(precision)})
    usable = available(precision)
    return {shape: provider for shape, provider in rates.choice(shapes).items() if provider in usable}


def product_shapes(network: Transformer, precision: str, row_tokens: int) -> set[ProductShape]:
    """The shapes of a training step's matrix products that are large enough for the provider to matter."""
    block_tokens = [tokens for tokens in ROW_TOKENS if tokens <= max(ROW_TOKENS[0], token_class(row_tokens))]
    head_tokens = trained_logits(network.config.vocab_size, precision)
    return {
        shape
        for inputs, outputs, is_trained, tokens in _matrices(network, block_tokens, [head_tokens])
        for layout in (FORWARD, INPUT_GRADIENT, *(WEIGHT_GRADIENT,) * is_trained)
        for shape in _worth_measuring(precision, layout, inputs, outputs, tokens)
    }


def evaluation_shapes(network: Transformer) -> set[ProductShape]:
    """The shapes of evaluation's products: of rows that pass through once, and of one token of several texts. None of a
    small network."""
    if is_small(network.config):
        return set()
    head_tokens = [tokens for tokens in TOKENS if tokens <= token_class(EVALUATED_LOGITS)]
    return {
        shape
        for inputs, outputs, _, tokens in _matrices(network, TOKENS, head_tokens)
        for shape in _worth_measuring("float32", FORWARD, inputs, outputs, tokens)
    }


def is_small(config: ModelConfig) -> bool:
    """Whether a network is evaluated in less time than a measurement of its products takes."""
    return sizes.parameters(config)["total"] < SMALL_NETWORK


def _worth_measuring(
    precision: str, layout: str, inputs: int, outputs: int, row_tokens: Sequence[int]
) -> Iterator[ProductShape]:
    for tokens in row_tokens:
        if inputs * outputs >= SMALL_MATRIX and inputs * outputs * tokens >= SMALL_PRODUCT:
            yield ProductShape.of_linear(precision, layout, inputs, outputs, tokens)


def _matrices(
    network: Transformer, block_tokens: Sequence[int], head_tokens: Sequence[int]
) -> Iterator[tuple[int, int, bool, Sequence[int]]]:
    """(inputs, outputs, is trained, classes of tokens) of every matrix, in blocks and in the head."""
    for module in network.modules():
        if module is not network.lm_head and module is not network.head_table:
            yield from ((*linear, block_tokens) for linear in _linears(module))
    if network.config.language_head:
        is_trained = any(parameter.requires_grad for parameter in network.head_table.parameters())
        yield network.config.embedding_width, network.config.vocab_size, is_trained, head_tokens


def _linears(module: nn.Module) -> list[tuple[int, int, bool]]:
    """(inputs, outputs, is trained) of each matrix that a module multiplies by, besides those of its submodules."""
    if isinstance(module, nn.Linear):
        return [(module.in_features, module.out_features, module.weight.requires_grad)]
    if isinstance(module, StoredLinear):
        return [(module.in_features, module.out_features, False)]
    if is_fused_adapter(module):
        added = [tensor.shape for tensor in module.fused_term()[1] if tensor.ndim == 2]
        return [(inputs, outputs, True) for outputs, inputs in added]
    if isinstance(module, Attention):
        return _joined_lora_terms(module.q_proj, module.k_proj, module.v_proj)
    if isinstance(module, FeedForward):
        return _joined_lora_terms(module.gate_proj, module.up_proj)
    return []


def _joined_lora_terms(*linears: nn.Module | None) -> list[tuple[int, int, bool]]:
    """The matrix that the factors A of linears with the same input are joined to (model/products)."""
    factors = [linear.lora_A for linear in linears if linear is not None and has_lora_term(linear)]
    return [(factors[0].shape[1], sum(map(len, factors)), True)] if len(factors) > 1 else []
