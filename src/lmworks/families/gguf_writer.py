"""A model -> a GGUF file that llama.cpp, transformers and families/gguf open: wholly or not at all.

All that can fail because of the model (its config, its tokenizer, the shapes of its matrices) is checked before a byte
is written. Then one matrix at a time is encoded and written, into a file that takes its place when it is complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_file, check_disk_space, remove_leftovers
from lmworks.families.family import Family
from lmworks.families.gguf_file import MAGIC
from lmworks.families.gguf_layout import is_offset, paired_heads, rope_tensors, rows_of, to_pairs
from lmworks.families.gguf_metadata import architecture_of, check_metadata, metadata_of, notes_of
from lmworks.families.gguf_tokenizer_metadata import model_name, tokenizer_metadata
from lmworks.families.mapping import Row
from lmworks.model.block_formats import divides, encode
from lmworks.model.config import ModelConfig
from lmworks.model.storage import BlockStorage, WeightStorage, block_sizes
from lmworks.model.stored_layers import stored_layers
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

Weight = torch.Tensor | WeightStorage
DENSE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TABLES = ("token_embd.weight", "output.weight")
POSITIONS = "position_embd.weight"
TABLE_KIND = "Q8_0"
FALLBACK_KIND = "F16"  # of matrices whose rows are not whole blocks
HEADER_BYTES = 1 << 20  # of the metadata but for the vocabulary, at most
TYPES = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}


@dataclass(frozen=True)
class WrittenGGUF:
    """A GGUF file that was written.

    Attributes:
        path: the file.
        nbytes: its size.
        kinds: how many matrices are stored in each format, such as {"Q4_0": 210, "Q8_0": 1}.
        notes: what a person should know about it.
    """

    path: Path
    nbytes: int
    kinds: Mapping[str, int]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _TensorPlan:
    """A tensor that is to be written.

    Attributes:
        name: llama.cpp's name.
        parts: our weights, one under another.
        heads: of each part: the heads whose rows llama.cpp stores as pairs; None: rows keep their order.
        shape: of the tensor.
        kind: its format.
        offset: what is added to its numbers.
    """

    name: str
    parts: Sequence[Weight]
    heads: Sequence[int | None]
    shape: tuple[int, ...]
    kind: str
    offset: float = 0.0

    @property
    def nbytes(self) -> int:
        count = int(np.prod(self.shape, dtype=np.int64))
        if self.kind in DENSE:
            return count * DENSE[self.kind].itemsize
        columns, size = block_sizes(self.kind)
        return count // columns * size


def write_gguf(
    path: str | Path,
    network: Transformer,
    config: ModelConfig,
    family: Family,
    tokenizer: Tokenizer | None,
    kind: str,
    name: str = "",
    overwrite: bool = False,
) -> WrittenGGUF:
    """Write a GGUF file.

    Matrices are stored in ``kind``. Norms, biases and the table of learned positions are float32, as llama.cpp expects.
    With a quantized kind the token embeddings and the head, which lose most by rounding, are Q8_0; a matrix whose rows
    are not whole blocks stays in float16. What the network holds in blocks of the right format already (of the tables,
    in blocks of any format) is written as it is, byte for byte.

    Args:
        path: the file; its name ends in ``.gguf``.
        network: without adapters.
        config, family: what it is, and its family.
        tokenizer: which the file must have.
        kind: F32, F16, BF16, or a format of model/block_formats.
        name: of the model, as people call it.
        overwrite: replace a GGUF file that is there.

    Raises:
        InputError: the place is taken or has no room, or the model cannot be written without a loss that is more than
            rounding: names what.
    """
    path, place = Path(path), str(path)
    check_gguf_place(path, overwrite)
    architecture = architecture_of(config, family, place)
    if tokenizer is None:
        hint = "put its tokenizer.json into the model's folder"
        raise InputError("a GGUF file holds a tokenizer, and this model came without one", place, hint)
    plans = _plan(network, config, architecture, kind, place)
    metadata = metadata_of(config, architecture, model_name(name or family.name, tokenizer), kind)
    divisors = rope_tensors(config)
    check_metadata(config, metadata, {tensor.name for tensor in plans}, divisors, place)
    tokenizer_keys, notes = tokenizer_metadata(tokenizer, config.vocab_size, place, metadata["general.name"])
    notes += notes_of(config, architecture)
    for tensor, values in divisors.items():
        plans.append(_TensorPlan(tensor, [torch.from_numpy(values)], [None], values.shape, "F32"))
    _write(path, architecture, metadata | tokenizer_keys, plans)
    kinds = Counter(tensor.kind for tensor in plans if len(tensor.shape) == 2 and tensor.name != POSITIONS)
    if kind not in DENSE and kinds[FALLBACK_KIND]:
        columns = sorted({tensor.shape[1] for tensor in plans if tensor.kind == FALLBACK_KIND})
        block = block_sizes(kind)[0]
        notes.append(
            f"{kinds[FALLBACK_KIND]} matrices stay in float16: rows of {', '.join(map(str, columns))} are not whole "
            f"blocks of {block}"
        )
    return WrittenGGUF(path, path.stat().st_size, dict(kinds.most_common()), notes)


def check_gguf_place(path: Path, overwrite: bool = False) -> None:
    """Refuse a place that a GGUF file must not be written to.

    Raises:
        InputError: a name that does not end in .gguf, a folder, or a file; with ``overwrite``, one that is not GGUF.
    """
    if path.suffix.lower() != ".gguf":
        raise InputError("the name of a GGUF file ends in .gguf", str(path), f"such as {path.with_suffix('.gguf')}")
    if path.is_dir():
        raise InputError("a folder of this name stands in the way", str(path), "choose another name")
    if not path.exists():
        return
    if not overwrite:
        hint = "choose another name, or replace it with --overwrite (in Python overwrite=True)"
        raise InputError("is there already", str(path), hint)
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError("is no GGUF file, and is not replaced", str(path), "choose another name")


def _plan(network: Transformer, config: ModelConfig, architecture: str, kind: str, place: str) -> list[_TensorPlan]:
    """What is to be written, in the order of the table of names.

    Raises:
        InputError: the network has other weights than the table, or no matrix can have the format.
    """
    weights: dict[str, Weight] = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    weights |= {f"{name}.weight": layer.storage for name, layer in stored_layers(network)}
    rows = rows_of(architecture, config)
    named = {name for row in rows for name in row.parts}
    if strange := sorted(named ^ set(weights)):
        verb = "does not have" if strange[0] in weights else "needs"
        fault = f"{strange[0]} is a weight that llama.cpp's architecture {architecture} {verb}"
        raise InputError(fault, place, "lmworks save writes the model as a Hugging Face folder")
    heads = paired_heads(architecture, config, weights)
    plans = [_plan_tensor(row, weights, heads, kind, float(is_offset(row.theirs, config))) for row in rows]
    if kind not in DENSE and not any(tensor.kind == kind for tensor in plans):
        block = block_sizes(kind)[0]
        fault = f"no matrix of the model can be stored in {kind}: none has rows of whole blocks of {block}"
        raise InputError(
            fault, place, "choose q8, whose blocks are of 32" if block > 32 else "write it with lmworks export"
        )
    return plans


def _plan_tensor(
    row: Row, weights: Mapping[str, Weight], heads: Mapping[str, int], kind: str, offset: float
) -> _TensorPlan:
    """The plan of one row of the table of names."""
    parts = [weights[name] for name in row.parts]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    counts = [heads.get(name) for name in row.parts]
    return _TensorPlan(row.theirs, parts, counts, shape, _kind_of(row.theirs, parts, shape, kind), offset)


def _kind_of(name: str, parts: Sequence[Weight], shape: tuple[int, ...], kind: str) -> str:
    """The format of a tensor; see :func:`write_gguf`."""
    if len(shape) == 1 or name == POSITIONS:
        return "F32"
    if kind in DENSE:
        return kind
    stored_kinds = {part.kind if isinstance(part, BlockStorage) else None for part in parts}
    if name in TABLES and None not in stored_kinds and len(stored_kinds) == 1:
        return str(*stored_kinds)
    target = TABLE_KIND if name in TABLES else kind
    return target if divides(shape[1], target) else FALLBACK_KIND


def _write(path: Path, architecture: str, metadata: Mapping[str, Any], plans: Sequence[_TensorPlan]) -> None:
    texts = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.merges", [])
    header = HEADER_BYTES + sum(16 + 4 * len(text) for listed in texts for text in listed)
    size = header + sum(tensor.nbytes for tensor in plans)
    check_disk_space(path, size, "the GGUF file")
    remove_leftovers(path)
    with atomic_file(path, size) as file:
        writer = gguf.GGUFWriter(None, architecture)
        try:
            _add_metadata(writer, metadata)
            for tensor in plans:
                kind = gguf.GGMLQuantizationType[tensor.kind]
                writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, kind)
            writer.write_header_to_file(Path(file.name))
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in plans:
                writer.write_tensor_data(_bytes_of(tensor, str(path)))
        finally:
            writer.close()


def _add_metadata(writer: Any, metadata: Mapping[str, Any]) -> None:
    values = gguf.GGUFValueType
    for key, value in metadata.items():
        if key == "general.architecture":  # which the library adds itself
            continue
        if isinstance(value, np.ndarray):
            kind = values.INT32 if value.dtype == np.int32 else values.FLOAT32
            writer.add_key_value(key, value.tolist(), values.ARRAY, kind)
        elif isinstance(value, list):
            if value:  # the format has no empty arrays of texts
                writer.add_key_value(key, value, values.ARRAY, values.STRING)
        else:
            writer.add_key_value(key, value, values[TYPES[type(value)]])


def _bytes_of(tensor: _TensorPlan, place: str) -> np.ndarray:
    """A tensor's bytes in the file.

    Raises:
        InputError: it has numbers that are not finite, or that its format cannot hold.
    """
    place = f"{place}, {tensor.name}"
    if all(isinstance(part, BlockStorage) and part.kind == tensor.kind for part in tensor.parts):
        blocks = [part.blocks for part in tensor.parts if isinstance(part, BlockStorage)]
        return _ordered(blocks, tensor.heads).numpy()
    parts = [part if isinstance(part, torch.Tensor) else part.dequantized() for part in tensor.parts]
    numbers = _ordered(parts, tensor.heads)
    if tensor.kind not in DENSE:
        return encode(numbers, tensor.kind, place=place).blocks.numpy()
    if tensor.offset:
        numbers = numbers.float() + tensor.offset
    rounded = numbers.to("cpu", DENSE[tensor.kind])
    if not torch.isfinite(rounded).all():
        fault = f"numbers are not finite, or too large for {str(rounded.dtype).removeprefix('torch.')}"
        raise InputError(fault, place, "bfloat16 and float32 have the range; a model that is not finite is broken")
    return rounded.contiguous().view(torch.uint8).numpy()


def _ordered(parts: Sequence[torch.Tensor], heads: Sequence[int | None]) -> torch.Tensor:
    """Parts one under another, in llama.cpp's order of rows."""
    pieces = [part if count is None else to_pairs(part, count) for part, count in zip(parts, heads, strict=True)]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).contiguous()
