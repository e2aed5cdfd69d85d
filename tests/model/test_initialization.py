"""New weights have the statistics that transformers' models are drawn with, and follow from the generator alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers

from lmworks.families.family import Family
from lmworks.families.mapping import to_theirs
from lmworks.families.registry import family_of
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer

BART = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 256}
BART |= {"decoder_attention_heads": 4, "decoder_ffn_dim": 256, "max_position_embeddings": 128, "vocab_size": 500}
T5 = {"d_model": 64, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 4, "vocab_size": 500}
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 64, "n_layer": 6, "n_head": 4, "vocab_size": 500}, "gpt2"),
    "llama": (
        "LlamaForCausalLM",
        {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"vocab_size": 500, "initializer_range": 0.05},
        "normal",
    ),
    "bert": (
        "BertForPreTraining",
        {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"vocab_size": 500},
        "normal",
    ),
    "bart": ("BartForConditionalGeneration", BART | {"init_std": 0.03}, "normal"),
    "marian": ("MarianMTModel", BART | {"pad_token_id": 3, "decoder_start_token_id": 3}, "normal"),
    "t5": ("T5ForConditionalGeneration", T5, "t5"),
    "t5-gated": ("T5ForConditionalGeneration", T5 | {"feed_forward_proj": "gated-gelu", "num_decoder_layers": 3}, "t5"),
}
SMALL = {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "max_position_embeddings": 128}
BOTH = {"architecture": "encoder-decoder", "num_decoder_layers": 2, "tie_word_embeddings": False}


def _drawn(config: ModelConfig, seed: int = 0) -> Transformer:
    network = Transformer(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(7.0)  # a weight that is not initialized keeps this
    draw(network, torch.Generator().manual_seed(seed))
    return network


def _theirs(case: str) -> tuple[Any, Family, ModelConfig]:
    architecture, settings, scheme = CASES[case]
    kind = getattr(transformers, architecture)
    torch.manual_seed(1)
    model = kind(kind.config_class(**settings))
    hf_config = model.config.to_dict() | {"architectures": [architecture]}
    family = family_of(hf_config)
    tensors = set() if architecture.startswith("T5") else set(model.state_dict())
    config = family.read_config(hf_config, tensors=tensors)
    return model, family, config.model_copy(update={"initialization": scheme})


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two samples may have one standard deviation, and the means that go with it; constants must be equal."""
    if not first.std() or not second.std():
        return torch.equal(first, second)
    spread = math.sqrt(0.5 / first.numel() + 0.5 / second.numel())  # of the ratio of two standard deviations
    means = 5 * float(second.std()) * math.sqrt(1 / first.numel() + 1 / second.numel())
    return abs(float(first.std() / second.std()) - 1) < 5 * spread and abs(float(first.mean() - second.mean())) < means


@pytest.mark.parametrize("case", CASES)
def test_statistics_are_theirs(case: str) -> None:
    model, family, config = _theirs(case)
    ours = to_theirs(family.table(config), _drawn(config).state_dict())
    theirs = model.state_dict()
    for name, weight in ours.items():
        if name == "lm_head.weight" and case.startswith("t5"):
            continue  # tied there; below
        expected = theirs[name]
        if weight.dim() == 2 and len(weight) == config.vocab_size:  # transformers zeroes the row of padding
            real = expected.abs().sum(1) > 0
            weight, expected = weight[real], expected[real]
        assert _same(weight.flatten(), expected.flatten()), name


def _std(network: Transformer, name: str) -> float:
    return float(network.state_dict()[name].std())


def test_a_truncated_normal_ends_at_two_sigma() -> None:
    network = _drawn(ModelConfig(**(SMALL | {"initialization": "truncated", "initializer_range": 0.02})))
    for name, weight in network.state_dict().items():
        if "norm" not in name:
            assert float(weight.abs().max()) <= 0.04
            assert float(weight.std()) == pytest.approx(0.02 * 0.8796, rel=0.05)  # of N(0, 1) cut at 2


def test_gpt2_scales_residual_matrices_by_depth() -> None:
    config = ModelConfig(**(SMALL | BOTH | {"initialization": "gpt2", "num_hidden_layers": 8}))
    network = _drawn(config)
    for name, writes in (("encoder.layers.0.", 16), ("layers.1.", 6)):
        for part in ("self_attn.o_proj", "mlp.down_proj"):
            assert _std(network, f"{name}{part}.weight") == pytest.approx(0.02 / math.sqrt(writes), rel=0.05)
        assert _std(network, f"{name}mlp.up_proj.weight") == pytest.approx(0.02, rel=0.05)
    assert _std(network, "layers.0.cross_attn.o_proj.weight") == pytest.approx(0.02 / math.sqrt(6), rel=0.05)


def test_xavier_is_uniform_by_both_sides() -> None:
    network = _drawn(ModelConfig(**(SMALL | BOTH | {"initialization": "xavier", "positions": "learned"})))
    for name, inputs, outputs in (("self_attn.q_proj", 64, 64), ("mlp.up_proj", 64, 256), ("mlp.down_proj", 256, 64)):
        weight = network.get_parameter(f"layers.0.{name}.weight")
        bound = math.sqrt(6 / (inputs + outputs))
        assert 0.99 * bound < float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    for name in ("embed_tokens.weight", "embed_positions.weight", "encoder.embed_positions.weight", "lm_head.weight"):
        assert _std(network, name) == pytest.approx(64**-0.5, rel=0.05)


def test_t5s_own_head_is_drawn_by_what_it_reads() -> None:
    network = _drawn(ModelConfig(**(SMALL | BOTH | {"initialization": "t5", "positions": "relative"})))
    assert _std(network, "lm_head.weight") == pytest.approx(64**-0.5, rel=0.05)
    assert _std(network, "embed_tokens.weight") == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("word", ["normal", "truncated", "gpt2", "xavier", "t5"])
def test_the_generator_decides_alone(word: str) -> None:
    settings = BOTH | {"initialization": word, "positions": "relative", "norm": "rms_offset", "head_bias": True}
    config = ModelConfig(**(SMALL | settings | {"qkv_bias": True, "mlp_bias": True}))
    first, same, other = _drawn(config).state_dict(), _drawn(config).state_dict(), _drawn(config, 1).state_dict()
    for name, weight in first.items():
        assert torch.equal(weight, same[name])
        if "norm" in name or "bias" in name.split("."):
            assert not weight.any(), name  # offsets from one, and biases
        elif name != "head_bias":
            assert not torch.equal(weight, other[name])
    narrow = Transformer(config).to(torch.bfloat16)
    draw(narrow, torch.Generator().manual_seed(0))
    assert all(torch.equal(weight, first[name].to(torch.bfloat16)) for name, weight in narrow.state_dict().items())
