"""A model as it comes out of a file, of whatever format: config, network, tokenizer, and what else stood there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from lmworks.base import process_memory
from lmworks.base.errors import InputError
from lmworks.families.family import Family
from lmworks.model.config import ModelConfig
from lmworks.model.storage import BlockStorage, DenseStorage, WeightStorage
from lmworks.model.stored_layers import store
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer

if TYPE_CHECKING:
    from lmworks.families.sentence_pooling import SentencePooling
    from lmworks.text.tokenizer import Tokenizer

STORAGES = ("bfloat16", "stored")
CHECKED_BYTES, CHECKED_ROWS = 1_000_000_000, 16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Opened:
    """A model that was opened.

    Attributes:
        config: what it is.
        network: its weights, in evaluation mode.
        tokenizer: None where the folder has none.
        hf_config: its config.json (made from the metadata where it came as GGUF).
        generation: its generation_config.json (made from config.json or the metadata where there is none).
        family: whose names it uses on disk.
        notes: what a person should know about it.
        pooling: how it makes one vector of a text, where it is a sentence encoder.
    """

    config: ModelConfig
    network: Transformer
    tokenizer: Tokenizer | None
    hf_config: dict[str, Any]
    family: Family
    generation: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pooling: SentencePooling | None = None


def dtype_of(name: str) -> torch.dtype:
    """A data type by its name.

    Raises:
        InputError: not one that weights can be held in.
    """
    if name not in DTYPES:
        raise InputError(f"{name!r} is not a data type of weights", "dtype", "one of " + ", ".join(DTYPES))
    return DTYPES[name]


def read_dtype(dtype: str, storage: str | None, device: str) -> torch.dtype | None:
    """The data type that tensors are read in; None: each as the file has it.

    Raises:
        InputError: no such data type, or a storage on another device than the CPU.
    """
    if storage is None:
        return dtype_of(dtype)
    if storage not in STORAGES:
        raise InputError(f"{storage!r} is not a storage of weights", "storage", "one of " + ", ".join(STORAGES))
    if device != "cpu":
        raise InputError(f"weights in a storage are on the CPU, not on {device}", "storage", "leave storage out")
    return torch.bfloat16 if storage == "bfloat16" else None


def shapes_of(network: Transformer) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by its name."""
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


def matrices_of(network: Transformer) -> set[str]:
    """Names of the weights that may lie in a storage: token embeddings, the head, and the linears of the blocks."""
    linears = {f"{name}.weight" for name, _ in named_linears(network) if not name.startswith("heads.")}
    return {"embed_tokens.weight", *linears}


def with_storages(
    network: Transformer, tensors: Mapping[str, torch.Tensor], kinds: Mapping[str, str] | None = None
) -> dict[str, torch.Tensor | WeightStorage]:
    """Tensors for :func:`fill`: matrices in storages, all else (norms, biases, positions) in float32.

    Args:
        network: empty.
        tensors: by our names; quantized matrices as (rows, bytes of a row) uint8.
        kinds: the quantized format of these, by our names.
    """
    matrices = matrices_of(network)
    result: dict[str, torch.Tensor | WeightStorage] = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.uint8:
            result[name] = BlockStorage(tensor, (kinds or {})[name])
        else:
            result[name] = DenseStorage(tensor) if name in matrices else tensor.float()
    return result


def not_finite(tensors: Mapping[str, torch.Tensor], place: str, drops: bool = False) -> list[str]:
    """A note where weights are infinite or no numbers (NaN): nothing right comes of such a model.

    A model of at most CHECKED_BYTES is checked whole; of a larger one, whose weights would all have to be read from the
    disk for it, some rows of each matrix are.

    Args:
        tensors: by our names, as they were read.
        place: where they are from.
        drops: take the pages that were read for it out of memory, which the weights need as long as they are used.
    """
    weights = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    whole = sum(tensor.nbytes for tensor in weights.values()) <= CHECKED_BYTES
    bad = {}
    for name, tensor in weights.items():
        some = tensor if whole or tensor.ndim < 2 else tensor[:: max(len(tensor) // CHECKED_ROWS, 1)]
        # a sum is finite where all its terms are; only where it is not, they are looked at one by one
        if not math.isfinite(some.sum(dtype=torch.float32)) and (count := int((~some.isfinite()).sum())):
            bad[name] = count
        if drops:
            process_memory.drop_mapped([(tensor.data_ptr(), tensor.nbytes)])
    if not bad:
        return []
    first = ", ".join(f"{name} ({count})" for name, count in list(bad.items())[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return [f"{place}: weights are infinite or not a number, the model cannot give right answers: {first}{more}"]


def fill(network: Transformer, tensors: Mapping[str, torch.Tensor | WeightStorage], device: str) -> Transformer:
    """Make ``tensors`` (by our names, all of them) the weights of an empty network, without copying them.

    Storages replace the weights of linears and embeddings, which are frozen then.
    """
    plain = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
    for name, storage in tensors.items():
        if not isinstance(storage, torch.Tensor):
            store(network, name.removesuffix(".weight"), storage)
    network.load_state_dict(plain, assign=True)
    if device != "cpu":
        network.to(device)
    return network.eval()
