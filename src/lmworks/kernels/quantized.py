"""Decoding of llama.cpp's quantized blocks by a native kernel; model/storage has the definitions in PyTorch."""

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
