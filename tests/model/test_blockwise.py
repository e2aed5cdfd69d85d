"""NF4 and int8: levels and codes as published and as bitsandbytes has them, and networks over them."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from lmworks.adapt.adapters import fingerprint
from lmworks.kernels.native_module import native_module
from lmworks.kernels.quantized import dequantize_blockwise
from lmworks.model import blockwise
from lmworks.model.blockwise import BlockwiseStorage, absmax_levels, nf4_levels
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.quant_types import BITS, QUANT_TYPES, quantized_bytes
from lmworks.model.quantization import quantization_of, quantize
from lmworks.model.sizes import linears
from lmworks.model.storage import BlockStorage, WeightStorage
from lmworks.model.stored_layers import StoredLinear, store, stored_layers, weight_bytes, widen
from lmworks.model.transformer import Transformer
from lmworks.run.base_weights import quantized_weights

# QLoRA, appendix E: the levels of NF4 with seven digits of those that the authors' code (bitsandbytes) has
PUBLISHED = (-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0)
PUBLISHED += (0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0)
SIZES = {"vocab_size": 90, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}  # fmt: skip
SHAPES = [(48, 128), (7, 64), (5, 96), (3, 33), (2, 1)]


def network(**changes: object) -> Transformer:
    result = Transformer(ModelConfig(**(SIZES | changes))).eval()
    draw(result, torch.Generator().manual_seed(0))
    return result.requires_grad_(False)


def definition(storage: BlockwiseStorage, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The matrix as PyTorch decodes it."""
    with monkeypatch.context() as patched:
        patched.setattr(blockwise, "can_dequantize_blockwise", lambda _: False)
        return storage.dequantized()


def test_the_levels_of_nf4_are_those_published() -> None:
    assert nf4_levels().tolist() == pytest.approx(PUBLISHED, abs=6e-8)
    # the construction in words: quantiles of the normal distribution from the paper's outermost one, over the largest
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    above, below = (stats.norm.ppf(np.linspace(outermost, 0.5, count)[:-1]) for count in (9, 8))
    quantiles = np.sort([*above, 0.0, *-below]) / above.max()
    assert nf4_levels().tolist() == pytest.approx(quantiles.tolist(), abs=1e-6)


def test_the_levels_of_the_scales_are_the_dynamic_map() -> None:
    levels = absmax_levels()
    assert len(set(levels.tolist())) == 256
    assert levels.equal(levels.sort().values)
    assert (levels[0], levels[-1]) == (pytest.approx(-0.9929688), 1.0)
    for decade in range(7):  # twice as many from one decade to the next
        inside = (levels.abs() > 0.1 * 10.0**-decade) & (levels.abs() < 10.0**-decade)
        assert int(inside.sum()) == 2 * 2 ** (6 - decade)


@pytest.mark.parametrize("shape", [(32, 64), (48, 576), (130, 1536)])
def test_nf4_is_that_of_bitsandbytes(shape: tuple[int, int]) -> None:
    theirs = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.05
    packed, state = theirs.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert torch.equal(state.code, nf4_levels())
    assert torch.equal(state.state2.code, absmax_levels())
    ours = BlockwiseStorage.quantize(weight, "nf4")
    assert torch.equal(ours.codes.flatten(), packed.flatten())
    assert torch.equal(ours.absmax.scales, state.state2.absmax)
    assert torch.equal(ours.absmax.mean.squeeze(), state.offset)
    # scales: their kernel for CPUs rounds some that lie near the middle of two levels to the farther one
    own, other = ours.absmax.codes.flatten(), state.absmax.flatten()
    assert (own != other).float().mean() < 0.02
    factors = ours.absmax.scales.repeat_interleave(256)[: len(own)]
    fractions = (weight.view(-1, 64).abs().amax(1) - ours.absmax.mean) / factors
    errors = [(absmax_levels()[codes.long()] - fractions).abs() for codes in (own, other)]
    assert (errors[0] <= errors[1] + 1e-7).all()
    same = replace(ours, absmax=replace(ours.absmax, codes=other.view_as(ours.absmax.codes)))
    assert torch.equal(same.dequantized(), theirs.dequantize_4bit(packed, state))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("quant_type", QUANT_TYPES)
