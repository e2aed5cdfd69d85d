"""In-place accumulation of gradients, and casts that are cached within it."""

import pytest
import torch

from lmworks.adapt.adapters import disabled
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.kernels.native_module import native_module
from lmworks.model.accumulation import accumulate_in_place
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer
from lmworks.train.step import autocast

SIZES = {"vocab_size": 61, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip


def network_with_adapters() -> Transformer:
    torch.manual_seed(0)
    network = Transformer(ModelConfig(**SIZES))
    LoRA(LoRASettings(rank=3, alpha=6, dropout=0.0, target_modules=["all-linear"])).apply(network)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network.train()


def hidden_states(network: Transformer, ids: torch.Tensor) -> torch.Tensor:
    with autocast("bfloat16", torch.device("cpu")):
        return network.hidden_states(ids).detach()


@pytest.mark.parametrize("adapters_first", [True, False])
def test_a_pass_without_adapters_within_the_same_step_gets_the_base_weights(adapters_first: bool) -> None:
    network, ids = network_with_adapters(), torch.randint(0, 61, (1, 9))
    adapted = hidden_states(network, ids)
    with disabled(network):
        base = hidden_states(network, ids)
    assert not torch.equal(adapted, base)
    with accumulate_in_place():
        for enabled in (adapters_first, not adapters_first, adapters_first):
            if enabled:
                torch.testing.assert_close(hidden_states(network, ids), adapted, rtol=0, atol=0)
            else:
                with disabled(network):
                    torch.testing.assert_close(hidden_states(network, ids), base, rtol=0, atol=0)


@pytest.mark.skipif(native_module() is None, reason="the native kernels were not built here")
def test_two_updates_of_one_weight_are_cached_separately() -> None:
    """Two adapters that share a base, one after the other within a step."""
    network, ids = network_with_adapters(), torch.randint(0, 61, (1, 9))
    projection = network.layers[0].self_attn.q_proj
    first, expected = projection.lora_B, []
    second = torch.nn.Parameter(torch.randn_like(first))
    for factor in (first, second):
        projection.lora_B = factor
        expected.append(hidden_states(network, ids))
    assert not torch.equal(*expected)
    with accumulate_in_place():
        for factor, states in zip((first, second), expected, strict=True):
            projection.lora_B = factor
            torch.testing.assert_close(hidden_states(network, ids), states, rtol=0, atol=0)
