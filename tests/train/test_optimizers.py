"""Schedules at their corners, what decays, clipping."""

import math

import pytest
import torch

from lmworks.adapt.lora import LoRALinear
from lmworks.train.optimizers import clip, groups, make, peak_rate, rate
from lmworks.train.settings import OptimizerSettings, TrainSettings


def rates(total: int = 20, **settings) -> list[float]:
    asked = OptimizerSettings(**settings)
    return [rate(step, total, 1.0, asked) for step in range(1, total + 1)]


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
    assert peak_rate(network, TrainSettings()) == 2e-5
    network.requires_grad_(False)
    network.layers[0].mlp.up_proj = LoRALinear(network.layers[0].mlp.up_proj, 2, 1.0)
    assert peak_rate(network, TrainSettings()) == 2e-4
    assert peak_rate(network, TrainSettings(learning_rate=3e-3)) == 3e-3
    assert sum(len(group["params"]) for group in make(network, TrainSettings()).param_groups) == 2


def test_clipping_shortens_to_the_norm_and_tells_what_it_was():
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([3.0, 0.0, 4.0])
    assert clip([parameter], 1.0) == pytest.approx(5)
    assert float(parameter.grad.norm()) == pytest.approx(1, rel=1e-5)
    parameter.grad = torch.tensor([3.0, 0.0, 4.0])
    assert clip([parameter], 0) == pytest.approx(5)
    assert torch.equal(parameter.grad, torch.tensor([3.0, 0.0, 4.0]))