def test_each_number_becomes_the_nearest_level(quant_type: str, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    storage = BlockwiseStorage.quantize(weight, quant_type)
    assert (storage.shape, storage.dtype_name) == (shape, quant_type)
    assert storage.nbytes == quantized_bytes(*shape, quant_type)
    levels = nf4_levels() if quant_type == "nf4" else torch.arange(-127, 128) / 127
    columns = torch.arange(shape[1]) // 64
    largest = torch.stack([weight[:, columns == block].abs().amax(1) for block in columns.unique()], 1)
    decoded_largest = storage.absmax.dequantized()
    assert (decoded_largest - largest).abs().max() <= 0.01 * largest.max()
    nearest = levels[(weight / largest[:, columns]).sub(levels[:, None, None]).abs().argmin(0)]
    torch.testing.assert_close(storage.dequantized(), nearest * decoded_largest[:, columns], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("quant_type", QUANT_TYPES)
def test_rows_of_zeros_stay_zero(quant_type: str) -> None:
    weight = torch.randn(4, 128)
    weight[1] = 0.0
    decoded = BlockwiseStorage.quantize(weight, quant_type).dequantized()
    assert not decoded[1].any()
    assert decoded[0].any()
    assert not BlockwiseStorage.quantize(torch.zeros(2, 64), quant_type).dequantized().any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("quant_type", QUANT_TYPES)
def test_rows_are_those_of_the_matrix_in_every_precision(quant_type: str, shape: tuple[int, int]) -> None:
    storage = BlockwiseStorage.quantize(torch.randn(shape), quant_type)
    assert isinstance(storage, WeightStorage)
    whole = storage.dequantized()
    assert torch.equal(storage.dequantized(torch.bfloat16), whole.bfloat16())
    index = torch.tensor([shape[0] - 1, 0, shape[0] - 1])
    assert torch.equal(storage.rows(index).dequantized(), whole[index])
    assert torch.equal(storage.rows(slice(1, 3)).dequantized(), whole[1:3])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("quant_type", QUANT_TYPES)
def test_the_kernels_decode_as_the_definition_does(
    quant_type: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    native = native_module()
    if native is None:
        pytest.skip("the native kernels are not compiled here")
    storage, before = BlockwiseStorage.quantize(torch.randn(shape), quant_type), native.instruction_set()
    expected = definition(storage, monkeypatch)
    try:
        for name in native.instruction_sets():
            native.set_instruction_set(name)
            assert torch.equal(storage.dequantized(), expected), name
            assert torch.equal(storage.dequantized(torch.bfloat16), expected.bfloat16()), name
    finally:
        native.set_instruction_set(before)
    with pytest.raises(ValueError, match="codes"):
        dequantize_blockwise(storage.codes[1:], storage.absmax.dequantized(), None, torch.empty(shape))


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": False, "qkv_bias": True, "mlp_bias": True}])
@pytest.mark.parametrize("quant_type", QUANT_TYPES)
def test_a_quantized_network(quant_type: str, settings: dict[str, object]) -> None:
    plain = network(**settings)
    quantized, names = copy.deepcopy(plain), set(plain.state_dict())
    quantize(quantized, quant_type)
    layers = dict(stored_layers(quantized))
    assert {linear.name for linear in linears(plain.config)} == {
        name for name, layer in layers.items() if layer.storage.dtype_name == quant_type
    }
    assert layers["embed_tokens"].storage.dtype_name == "bfloat16"
    assert weight_bytes(quantized) == quantized_weights(plain.config, quant_type).size
    assert (quantization_of(plain), quantization_of(quantized)) == (None, quant_type)
    assert fingerprint(quantized) != fingerprint(plain)
    ids = torch.arange(20).view(2, 10)
    before = quantized(ids).logits
    quantize(quantized, quant_type)  # changes nothing
    assert torch.equal(quantized(ids).logits, before)
    wide = copy.deepcopy(quantized)
    wide.dequantized_from = widen(wide)
    assert set(wide.state_dict()) == names
    assert quantization_of(wide) == quant_type
    assert fingerprint(wide) == fingerprint(quantized)
    torch.testing.assert_close(wide(ids).logits, before, rtol=0, atol=1e-6)
    error = (wide(ids).logits - plain(ids).logits).pow(2).mean().sqrt() / plain(ids).logits.pow(2).mean().sqrt()
    assert 0 < error < {"nf4": 0.2, "int8": 0.02}[quant_type]


def test_blocks_of_a_file_are_quantized_once_more() -> None:
    quantized = network()
    name = "layers.1.mlp.up_proj"
    blocks = BlockStorage(torch.randint(0, 60, (96, 2 * 18), dtype=torch.uint8), "Q4_0")
    store(quantized, name, blocks)
    quantize(quantized, "int8")
    layer = quantized.get_submodule(name)
    assert isinstance(layer, StoredLinear)
    assert layer.storage.dequantized().equal(BlockwiseStorage.quantize(blocks.dequantized(), "int8").dequantized())


def test_bits_are_those_of_the_name() -> None:
    for quant_type, bits in BITS.items():
        size = quantized_bytes(576, 1536, quant_type)
        assert bits < 8 * size / (576 * 1536) < bits + 0.13
