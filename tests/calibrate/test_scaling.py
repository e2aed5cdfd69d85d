"""Activation-aware scales: folded exactly, and chosen by the error of outputs."""

from __future__ import annotations

import copy

import pytest
import torch
from calibrated_networks import IDS, KINDS, SIZES, batches, network
from torch import nn

from lmworks.calibrate.inputs import LinearInputs, record_inputs
from lmworks.calibrate.network import block_calls
from lmworks.calibrate.scaling import apply_fold, folds, output_error, scale_block, search_scales
from lmworks.model.config import ModelConfig
from lmworks.model.rounding_rules import q4_0, q4_1
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer

FOLDS = {"llama": 4, "grouped": 3, "gpt2": 3, "gemma": 3, "qwen": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_folding_scales_leaves_the_network_as_it_is(kind: str) -> None:
    scaled, generator = network(kind), torch.Generator().manual_seed(1)
    before, weights = scaled(IDS).logits, copy.deepcopy(scaled.state_dict())
    own = folds(scaled.config)
    assert len(own) == FOLDS[kind]
    for block in scaled.layers:
        for fold in own:
            size = block.get_submodule(fold.readers[0]).in_features
            apply_fold(block, fold, torch.randn(size, generator=generator).mul(0.5).exp())
    torch.testing.assert_close(scaled(IDS).logits, before, rtol=1e-5, atol=1e-5)
    changed = {name for name, tensor in scaled.state_dict().items() if not torch.equal(tensor, weights[name])}
    readers = {f"layers.0.{name}.weight" for fold in own for name in fold.readers}
    assert readers | {f"layers.1.{fold.producer}.weight" for fold in own} <= changed


def test_inputs_are_summed_once_for_the_linears_that_read_them() -> None:
    own = network("grouped")
    block, calls = own.layers[0], block_calls(own, batches())
    assert sum(x.shape[1] for x, _ in calls) == 39 + 32 + 63 + 19  # nothing is predicted from a last token
    linears, read = dict(named_linears(block)), {}
    handles = [
        module.register_forward_pre_hook(lambda _, given, name=name: read.setdefault(name, []).append(given[0]))
        for name, module in linears.items()
    ]
    with record_inputs(linears) as recorded:
        plain = [block(x, shared) for x, shared in calls]
    for handle in handles:
        handle.remove()
    names = [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"]]
    names += [["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]
    assert [part.names for part in recorded] == names
    for part in recorded:
        for name in part.names:
            x = torch.cat([given.flatten(0, 1) for given in read[name]])
            torch.testing.assert_close(part.products, x.t() @ x, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(part.magnitudes, x.abs().sum(0), rtol=1e-4, atol=1e-4)
            assert part.tokens == len(x)
    assert not any(module._forward_pre_hooks for module in linears.values())
    after = [block(x, shared) for x, shared in calls]
    torch.testing.assert_close(after, plain, rtol=1e-5, atol=1e-5)
    with pytest.raises(RuntimeError, match="stopped"), record_inputs(linears):
        raise RuntimeError("stopped")
    assert not any(module._forward_pre_hooks for module in linears.values())


def test_the_first_block_is_called_with_what_the_network_gives_it() -> None:
    own = network("gpt2")
    seen: list[torch.Tensor] = []
    handle = own.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    calls = block_calls(own, batches())
    handle.remove()
    assert all(torch.equal(x, other) for (x, _), other in zip(calls, seen, strict=True))
    assert not own.layers[0]._forward_pre_hooks


def outlier_inputs(seed: int = 0) -> tuple[torch.Tensor, LinearInputs]:
    """Inputs of which two channels are large, and their sums."""
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(seed))
    x[:, [7, 40]] *= 30.0
    sums = LinearInputs.zeros("a", 64)
    sums.add(x[:90])
    sums.add(x[90:].view(2, 55, 64))
    return x, sums


@pytest.mark.parametrize("rule", [q4_0, q4_1])
def test_the_scales_are_those_of_the_grid_with_the_least_error_of_outputs(rule) -> None:
    x, sums = outlier_inputs()
    weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(1)) * 0.05

    def error(scales: torch.Tensor) -> float:
        return float(((rule(weight * scales).dequantized() / scales - weight) @ x.t()).square().sum())

    grid = []
    for step in range(20):
        scales = x.abs().mean(0).pow(step / 20)
        grid.append(error(scales / (scales.max() * scales.min()).sqrt()))
    scales = search_scales(weight, sums, rule)
    assert scales is not None
    assert error(scales) == pytest.approx(min(grid), rel=1e-3)
    assert error(scales) < 0.7 * error(torch.ones(64))
    difference = torch.randn(48, 64)
    assert output_error(difference, sums.products) == pytest.approx(
        float((difference @ x.t()).square().sum()), rel=1e-4
    )


def test_inputs_that_are_zero_ask_for_no_scales() -> None:
    sums = LinearInputs.zeros("a", 64)
    sums.add(torch.zeros(10, 64))
    assert search_scales(torch.randn(8, 64), sums, q4_0) is None
    x, sums = outlier_inputs()
    x[:, 5] = 0.0
    sums = LinearInputs.zeros("a", 64)
    sums.add(x)
    scales = search_scales(torch.randn(48, 64) * 0.05, sums, q4_0)
    assert scales is not None
    assert bool(scales.isfinite().all())
    assert float(scales.min()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaled_block_computes_the_same_and_its_sums_follow(kind: str) -> None:
    own = network(kind)
    block, calls = own.layers[0], block_calls(own, batches())
    linears = dict(named_linears(block))
    with record_inputs(linears) as recorded:
        before = [block(x, shared) for x, shared in calls]
    scaled = scale_block(block, own.config, recorded, q4_0)
    with record_inputs(linears) as again:
        after = [block(x, shared) for x, shared in calls]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    for part, other in zip(scaled, again, strict=True):
        assert part.names == other.names
        torch.testing.assert_close(part.products, other.products, rtol=2e-3, atol=1e-3)
    assert any(not torch.equal(part.products, old.products) for part, old in zip(scaled, recorded, strict=True))


def test_a_post_norm_block_keeps_its_norms() -> None:
    config = ModelConfig(**(SIZES | {"norm_position": "post"}))
    assert {fold.producer for fold in folds(config)} == {"self_attn.v_proj", "mlp.up_proj"}
    assert isinstance(Transformer(config).layers[0].get_submodule("self_attn.v_proj"), nn.Linear)
