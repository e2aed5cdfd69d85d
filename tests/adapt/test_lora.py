"""LoRA: the formula, the off-switch, merging, what is kept for the backward pass."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.adapt.low_rank import LoRALinear
from lmworks.adapt.targets import matches_target
from lmworks.model.config import ModelConfig


def make(rank: int = 4, scale: float = 2.0, dropout: float = 0.0, bias: bool = True) -> LoRALinear:
    torch.manual_seed(0)
    adapter = LoRALinear(nn.Linear(24, 10, bias=bias), rank, scale, dropout, torch.Generator().manual_seed(1))
    nn.init.normal_(adapter.lora_B)
    return adapter


def test_it_is_the_papers_formula():
    adapter, x = make(), torch.randn(2, 5, 24)
    expected = adapter.base(x) + 2.0 * (x @ adapter.lora_A.T) @ adapter.lora_B.T
    torch.testing.assert_close(adapter(x), expected, rtol=1e-5, atol=1e-5)


def test_it_starts_as_nothing_and_the_same_for_the_same_seed():
    starts = [LoRALinear(nn.Linear(24, 10), 4, 2.0, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    x = torch.randn(3, 24)
    assert torch.equal(starts[0](x), starts[0].base(x))
    assert torch.equal(starts[0].lora_A, starts[1].lora_A)
    assert starts[0].lora_A.abs().max() <= 1 / math.sqrt(24)


def test_its_parameters_are_counted_without_making_them():
    config = ModelConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
    )
    rank = 1 << 40  # no memory holds such matrices
    assert LoRA(LoRASettings(rank=rank, target_modules=["q_proj"])).trained_parameters(config).count == 2 * rank * 64


def test_merged_is_unmerged_and_unmerging_gives_the_base_back_bit_for_bit():
    adapter, x = make(), torch.randn(7, 24)
    before, weight = adapter(x), adapter.base.weight.clone()
    adapter.merge()
    torch.testing.assert_close(adapter(x), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        adapter.base.weight, weight + 2.0 * adapter.lora_B @ adapter.lora_A, rtol=1e-6, atol=1e-6
    )
    adapter.unmerge()
    assert torch.equal(adapter.base.weight, weight)
    assert torch.equal(adapter(x), before)


def test_switched_off_it_is_the_base():
    adapter, x = make(), torch.randn(7, 24)
    adapter.enabled = False
    assert torch.equal(adapter(x), adapter.base(x))


def test_only_the_factors_learn_and_frozen_weights_keep_no_input():
    adapter = make()
    remaining = []
    x = torch.randn(7, 24, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: remaining.append(t) or t, lambda t: t):
        y = adapter(x)
    inputs = [t for t in remaining if t.shape == x.shape]
    assert {t.data_ptr() for t in inputs} == {x.data_ptr()}  # once, for A; nothing of the output's size
    assert not [t for t in remaining if t.shape == y.shape]
    y.sum().backward()
    assert adapter.base.weight.grad is None
    assert adapter.lora_A.grad is not None


def test_gradients_are_those_of_the_merged_matrix():
    adapter, x = make(bias=False), torch.randn(7, 24)
    whole = (adapter.base.weight + 2.0 * adapter.lora_B @ adapter.lora_A).detach().requires_grad_(True)
    functional.linear(x, whole).square().sum().backward()
    adapter(x).square().sum().backward()
    torch.testing.assert_close(adapter.lora_B.grad, 2 * whole.grad @ adapter.lora_A.T, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(adapter.lora_A.grad, 2 * adapter.lora_B.T @ whole.grad, rtol=1e-4, atol=1e-3)


def test_factors_stay_float32_over_a_bfloat16_base():
    adapter = make()
    exact, x = adapter(torch.ones(3, 24)), torch.ones(3, 24)
    adapter.base.to(torch.bfloat16)
    y = adapter(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert adapter.lora_A.dtype == torch.float32
    torch.testing.assert_close(y.float(), exact, rtol=2e-2, atol=5e-2)
    y.float().sum().backward()
    assert adapter.lora_B.grad.dtype == torch.float32


def test_dropout_is_for_training_and_follows_the_seed():
    adapter, x = make(dropout=0.5), torch.randn(7, 24)
    adapter.train()
    torch.manual_seed(3)
    first = adapter(x)
    torch.manual_seed(3)
    assert torch.equal(adapter(x), first)
    assert not torch.equal(adapter(x), first)
    adapter.eval()
    assert torch.equal(adapter(x), adapter(x))


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("q_proj", True),
        ("self_attn.q_proj", True),
        ("layers.1?.self_attn.*", True),
        ("layers.?.self_attn.*", False),
        ("all-linear", True),
        ("mlp.*", False),
        ("proj", False),
    ],
)
def test_targets_are_names_and_patterns(target, meant):
    assert matches_target("layers.12.self_attn.q_proj", target) is meant


def test_all_linear_leaves_the_head_out():
    assert not matches_target("lm_head", "all-linear")
    assert matches_target("lm_head", "lm_head")


def test_targets_may_be_one_word_with_commas_and_scales_follow_alpha():
    settings = LoRASettings(target_modules="q_proj, v_proj", rank=16, alpha=32)
    assert settings.target_modules == ["q_proj", "v_proj"]
    assert settings.scale == 2
    assert LoRASettings(rank=16, alpha=32, use_rslora=True).scale == 8
    with pytest.raises(ValueError, match="names no linear"):
        LoRASettings(target_modules="")
