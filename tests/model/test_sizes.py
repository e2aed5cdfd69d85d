"""What sizes says from a config alone equals what the built model has and does."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lmworks.model import sizes
from lmworks.model.config import ModelConfig
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer

SMALL = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
SMALL |= {"num_attention_heads": 4, "max_position_embeddings": 32}

CONFIGS = {
    "llama": {"num_key_value_heads": 2},
    "untied": {"num_key_value_heads": 1, "tie_word_embeddings": False},
    "qwen": {"qkv_bias": True, "qk_norm": True, "head_dim": 8},
    "gpt2": {"positions": "learned", "norm": "layer", "gated": False, "activation": "gelu_tanh"}
    | {"qkv_bias": True, "output_bias": True, "mlp_bias": True},
    "post": {"norm_position": "post", "norm": "layer", "architecture": "encoder", "positions": "learned"},
    "both": {"architecture": "encoder-decoder", "num_decoder_layers": 2, "positions": "sinusoidal", "qk_norm": True},
}


def _config(name: str) -> ModelConfig:
    return ModelConfig(**(SMALL | CONFIGS[name]))


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_model(name: str) -> None:
    config = _config(name)
    network = Transformer(config)
    said = sizes.parameters(config)
    assert said["total"] == sum(p.numel() for p in network.parameters())
    assert said["total"] == sum(count for part, count in said.items() if part != "total")
    by_name = dict(network.named_parameters())
    assert said["attention"] == sum(p.numel() for n, p in by_name.items() if "_attn." in n and "_proj" in n)
    assert said["feedforward"] == sum(p.numel() for n, p in by_name.items() if ".mlp." in n)
    assert said["norms"] == sum(p.numel() for n, p in by_name.items() if "norm" in n)


@pytest.mark.parametrize("name", CONFIGS)
def test_linears_are_those_of_the_model(name: str) -> None:
    config = _config(name)
    real = {n: (m.in_features, m.out_features) for n, m in named_linears(Transformer(config)) if n != "lm_head"}
    assert {m.name: (m.inputs, m.outputs) for m in sizes.linears(config)} == real


def test_lora_parameters_are_those_of_two_factors() -> None:
    matrices = [m for m in sizes.linears(_config("llama")) if m.name.endswith(("q_proj", "v_proj"))]
    assert sizes.lora_parameters(matrices, 5) == 3 * 5 * ((24 + 24) + (24 + 12))


@pytest.mark.parametrize(("window", "causal"), [(None, True), (3, True), (None, False), (3, False), (100, True)])
def test_visible_pairs_are_counted_one_by_one(window: int | None, causal: bool) -> None:
    def sees(query: int, key: int) -> bool:
        near = window is None or abs(query - key) < window
        return near and (key <= query or not causal)

    lengths = [1, 7, 4]
    counted = sum(sees(q, k) for length in lengths for q in range(length) for k in range(length))
    assert sizes.visible_pairs(lengths, window, causal) == counted


@pytest.mark.parametrize("name", ["llama", "gpt2", "untied"])
def test_matrix_flops_are_what_torch_counts(name: str) -> None:
    """torch counts attention its own way (all pairs), so attention is compared apart."""
    config = _config(name)
    network = Transformer(config)
    ids = torch.randint(0, config.vocab_size, (1, 10))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(ids, only=torch.tensor([3, 9]))
    counts = counter.get_flop_counts()["Global"]
    matrices = sum(n for op, n in counts.items() if any(word in str(op) for word in ("mm", "linear")))
    said = sizes.forward_flops(config, 10, head_tokens=2)
    assert said.linears + said.head == matrices


def test_training_flops_of_every_weight_are_three_forwards() -> None:
    config = _config("llama")
    once = sizes.forward_flops(config, 12, 12, [5, 7])
    assert sizes.training_flops(config, 12, 12, [5, 7]).total == 3 * once.total


def test_frozen_weights_cost_four_and_adapters_six() -> None:
    config = _config("llama")
    weights = sum(m.weights for m in sizes.linears(config))
    adapted = [m for m in sizes.linears(config) if m.name.endswith("q_proj")]
    flops = sizes.training_flops(config, 12, 2, adapted=adapted, rank=2)
    assert flops.linears == 4 * weights * 12
    assert flops.adapters == 6 * 3 * 2 * (24 + 24) * 12
    assert sizes.training_flops(config, 12, 2, adapted=adapted, rank=2, recompute=True).linears == 6 * weights * 12


def test_documents_packed_cost_what_they_cost_alone() -> None:
    config = _config("llama")
    packed = sizes.forward_flops(config, 12, 12, [5, 7]).total
    assert packed == sizes.forward_flops(config, 5).total + sizes.forward_flops(config, 7).total


def test_lengths_that_do_not_sum_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 5"):
        sizes.forward_flops(_config("llama"), 12, document_lengths=[2, 3])


def test_key_values() -> None:
    assert sizes.key_value_bytes(_config("llama"), tokens=10, bytes_each=2) == 2 * 3 * 2 * 6 * 10 * 2
