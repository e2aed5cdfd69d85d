"""Blockwise quantization of a frozen matrix to NF4 or int8, with scales that are quantized themselves.

Dettmers, Pagnoni, Holtzman & Zettlemoyer 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3. Of each
block of 64 numbers of a row the largest magnitude (absmax) is kept, and each number divided by it is replaced with the
nearest level. The absmax of all blocks, less their mean, are quantized again, to 8 bits in blocks of 256 (double
quantization). The codes of NF4 are those of bitsandbytes to the bit where a row is a whole number of blocks (there
blocks go on from row to row, here each row begins with a new one, so that rows can be selected). So are the scales, but
for a few near the middle of two levels, which its kernel for CPUs rounds to the farther one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional

from lmworks.kernels.quantized import can_dequantize_blockwise, dequantize_blockwise
from lmworks.model.quant_types import ABSMAX_BLOCK, BLOCK, QuantType

CHUNK = 1 << 15  # elements that PyTorch decodes or encodes at a time: so few that a cache holds them
INT8_LEVELS = 127  # on each side of zero
OFFSET = 0.9677083  # of NF4's outermost quantile: 1 - (1/32 + 1/30) / 2, with the digits that bitsandbytes has


@cache
def nf4_levels() -> torch.Tensor:
    """The 16 levels of NF4, ascending from -1 to 1 (section 3, equation 4): quantiles of the normal distribution, eight
    above zero and seven below, and zero, divided by the largest."""
    above, below = (torch.special.ndtri(_probabilities(count)) for count in (8, 7))
    levels = torch.cat([-below, torch.zeros(1, dtype=torch.float64), above.flip(0)]).float()
    return levels / levels.max()


def _probabilities(count: int) -> torch.Tensor:
    """Of ``count`` quantiles, equally spaced from OFFSET down to one half, which is left out: float64."""
    return torch.linspace(OFFSET, 0.5, count + 1)[:-1].double()


@cache
def absmax_levels() -> torch.Tensor:
    """The 256 levels of the scales, ascending: bitsandbytes' signed dynamic map (Dettmers 2016, "8-Bit Approximations
    for Parallelism in Deep Learning"). The decade below 10^-i, i from 0 to 6, is divided into 2^(6 - i) intervals,
    whose centres are levels, with both signs; zero and 1 are levels too."""
    levels = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2 ** (6 - decade) + 1)
        centres = (10.0**-decade * ((edges[:-1] + edges[1:]) / 2)).tolist()
        levels += [*centres, *(-centre for centre in centres)]
    return torch.tensor(sorted(levels))


@dataclass(frozen=True)
class QuantizedAbsmax:
    """The absmax of a matrix's blocks in 8 bits.

    Attributes:
        codes: (rows, blocks of a row) uint8, indices of :func:`absmax_levels`.
        scales: (blocks of 256 of them, row after row,) float32.
        mean: (1,) float32, which was subtracted before they were quantized.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    mean: torch.Tensor

    @classmethod
    def quantize(cls, absmax: torch.Tensor) -> QuantizedAbsmax:
        """(rows, blocks of a row) float32, quantized."""
        mean = absmax.mean()
        blocks = _blocks((absmax - mean).flatten(), ABSMAX_BLOCK)
        scales = blocks.abs().amax(1)
        codes = _nearest(blocks / _divisor(scales)[:, None], absmax_levels()).flatten()[: absmax.numel()]
        return cls(codes.view_as(absmax), scales, mean.view(1))

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        return self.codes.nbytes + self.scales.nbytes + self.mean.nbytes

    def dequantized(self) -> torch.Tensor:
        """(rows, blocks of a row) float32."""
        values = absmax_levels()[self.codes.flatten().int()]
        factors = self.scales.repeat_interleave(ABSMAX_BLOCK)[: values.numel()]
        return (values * factors + self.mean).view(self.codes.shape)


