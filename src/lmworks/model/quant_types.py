"""The types to which frozen linears are quantized (model/blockwise), and the bytes that they take: imports no torch."""

from __future__ import annotations

from typing import Literal, get_args

QuantType = Literal["nf4", "int8"]
QUANT_TYPES: tuple[QuantType, ...] = get_args(QuantType)
BITS: dict[str, int] = {"nf4": 4, "int8": 8}  # of a number, without its share of the scales
BLOCK = 64  # numbers of a row that share an absmax, the largest magnitude among them
ABSMAX_BLOCK = 256  # absmax that share a float32 scale; they have 8 bits themselves


def quantized_bytes(rows: int, columns: int, quant_type: QuantType) -> int:
    """Bytes of a quantized matrix: codes, scales in 8 bits, and their own scales and mean in float32."""
    blocks = rows * -(-columns // BLOCK)
    return rows * -(-columns * BITS[quant_type] // 8) + blocks + 4 * (-(-blocks // ABSMAX_BLOCK) + 1)
