"""Storage of frozen weights: dense or quantized matrices behind one protocol.

A matmul dequantizes the matrix to its own precision, one matrix at a time; plans, fingerprints and saving use its bytes
and data type. llama.cpp's quantized formats (https://github.com/ggml-org/ggml, ggml-common.h) store blocks of
consecutive columns, each with its own scale, so rows can be selected without decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from lmworks.kernels.quantized import can_dequantize, dequantize

BLOCK = 32  # columns of a block in the formats decoded here
PART = 1 << 22  # elements of a large matrix that are dequantized at a time: 16 MB in float32
# Elements that PyTorch decodes at a time: so few that one thread computes them and its cache holds them.
CHUNK = 1 << 15


@runtime_checkable
class WeightStorage(Protocol):
    """A frozen matrix (rows, columns)."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""

    @property
    def dtype_name(self) -> str:
        """Such as float32, bfloat16 or Q4_1."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""

    def dequantized(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """(rows, columns) in ``dtype``; the stored tensor itself if it has this dtype."""

    def rows(self, index: torch.Tensor | slice) -> WeightStorage:
        """The storage of some rows, in the order of an (n,) int64 index."""


@dataclass(frozen=True)
class DenseStorage:
    """A matrix in float32, bfloat16 or float16.

    Attributes:
        tensor: (rows, columns).
    """

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """See :class:`WeightStorage`."""
        rows, columns = self.tensor.shape
        return rows, columns

    @property
    def dtype_name(self) -> str:
        """See :class:`WeightStorage`."""
        return str(self.tensor.dtype).removeprefix("torch.")

    @property
    def nbytes(self) -> int:
        """See :class:`WeightStorage`."""
        return self.tensor.nbytes

    def dequantized(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """See :class:`WeightStorage`."""
        return self.tensor.to(dtype)

    def rows(self, index: torch.Tensor | slice) -> DenseStorage:
        """See :class:`WeightStorage`."""
        return DenseStorage(self.tensor[index])


@dataclass(frozen=True)
class BlockStorage:
    """A matrix in one of llama.cpp's quantized formats.

    Attributes:
        blocks: (rows, bytes of a row) uint8: the blocks of each row, as in a GGUF file.
        kind: the format, such as Q4_1.
    """

    blocks: torch.Tensor
    kind: str

    @classmethod
    def zeros(cls, rows: int, columns: int, kind: str) -> BlockStorage | None:
        """A matrix of zeros; None if a row is not a whole number of blocks."""
        block, size = block_sizes(kind)
        return None if columns % block else cls(torch.zeros(rows, columns // block * size, dtype=torch.uint8), kind)

    @property
    def shape(self) -> tuple[int, int]:
        """See :class:`WeightStorage`."""
        columns, size = block_sizes(self.kind)
        return self.blocks.shape[0], self.blocks.shape[1] // size * columns

    @property
    def dtype_name(self) -> str:
        """See :class:`WeightStorage`."""
        return self.kind

    @property
    def nbytes(self) -> int:
        """See :class:`WeightStorage`."""
        return self.blocks.nbytes

    def dequantized(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """See :class:`WeightStorage`; decoded in float32, then rounded once."""
        rows, columns = self.shape
        result = torch.empty(rows, columns, dtype=dtype)
        if can_dequantize(self.kind, dtype):
            return dequantize(self.blocks, self.kind, result)
        step = max(1, CHUNK // columns)
        for begin in range(0, rows, step):
            part = self.blocks[begin : begin + step]
            result[begin : begin + step] = self._decode(part).view(-1, columns)
        return result

    def rows(self, index: torch.Tensor | slice) -> BlockStorage:
        """See :class:`WeightStorage`."""
        return BlockStorage(self.blocks[index], self.kind)

    def _decode(self, blocks: torch.Tensor) -> torch.Tensor:
        if self.kind in DECODERS:
            return DECODERS[self.kind](blocks.reshape(-1, block_sizes(self.kind)[1]))
        import gguf  # numpy's definitions of all other formats

        kind = gguf.GGMLQuantizationType[self.kind]
        return torch.from_numpy(gguf.quants.dequantize(blocks.contiguous().numpy().reshape(1, -1), kind))

    def four_bit_groups(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """Levels (rows, columns) int32 in 0..15, and step and smallest value of each block, (rows, columns / 32)
        float32: weight = level * step + smallest. None for formats other than Q4_0 and Q4_1."""
        if self.kind not in ("Q4_0", "Q4_1"):
            return None
        rows, columns = self.shape
        blocks = self.blocks.reshape(rows * columns // BLOCK, -1)
        steps = _half(blocks, 0)
        smallest = _half(blocks, 2) if self.kind == "Q4_1" else -8.0 * steps
        levels = torch.cat(_nibbles(blocks[:, -BLOCK // 2 :]), 1).int().view(rows, columns)
        return levels, steps.view(rows, -1), smallest.view(rows, -1)


def _half(blocks: torch.Tensor, offset: int) -> torch.Tensor:
    """The float16 number at byte ``offset`` of each block: (blocks, 1) float32."""
    return blocks[:, offset : offset + 2].contiguous().view(torch.float16).float()


def _nibbles(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The low four bits of each byte, which hold a block's first half, and the high four bits."""
    return codes.bitwise_and(15), codes.bitwise_right_shift(4)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    """level * step + smallest."""
    result, steps = torch.empty(len(blocks), BLOCK), _half(blocks, 0)
    for part, levels in zip(result.chunk(2, 1), _nibbles(blocks[:, 4:]), strict=True):
        torch.mul(levels, steps, out=part)
    return result.add_(_half(blocks, 2))


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    """(level - 8) * step."""
    result, steps = torch.empty(len(blocks), BLOCK), _half(blocks, 0)
    for part, levels in zip(result.chunk(2, 1), _nibbles(blocks[:, 2:]), strict=True):
        torch.mul(levels.view(torch.int8) - 8, steps, out=part)
    return result


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    """level * step."""
    return blocks[:, 2:].view(torch.int8) * _half(blocks, 0)


DECODERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q8_0": _q8_0}
_SIZES = {"Q4_0": (BLOCK, 18), "Q4_1": (BLOCK, 20), "Q8_0": (BLOCK, 34)}


def block_sizes(kind: str) -> tuple[int, int]:
    """Columns and bytes of a block."""
    if kind in _SIZES:
        return _SIZES[kind]
    import gguf

    columns, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return columns, size


def row_parts(storage: WeightStorage, dtype: torch.dtype) -> list[slice]:
    """Slices of rows small enough to be dequantized at a time; one slice if the matrix needs no dequantization."""
    rows, columns = storage.shape
    if isinstance(storage, DenseStorage) and storage.tensor.dtype == dtype:
        return [slice(0, rows)]
    step = max(1, PART // columns)
    return [slice(begin, min(begin + step, rows)) for begin in range(0, rows, step)]
