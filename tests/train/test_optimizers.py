"""Schedules at their corners, what decays, clipping."""

import math

import pytest
import torch

from lmworks.adapt.low_rank import LoRALinear
from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.train.optimizers import gradient_norm, groups, learning_rate, make, peak_learning_rate, peak_rates
from lmworks.train.settings import OptimizerSettings, TrainSettings


def rates(total: int = 20, **settings) -> list[float]:
    asked = OptimizerSettings(**settings)
    return [learning_rate(step, total, 1.0, asked) for step in range(1, total + 1)]


def test_warmup_rises_in_a_line_to_the_peak():
    assert rates(warmup=4)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates(warmup=0.1)[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates(warmup=0)[0] == 1.0


def test_cosine_linear_and_constant():
    middle = rates(total=21, warmup=0)[10]  # 10 of 21 steps gone
    assert middle == pytest.approx(0.5 * (1 + math.cos(math.pi * 10 / 21)))
    assert rates(schedule="linear", warmup=0, total=4) == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert rates(schedule="constant", warmup=2, total=4) == pytest.approx([0.5, 1, 1, 1])
    falling = rates(warmup=5)[5:]
    assert falling == sorted(falling, reverse=True)
    assert 0 < falling[-1] < 0.05


def test_a_warmup_longer_than_the_run_only_rises():
    assert rates(total=3, warmup=100) == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_only_matrices_of_linears_decay(make_network):
    network = make_network(qkv_bias=True, tie_word_embeddings=False, positions="learned")
    decayed, others = groups(network, 0.1)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all("proj.weight" in names[id(p)] or names[id(p)] == "lm_head.weight" for p in decayed["params"])
    assert {names[id(p)] for p in others["params"]} >= {"embed_tokens.weight", "embed_positions.weight", "norm.weight"}
    assert others["weight_decay"] == 0
    assert len(decayed["params"]) + len(others["params"]) == len(list(network.parameters()))


def test_a_tied_head_does_not_decay(make_network):
    decayed, _ = groups(make_network(), 0.1)
    assert all(parameter.shape != (61, 32) for parameter in decayed["params"])


def test_frozen_weights_are_left_out_and_choose_the_adapters_rate(make_network):
    network = make_network()
    assert peak_learning_rate(network, TrainSettings()) == 2e-5
    network.requires_grad_(False)
    network.layers[0].mlp.up_proj = LoRALinear(network.layers[0].mlp.up_proj, 2, 1.0)
    assert peak_learning_rate(network, TrainSettings()) == 2e-4
    assert peak_learning_rate(network, TrainSettings(learning_rate=3e-3)) == 3e-3
    assert sum(len(group["params"]) for group in make(network, TrainSettings()).param_groups) == 2


@pytest.mark.parametrize("largest", [0.0, 1.0, 1e6])
def test_a_step_is_torchs_clipping_and_torchs_adamw(make_network, largest):
    networks = [make_network(), make_network()]
    settings = TrainSettings(weight_decay=0.1, learning_rate=1e-2)
    ours, betas = make(networks[0], settings), (settings.beta1, settings.beta2)
    theirs = torch.optim.AdamW(groups(networks[1], 0.1), 1e-2, betas=betas, eps=settings.epsilon, fused=True)
    for step in range(1, 4):
        for network in networks:
            network(torch.arange(7)[None] + step).logits.square().mean().backward()
        expected = torch.nn.utils.clip_grad_norm_(networks[1].parameters(), largest or math.inf)
        for group in theirs.param_groups:
            group["lr"] = 1e-2 / step
        theirs.step()
        theirs.zero_grad()
        norm = gradient_norm(networks[0].parameters())
        assert norm == pytest.approx(float(expected), rel=3e-6)  # torch's clipping adds 1e-6 to the norm
        ours.advance(1e-2 / step, norm, largest)
    for item, other in zip(*(network.parameters() for network in networks), strict=True):
        assert item.grad is None
        torch.testing.assert_close(item, other, rtol=1e-5, atol=1e-6)
        assert ours.state[item]["step"] == theirs.state[other]["step"] == 3


def test_a_parameter_may_have_a_learning_rate_of_its_own(make_network):
    networks = [make_network(), make_network()]
    settings = TrainSettings(weight_decay=0.1)
    factors = {name: 16.0 for name, _ in networks[0].named_parameters() if "q_proj" in name or "norm" in name}
    ours = make(networks[0], settings, factors)
    assert [(group["weight_decay"], group["learning_rate_factor"]) for group in ours.param_groups] == [
        (0.1, 1), (0.1, 16), (0, 1), (0, 16)
    ]  # fmt: skip
    split = groups(networks[1], 0.1, factors)
    theirs = torch.optim.AdamW(
        [group | {"lr": 1e-3 * group["learning_rate_factor"]} for group in split],
        betas=(settings.beta1, settings.beta2), eps=settings.epsilon,
    )  # fmt: skip
    for network in networks:
        network(torch.arange(7)[None]).logits.square().mean().backward()
    theirs.step()
    ours.advance(1e-3)
    for item, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(item, other, rtol=1e-5, atol=1e-6)
    rates = {rate["learning_rate"]: rate["trainable"] for rate in peak_rates(ours, 1e-3)}
    moved = sum(p.numel() for name, p in networks[0].named_parameters() if name in factors)
    assert rates == {1e-3: sum(p.numel() for p in networks[0].parameters()) - moved, 16e-3: moved}


def test_without_gradients_nothing_moves(make_network):
    network = make_network()
    before = [parameter.clone() for parameter in network.parameters()]
    assert gradient_norm(network.parameters()) == 0
    make(network, TrainSettings(weight_decay=0.1)).advance(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize(
    "values", [{"epochs": math.inf}, {"epochs": 1e300}, {"steps": 10**20}, {"learning_rate": math.inf}]
)
def test_settings_without_bounds_are_refused(values):
    with pytest.raises(InputError):
        build(TrainSettings, values)
