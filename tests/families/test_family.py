"""Configs: every key is read, knowingly ignored, or refused by name; both ways without loss."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_families import CASES, SIZES, their_config

from lmworks.base.errors import InputError
from lmworks.families.registry import FAMILIES, family_of
from lmworks.model.config import ModelConfig

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "max_position_embeddings": 128,
}
DISTILBERT = {"model_type": "distilbert", "vocab_size": 100, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}
GPT2: dict[str, Any] = {"model_type": "gpt2", "vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4}


def read(config: dict[str, Any]) -> ModelConfig:
    return family_of(config).read_config(config)


@pytest.mark.parametrize(
    ("base", "change", "words"),
    [
        (LLAMA, {"num_key_value_head": 2}, ["num_key_value_head'", "did you mean 'num_key_value_heads'"]),
        (LLAMA, {"embedding_multiplier": 12.0}, ["embedding_multiplier"]),
        (LLAMA, {"pretraining_tp": 2}, ["pretraining_tp: 2"]),
        (LLAMA, {"quantization_config": {"quant_method": "gptq"}}, ["quantization_config", "gptq"]),
        (LLAMA, {"hidden_act": "xielu"}, ["hidden_act", "xielu", "silu"]),
        (LLAMA, {"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
        (LLAMA, {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, ["longrope", "lacks short_factor"]),
        (LLAMA, {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, ["llama3", "lacks"]),
        (LLAMA, {"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}, ["spiral", "yarn"]),
        (LLAMA, {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, ["beta"]),
        (LLAMA, {"num_attention_heads": 5}, ["hidden_size 32"]),
        (LLAMA, {"num_hidden_layers": None}, ["num_hidden_layers"]),
        (LLAMA, {"hidden_size": "32"}, ["hidden_size"]),
        (LLAMA, {"intermediate_size": 0}, ["intermediate_size"]),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, ["scale_attn_by_inverse_layer_idx"]),
        (GPT2, {"add_cross_attention": True}, ["add_cross_attention"]),
    ],
)
def test_what_is_not_computed_is_refused_by_name(base: dict, change: dict, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read(base | change)
    for word in ["config.json", *words]:
        assert word in str(caught.value)


def test_an_unknown_family_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"mamba(.|\n)*bert, (.|\n)*gpt2, llama, (.|\n)*qwen2, qwen3"):
        family_of({"model_type": "mamba"})
    with pytest.raises(InputError, match="model_type is missing"):
        family_of({})


def test_absent_keys_have_the_familys_defaults() -> None:
    """The defaults that transformers gives, which old config.json files rely on."""
    from transformers import AutoConfig

    qwens = [LLAMA | {"model_type": name, "num_key_value_heads": 2} for name in ("qwen2", "qwen3")]
    berts = [SIZES | {"vocab_size": 100, "model_type": name} for name in ("bert", "roberta", "xlm-roberta", "albert")]
    for base in (LLAMA, LLAMA | {"model_type": "mistral"}, *qwens, GPT2, *berts, DISTILBERT):
        full = AutoConfig.for_model(**base).to_dict()
        assert read(base) == read(full)


def test_sliding_layers_of_qwen() -> None:
    config = LLAMA | {"model_type": "qwen2", "num_key_value_heads": 2}
    config |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    output = read(config)
    assert [output.window_of(layer) for layer in range(2)] == [None, 8]
    assert read(config | {"max_window_layers": 2}).sliding_window is None
    assert read(config | {"max_window_layers": 0}).layer_kinds is None
    assert read(config | {"use_sliding_window": False}).sliding_window is None


@pytest.mark.parametrize("case", CASES, ids=str)
def test_written_and_read_is_the_same(case: str) -> None:
    output = their_config(case).to_dict()
    config, name = read(output), output["model_type"]
    written = FAMILIES[name].write_config(config)
    assert written["model_type"] == name
    assert written["architectures"] == output["architectures"]
    assert read(written) == config


def test_what_a_family_cannot_say_is_refused() -> None:
    config = read(LLAMA).model_copy(update={"qk_norm": True, "norm": "layer"})
    with pytest.raises(InputError, match="norm = 'layer', qk_norm = True"):
        FAMILIES["llama"].write_config(config)
    with pytest.raises(InputError, match="positions = 'rotary'"):
        FAMILIES["gpt2"].write_config(read(LLAMA))
