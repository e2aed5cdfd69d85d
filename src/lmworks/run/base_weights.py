"""The weights of a model that is opened for a run: how the recipe has them held, and the formats that they can have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lmworks.adapt import registry as methods
from lmworks.base import process_memory
from lmworks.base.errors import InputError
from lmworks.families.opened import DTYPES
from lmworks.model import quantization, sizes
from lmworks.model.config import ModelConfig
from lmworks.model.quant_types import QuantType, quantized_bytes
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear, stored_layers, weight_bytes
from lmworks.model.transformer import Transformer
from lmworks.run.recipe import Recipe


@dataclass(frozen=True)
class WeightFormat:
    """How the model's own weights are stored in memory.

    Attributes:
        precision: as in ``train.base_precision``.
        size: bytes of all weights; None: 4 bytes each.
        dtype_names: data types or quantized formats, for messages.
        block_format: the quantized format of most matrices, such as nf4 or llama.cpp's Q4_1; empty: none is quantized.
        is_restorable: whether the weights can leave memory while copies in bfloat16 are used, because a file or
            quantized blocks contain them.
    """

    precision: str = "float32"
    size: int | None = None
    dtype_names: str = "float32"
    is_restorable: bool = False
    block_format: str = ""


def quantized_weights(config: ModelConfig, quant_type: QuantType) -> WeightFormat:
    """The format of a model whose linears are quantized: embeddings and head in bfloat16, all else in float32."""
    linears = sizes.linears(config)
    quantized = sum(quantized_bytes(linear.outputs, linear.inputs, quant_type) for linear in linears)
    tables = config.vocab_size * config.embedding_width
    if config.language_head and not config.tie_word_embeddings:
        tables *= 2
    rest = sizes.parameters(config)["total"] - sum(linear.weights for linear in linears) - tables
    return WeightFormat(
        quant_type, quantized + 2 * tables + 4 * rest, f"{quant_type} and bfloat16", block_format=quant_type
    )


def formats_of(network: Transformer, base_precision: str) -> list[WeightFormat]:
    """The formats in which the weights of an opened model can be held, the preferred one first, the smallest last.

    Args:
        network: as it was opened.
        base_precision: in which it was opened, as in ``train.base_precision``.
    """
    formats = Counter[str]()
    for _, layer in stored_layers(network):
        formats[layer.storage.dtype_name] += layer.storage.nbytes
    if not formats:
        blocks = ((parameter.data_ptr(), parameter.nbytes) for parameter in network.parameters())
        return [WeightFormat(is_restorable=process_memory.are_mapped(blocks))]
    precision = "stored" if base_precision == "auto" else base_precision
    names = " and ".join(name for name, _ in formats.most_common())
    block_formats = [name for name, _ in formats.most_common() if name not in DTYPES]
    stored = WeightFormat(precision, weight_bytes(network), names, block_format=next(iter(block_formats), ""))
    return [WeightFormat(is_restorable=bool(block_formats)), stored] if base_precision == "auto" else [stored]


def base_precision(recipe: Recipe) -> str:
    """The recipe's base_precision, or the method's; only frozen weights can have another precision than float32.

    Raises:
        InputError: the method trains the model's own weights, or holds them in another precision.
    """
    precision, of_method = recipe.train.base_precision, recipe.adaptation.base_precision
    if of_method != "auto":
        if precision not in ("auto", of_method):
            hint = f"leave it out, or train by --method {methods.default('opened').name}"
            fault = f"is {precision}, and method {recipe.method} holds the model's own weights in {of_method}"
            raise InputError(fault, "train.base_precision", hint)
        return of_method
    if recipe.adaptation.peft_type is not None or not recipe.adaptation.trains:
        return precision
    if precision in ("auto", "float32"):
        return "float32"
    fault = f"method {recipe.method} trains the model's own weights, which are float32"
    hint = f"--method {' or '.join(methods.names_with_adapters())}, or leave it out"
    raise InputError(fault, "train.base_precision", hint)


def quantize(network: Transformer, quant_type: QuantType) -> list[str]:
    """Quantize the linears of an opened model in place; returns a note if the file has them in blocks already."""
    blocks = sorted({layer.storage.dtype_name for _, layer in _layers_of_blocks(network)})
    quantization.quantize(network, quant_type)
    process_memory.release_memory()
    if not blocks:
        return []
    return [
        f"the file's weights in {' and '.join(blocks)} are quantized once more, to {quant_type}; "
        "--train.base_precision stored trains over them as they are"
    ]


def has_blocks(network: Transformer) -> bool:
    """Whether some of its weights are in llama.cpp's blocks."""
    return any(True for _ in _layers_of_blocks(network))


def _layers_of_blocks(network: Transformer) -> Iterator[tuple[str, StoredLinear | StoredEmbedding]]:
    return ((name, layer) for name, layer in stored_layers(network) if isinstance(layer.storage, BlockStorage))