@dataclass(frozen=True)
class BlockwiseStorage:
    """A matrix in NF4 or int8: a storage (model/storage.WeightStorage).

    Attributes:
        codes: nf4: (rows, half of the columns, rounded up) uint8, the first of two numbers in the high four bits;
            int8: (rows, columns) int8.
        absmax: of each block, quantized; of selected rows (rows, blocks of a row) float32.
        columns: of the matrix.
    """

    codes: torch.Tensor
    absmax: QuantizedAbsmax | torch.Tensor
    columns: int

    @classmethod
    def quantize(cls, weight: torch.Tensor, quant_type: QuantType) -> BlockwiseStorage:
        """A matrix (rows, columns) of any floating-point type, quantized."""
        columns = weight.shape[1]
        step = max(1, CHUNK // columns)
        parts = [_quantize_rows(part.float(), quant_type) for part in weight.detach().split(step)]
        codes, absmax = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return cls(codes, QuantizedAbsmax.quantize(absmax), columns)

    @property
    def shape(self) -> tuple[int, int]:
        """See :class:`lmworks.model.storage.WeightStorage`."""
        return len(self.codes), self.columns

    @property
    def dtype_name(self) -> QuantType:
        """See :class:`lmworks.model.storage.WeightStorage`."""
        return "nf4" if self.codes.dtype == torch.uint8 else "int8"

    @property
    def nbytes(self) -> int:
        """See :class:`lmworks.model.storage.WeightStorage`."""
        return self.codes.nbytes + self.absmax.nbytes

    def dequantized(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """See :class:`lmworks.model.storage.WeightStorage`; decoded in float32, then rounded once."""
        scales = self.absmax if isinstance(self.absmax, torch.Tensor) else self.absmax.dequantized()
        if self.dtype_name == "int8":
            scales = scales / INT8_LEVELS
        result = torch.empty(self.shape, dtype=dtype)
        if can_dequantize_blockwise(dtype):
            levels = nf4_levels() if self.dtype_name == "nf4" else None
            return dequantize_blockwise(self.codes, scales, levels, result)
        step = max(1, CHUNK // self.columns)
        for part, codes, factors in zip(*(x.split(step) for x in (result, self.codes, scales)), strict=True):
            values = _level_pairs()[codes.int()].flatten(1) if self.dtype_name == "nf4" else codes.float()
            part.copy_(_scaled(values, factors)[:, : self.columns])
        return result

    def rows(self, index: torch.Tensor | slice) -> BlockwiseStorage:
        """See :class:`lmworks.model.storage.WeightStorage`."""
        absmax = self.absmax if isinstance(self.absmax, torch.Tensor) else self.absmax.dequantized()
        return BlockwiseStorage(self.codes[index], absmax[index], self.columns)


@cache
def _level_pairs() -> torch.Tensor:
    """The two levels of each byte of NF4 codes: (256, 2)."""
    return torch.cartesian_prod(nf4_levels(), nf4_levels())


def _quantize_rows(weight: torch.Tensor, quant_type: QuantType) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and absmax of some rows, float32."""
    blocks = _blocks(weight, BLOCK)
    absmax = blocks.abs().amax(2)
    fractions = (blocks / _divisor(absmax)[..., None]).flatten(1)[:, : weight.shape[1]]
    if quant_type == "int8":
        return (fractions * INT8_LEVELS).round_().to(torch.int8), absmax
    codes = _nearest(fractions, nf4_levels())
    codes = functional.pad(codes, (0, codes.shape[1] % 2))
    return codes[:, ::2] << 4 | codes[:, 1::2], absmax


def _blocks(values: torch.Tensor, size: int) -> torch.Tensor:
    """(..., n) -> (..., blocks, size), the last one filled up with zeros."""
    return functional.pad(values, (0, -values.shape[-1] % size)).unflatten(-1, (-1, size))


def _divisor(absmax: torch.Tensor) -> torch.Tensor:
    """What a block is divided by: its absmax, or 1 if the block is zero."""
    return absmax.where(absmax > 0, 1.0)


def _nearest(fractions: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The index of the nearest level, of two equally near ones the lower: uint8."""
    return torch.bucketize(fractions.contiguous(), (levels[:-1] + levels[1:]) / 2, out_int32=True).to(torch.uint8)


def _scaled(values: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """(rows, columns) times the factor of each block, (rows, blocks)."""
    return _blocks(values, BLOCK).mul(factors[..., None]).flatten(1)
