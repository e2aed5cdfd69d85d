"""Decoding of quantized matrices by native kernels: llama.cpp's blocks, whose definitions in PyTorch are in
model/storage, and NF4 and int8, whose are in model/blockwise."""

from __future__ import annotations

import torch

from lmworks.kernels.dispatch import KERNEL_DTYPES, to_dlpack
from lmworks.kernels.native_module import native_module

FORMATS = {
    "Q4_0": 0,
    "Q4_1": 1,
    "Q8_0": 2,
}  # formats that the kernel decodes, with their numbers in native/kernel_table.hpp


def can_dequantize(kind: str, dtype: torch.dtype) -> bool:
    """Whether the kernel is available and decodes this format into this dtype."""
    return kind in FORMATS and dtype in KERNEL_DTYPES and native_module() is not None


def dequantize(blocks: torch.Tensor, kind: str, result: torch.Tensor) -> torch.Tensor:
    """Blocks (rows, bytes of a row) uint8 into ``result`` (rows, columns), float32 or bfloat16, which is returned.

    Decoded in float32, then rounded once.
    """
    native_module().dequantize(to_dlpack(result), to_dlpack(blocks.contiguous()), FORMATS[kind])
    return result


def can_dequantize_blockwise(dtype: torch.dtype) -> bool:
    """Whether the kernel is available and decodes NF4 and int8 into this dtype."""
    return dtype in KERNEL_DTYPES and native_module() is not None


def dequantize_blockwise(
    codes: torch.Tensor, scales: torch.Tensor, levels: torch.Tensor | None, result: torch.Tensor
) -> torch.Tensor:
    """Decode a matrix in NF4 or int8 (model/blockwise) into ``result``, which is returned.

    Args:
        codes: (rows, half of the columns, rounded up) uint8, or without levels (rows, columns) int8.
        scales: (rows, blocks of 64 columns) float32, factors of the levels or of the codes themselves.
        levels: (16,) float32, which codes of four bits are indices of; None: codes are numbers.
        result: (rows, columns) float32 or bfloat16; decoded in float32, then rounded once.
    """
    arrays = (result, codes.contiguous().view(torch.uint8), scales.contiguous())
    native_module().dequantize_blockwise(*map(to_dlpack, arrays), None if levels is None else to_dlpack(levels))
    return result
