"""Native decoding of quantized blocks equals the gguf library's, on each instruction set of this processor."""

from __future__ import annotations

from collections.abc import Iterator

import gguf
import numpy as np
import pytest
import torch

from lmworks.kernels.native_module import native_module
from lmworks.kernels.quantized import FORMATS, can_dequantize, dequantize

SETS = native_module().instruction_sets() if hasattr(native_module(), "dequantize") else []


@pytest.fixture(params=SETS or [None])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """One of the instruction sets selected."""
    if request.param is None:
        pytest.skip("the native kernels are not compiled here")
    before = native_module().instruction_set()
    native_module().set_instruction_set(request.param)
    yield
    native_module().set_instruction_set(before)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rows", [1, 37])
def test_blocks_of_any_bytes_are_decoded_to_the_bit(kernels: None, kind: str, rows: int) -> None:
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    blocks = torch.randint(0, 256, (rows, 48 * size), dtype=torch.uint8)  # scales of all sizes, subnormal ones too
    halves = blocks.view(-1, size)
    for end in (1, 3) if kind == "Q4_1" else (1,):  # the upper bytes of float16: neither infinite nor NaN
        halves[:, end] &= 0xBB
    expected = gguf.quants.dequantize(blocks.numpy(), gguf.GGMLQuantizationType[kind])
    assert can_dequantize(kind, torch.float32)
    result = dequantize(blocks, kind, torch.empty(rows, 48 * 32))
    assert np.array_equal(result.numpy(), expected)
    rounded = dequantize(blocks, kind, torch.empty(rows, 48 * 32, dtype=torch.bfloat16))
    assert torch.equal(rounded, torch.from_numpy(expected).bfloat16())


def test_infinite_scales_stay_infinite(kernels: None) -> None:
    block = torch.zeros(1, 34, dtype=torch.uint8)
    block[0, 1], block[0, 2] = 0x7C, 1  # an infinite scale, and one level that is not 0
    result = dequantize(block, "Q8_0", torch.empty(1, 32))
    assert result[0, 0] == torch.inf
    assert result[0, 1:].isnan().all()


def test_sizes_are_checked(kernels: None) -> None:
    blocks = torch.zeros(2, 40, dtype=torch.uint8)
    with pytest.raises(ValueError, match="y"):
        dequantize(blocks, "Q4_1", torch.empty(2, 32))
    with pytest.raises(ValueError, match="blocks"):
        dequantize(blocks, "Q8_0", torch.empty(2, 64))
    assert not can_dequantize("Q6_K", torch.float32)
    assert not can_dequantize("Q4_1", torch.float16)
