"""Rounding rules: as published, written out once more in numpy; as llama.cpp's and bitsandbytes' formats hold them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from lmworks.model.blockwise import BlockwiseStorage
from lmworks.model.four_bit_blocks import four_bit_blocks
from lmworks.model.quant_types import quantized_bytes
from lmworks.model.rounding_rules import (
    RULES,
    Rounded,
    affine,
    nf4,
    q4_0,
    q4_1,
    relative_error,
    symmetric,
    ternary,
)


def matrix(rows: int = 24, columns: int = 256, scale: float = 0.05, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale


def blocks_of(rounded: Rounded) -> torch.Tensor:
    """A matrix of Q4_0 or Q4_1 as the storage reads its blocks."""
    smallest = None if bool((rounded.offsets == -8.0 * rounded.scales).all()) else rounded.offsets[..., 0]
    return four_bit_blocks(rounded.levels.flatten(1), rounded.scales[..., 0], smallest).dequantized()


def half(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float16).astype(np.float64)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [None, 32, 64, 128])
def test_symmetric_is_absmax_quantization(bits: int, group: int | None) -> None:
    weight = matrix()
    rounded, most = symmetric(weight, bits, group), 2 ** (bits - 1) - 1
    groups = weight.double().numpy().reshape(24, -1, group or 256)
    scales = half(np.abs(groups).max(2, keepdims=True) / most)
    expected = np.clip(np.rint(groups / scales), -most, most) * scales
    np.testing.assert_allclose(rounded.dequantized().numpy(), expected.reshape(24, 256), rtol=1e-6)
    assert rounded.bits == bits + 16 / (group or 256)
    assert float(rounded.levels.abs().max()) == most


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [None, 32])
def test_affine_has_a_whole_number_for_zero(bits: int, group: int | None) -> None:
    weight, most = matrix() + 0.02, 2**bits - 1
    rounded = affine(weight, bits, group)
    groups = weight.double().numpy().reshape(24, -1, group or 256)
    low, high = np.minimum(groups.min(2, keepdims=True), 0), np.maximum(groups.max(2, keepdims=True), 0)
    scales = half((high - low) / most)
    zeros = np.clip(np.rint(-low / scales), 0, most)
    expected = (np.clip(np.rint(groups / scales) + zeros, 0, most) - zeros) * scales
    np.testing.assert_allclose(rounded.dequantized().numpy(), expected.reshape(24, 256), rtol=1e-5, atol=1e-7)
    assert affine(torch.zeros(2, 64), bits, group).dequantized().equal(torch.zeros(2, 64))


def test_affine_keeps_weights_that_are_far_from_zero() -> None:
    """The published zero point of weights from 5 to 6 is -75: in four bits it would be another number."""
    weight = 5.0 + torch.rand(4, 64, generator=torch.Generator().manual_seed(1))
    error = (affine(weight, 4, 32).dequantized() - weight).abs().max()
    assert error <= 0.51 * 6 / 15
    assert (q4_1(weight).dequantized() - weight).abs().max() <= 0.51 * 1 / 15 + 0.005


@pytest.mark.parametrize(("rule", "kind"), [(q4_0, "Q4_0"), (q4_1, "Q4_1")])
def test_four_bits_are_on_the_grid_of_llama_cpp_and_nowhere_farther(rule, kind: str) -> None:
    weight = matrix()
    rounded = rule(weight)
    theirs = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType[kind])
    decoded = torch.from_numpy(gguf.quants.dequantize(theirs, gguf.GGMLQuantizationType[kind]))
    ours = rounded.dequantized()
    torch.testing.assert_close(blocks_of(rounded), ours, rtol=1e-6, atol=1e-7)
    assert (ours != decoded).float().mean() < 0.01  # they choose levels before the scale is rounded
    assert bool(((ours - weight).abs() <= (decoded - weight).abs() + 1e-7).all())
    assert rounded.bits == 8 * theirs.shape[1] / 256


@pytest.mark.parametrize("scale", [1e-7, 1e-5, 1e-3, 1.0, 1e3])
def test_what_q4_0_gives_it_does_not_change_again(scale: float) -> None:
    first = q4_0(matrix(scale=scale)).dequantized()
    assert torch.equal(q4_0(first).dequantized(), first)
    assert torch.equal(blocks_of(q4_0(first)), first)
    assert bool(first.any()) is (scale > 1e-6)


@pytest.mark.parametrize("columns", [64, 256, 96])
def test_nf4_is_the_storage_of_nf4(columns: int) -> None:
    weight = matrix(columns=columns)
    rounded = nf4(weight)
    torch.testing.assert_close(rounded.dequantized(), BlockwiseStorage.quantize(weight, "nf4").dequantized())
    if columns % 64 == 0:
        assert rounded.bits == pytest.approx(8 * quantized_bytes(24, columns, "nf4") / weight.numel(), abs=0.06)


def test_ternary_is_absmean_and_what_tq2_0_holds() -> None:
    weight = matrix()
    rounded = ternary(weight)
    scale = half(np.array(weight.abs().mean()))
    expected = np.clip(np.rint(weight.numpy() / scale), -1, 1) * scale
    np.testing.assert_allclose(rounded.dequantized().numpy(), expected, rtol=1e-6)
    assert rounded.levels.unique().tolist() == [-1, 0, 1]
    exact = rounded.dequantized().numpy()
    kind = gguf.GGMLQuantizationType.TQ2_0
    assert np.array_equal(gguf.quants.dequantize(gguf.quants.quantize(exact, kind), kind), exact)
    in_four_bits = four_bit_blocks(rounded.levels.flatten(1) + 8, rounded.scales.view(1, 1).expand(24, 8))
    assert np.array_equal(in_four_bits.dequantized().numpy(), exact)


@pytest.mark.parametrize("name", RULES)
def test_any_width_is_rounded_and_zeros_stay(name: str) -> None:
    weight = matrix(3, 33)
    weight[1] = 0.0
    decoded = RULES[name](weight).dequantized()
    assert decoded.shape == weight.shape
    assert not decoded[1].any()
    assert 0 < relative_error(weight, decoded) < 0.7
    assert not RULES[name](torch.zeros(2, 40)).dequantized().any()


def test_more_bits_and_smaller_groups_give_smaller_errors() -> None:
    weight = matrix(64, 512)
    rounded = {name: rule(weight) for name, rule in RULES.items()}
    errors = {name: relative_error(weight, decoded.dequantized()) for name, decoded in rounded.items()}
    for rule in ("symmetric", "affine"):
        named = [errors[f"int4 {rule}, {where}"] for where in ("rows", "groups of 128", "groups of 64", "groups of 32")]
        assert named == sorted(named, reverse=True)
        assert errors[f"int8 {rule}, rows"] < 0.15 * errors[f"int4 {rule}, rows"]
    assert errors["NF4, double quantization"] < errors["int4 symmetric, groups of 64"]
    assert rounded["ternary, absmean"].bits == pytest.approx(1.585, abs=0.001)


def test_packed_levels_are_read_as_they_were_written() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 16, (5, 96), generator=generator)
    scales, smallest = (torch.rand(5, 3, generator=generator).half().float() for _ in range(2))
    for kind, offsets in (("Q4_1", smallest), ("Q4_0", None)):
        storage = four_bit_blocks(levels, scales, offsets)
        assert (storage.kind, storage.shape) == (kind, (5, 96))
        read = storage.four_bit_groups()
        assert read is not None
        assert torch.equal(read[0], levels.int())
        assert torch.equal(read[1], scales)
        assert torch.equal(read[2], -8.0 * scales if offsets is None else offsets)
