"""A network whose frozen linears are in NF4 or int8 (model/blockwise): the base that QLoRA trains over."""

from __future__ import annotations

import torch
from torch import nn

from lmworks.base import process_memory
from lmworks.model.blockwise import BlockwiseStorage
from lmworks.model.quant_types import QuantType
from lmworks.model.sizes import linears
from lmworks.model.storage import DenseStorage, WeightStorage
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear, store, stored_layers
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer

TABLES = ("embed_tokens", "lm_head")


def quantize(network: Transformer, quant_type: QuantType) -> None:
    """Quantize the linears of a network's blocks in place, one matrix at a time; those that are quantized so already,
    and weights without data, stay as they are. Embeddings and head are kept, float32 ones rounded to bfloat16; norms
    and biases stay float32.

    Args:
        network: without adapters. Its linears and embeddings may have storages, which are dequantized first.
        quant_type: of the linears.
    """
    names = {linear.name for linear in linears(network.config)}
    for name, module in list(named_linears(network)):
        weight = _weight(module)
        if name in names and weight is not None and not _is_quantized(weight):
            matrix = weight if isinstance(weight, torch.Tensor) else weight.dequantized()
            store(network, name, BlockwiseStorage.quantize(matrix, quant_type))
            _release(weight)
    for name in TABLES:
        table = getattr(network, name)
        weight = None if table is None else _weight(table)
        dense = weight.tensor if isinstance(weight, DenseStorage) else weight
        if isinstance(dense, torch.Tensor) and dense.dtype == torch.float32:
            store(network, name, DenseStorage(dense.detach().bfloat16()))
            _release(dense)


def quantization_of(network: Transformer) -> QuantType | None:
    """The type to which a network's linears were quantized, also if they were widened since; None: they were not."""
    storages = [*network.dequantized_from.values(), *(layer.storage for _, layer in stored_layers(network))]
    return next((storage.dtype_name for storage in storages if isinstance(storage, BlockwiseStorage)), None)


def _weight(module: nn.Module) -> torch.Tensor | WeightStorage | None:
    """The matrix of a linear or embedding; None if it has no data."""
    if isinstance(module, StoredLinear | StoredEmbedding):
        return module.storage
    weight = getattr(module, "weight", None)
    return None if weight is None or weight.is_meta else weight


def _is_quantized(weight: torch.Tensor | WeightStorage) -> bool:
    return isinstance(weight, BlockwiseStorage)


def _release(weight: torch.Tensor | WeightStorage) -> None:
    """Take the pages of a weight that is mapped from a file, and no longer used, out of memory."""
    tensor = weight.tensor if isinstance(weight, DenseStorage) else weight
    if isinstance(tensor, torch.Tensor):
        process_memory.drop_mapped([(tensor.data_ptr(), tensor.nbytes)])
