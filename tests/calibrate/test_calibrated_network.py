"""A whole decoder in four bits, block after block."""

from __future__ import annotations

import copy

import pytest
import torch
from calibrated_networks import IDS, KINDS, SIZES, batches, network

from lmworks.base.errors import InputError
from lmworks.calibrate.gptq import quantize_matrix
from lmworks.calibrate.inputs import record_inputs
from lmworks.calibrate.network import block_calls, check_decoder, quantize_blocks
from lmworks.model.config import ModelConfig
from lmworks.model.forward import hidden_states
from lmworks.model.four_bit_blocks import four_bit_blocks
from lmworks.model.rounding_rules import q4_0
from lmworks.model.sizes import linears
from lmworks.model.stored_layers import store, stored_layers
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer


def rounded_to_nearest(plain: Transformer) -> Transformer:
    result = copy.deepcopy(plain)
    for linear in linears(plain.config):
        rounded = q4_0(result.get_submodule(linear.name).get_parameter("weight"))
        store(result, linear.name, four_bit_blocks(rounded.levels.flatten(1), rounded.scales[..., 0]))
    return result


@pytest.mark.parametrize("scaling", [True, False])
@pytest.mark.parametrize("block_kind", ["Q4_0", "Q4_1"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_linears_of_the_blocks_and_nothing_else(kind: str, block_kind: str, scaling: bool) -> None:
    plain = network(kind)
    quantized, done = copy.deepcopy(plain), []
    quantize_blocks(quantized, batches(), block_kind, scaling, lambda *counts: done.append(counts))
    layers = dict(stored_layers(quantized))
    assert set(layers) == {linear.name for linear in linears(plain.config)}
    assert {layer.storage.dtype_name for layer in layers.values()} == {block_kind}
    assert done == [(1, 2), (2, 2)]
    before = dict(plain.named_parameters())
    for name, parameter in quantized.named_parameters():
        if not scaling or "embed" in name or name == "norm.weight":
            assert torch.equal(parameter, before[name]), name
    exact, logits = plain(IDS).logits, quantized(IDS).logits
    assert 0 < (logits - exact).square().sum() < 0.1 * exact.square().sum()


def test_hidden_states_are_nearer_than_with_the_nearest_levels() -> None:
    plain = network("grouped")
    exact = [hidden_states(plain, batch) for batch in batches()]

    def error(other: Transformer) -> float:
        found = [hidden_states(other, batch) for batch in batches()]
        return sum(float((ours - theirs).square().sum()) for ours, theirs in zip(found, exact, strict=True))

    nearest = error(rounded_to_nearest(plain))
    for scaling in (False, True):
        quantized = copy.deepcopy(plain)
        quantize_blocks(quantized, batches(), "Q4_0", scaling)
        assert error(quantized) < 0.7 * nearest


def test_a_block_reads_what_the_quantized_blocks_below_give() -> None:
    plain = network()
    quantized, below = copy.deepcopy(plain), copy.deepcopy(plain)
    quantize_blocks(quantized, batches(), scaling=False)
    for name, layer in stored_layers(quantized):
        if name.startswith("layers.0."):
            store(below, name, layer.storage)
    calls = [(below.layers[0](x, shared), shared) for x, shared in block_calls(below, batches())]
    with record_inputs(dict(named_linears(below.layers[1]))) as inputs:
        for x, shared in calls:
            below.layers[1](x, shared)
    for own in inputs:
        for name in own.names:
            weight = plain.layers[1].get_submodule(name).get_parameter("weight")
            found = quantized.layers[1].get_submodule(name).storage
            assert torch.equal(found.blocks, quantize_matrix(weight, own.products).blocks), name


def test_the_mode_of_the_network_is_kept_and_hooks_are_gone() -> None:
    quantized = network().train()
    quantize_blocks(quantized, batches())
    assert quantized.training
    assert not any(module._forward_pre_hooks for module in quantized.modules())
    with pytest.raises(ValueError, match="widen"):
        quantize_blocks(quantized, batches())


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"architecture": "encoder"}, "model", "an encoder"),
        ({"architecture": "encoder-decoder", "num_decoder_layers": 1}, "model", "an encoder-decoder"),
        ({"num_layer_groups": 1}, "model", "share"),
        ({"intermediate_size": 80}, "layers.0.mlp.down_proj", "80 columns"),
        ({"layer": "lstm", "intermediate_size": 64, "norm_position": "post", "positions": "none",
          "num_attention_heads": 1}, "model", "lstm layers"),
    ],
)  # fmt: skip
def test_what_cannot_be_calibrated_is_refused(changes: dict, place: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check_decoder(ModelConfig(**(SIZES | changes)))
    assert caught.value.place == place
    assert "lmworks save" in caught.value.hint


def test_rows_that_make_no_finite_numbers_are_refused() -> None:
    broken = network()
    broken.layers[1].mlp.up_proj.weight[3, 5] = torch.inf
    with pytest.raises(InputError, match="not finite") as caught:
        quantize_blocks(broken, batches(), scaling=False)
    assert caught.value.place == "layers.1.mlp.down_proj"
