"""Llama 1, 2, 3 (Touvron et al. 2023) and what differs from it in a flag: SmolLM2, Mistral, Qwen2, Qwen2.5, Qwen3."""

from __future__ import annotations

from functools import partial
from typing import Any

from lmworks.families.family import Family, Keys, theirs_of
from lmworks.families.mapping import Rename, Row, expand
from lmworks.families.rope import read_rope, write_rope
from lmworks.model.config import ModelConfig

MODULES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
KEY_VALUE_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}  # what their configs mean where they do not say; llama: all
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def _read(model_type: str, keys: Keys) -> dict[str, Any]:
    sizes = keys.sizes()
    keys.only("pretraining_tp", 1, None)
    keys.only("rope_interleaved", False)
    keys.only("use_mrope", False)
    keys.ignore("is_llama_config", "max_sequence_length")
    bias = keys.take("attention_bias", False) if model_type in ("llama", "qwen3") else False
    return sizes | {
        "intermediate_size": keys.count("intermediate_size"),
        "num_key_value_heads": keys.take("num_key_value_heads", KEY_VALUE_HEADS.get(model_type)),
        "head_dim": keys.take("head_dim", 128 if model_type == "qwen3" else None),
        "max_position_embeddings": keys.count("max_position_embeddings"),
        **read_rope(keys),
        "norm_eps": keys.take("rms_norm_eps", 1e-6),
        "activation": keys.activation("hidden_act", "silu"),
        "qk_norm": model_type == "qwen3",
        "qkv_bias": bias or model_type == "qwen2",
        "output_bias": bias,
        "mlp_bias": keys.take("mlp_bias", False) if model_type == "llama" else False,
        **_read_windows(model_type, keys, sizes["num_hidden_layers"]),
        "tie_word_embeddings": keys.take("tie_word_embeddings", False),
        "attention_dropout": keys.take("attention_dropout", 0.0) or 0.0,
        "initializer_range": keys.take("initializer_range", 0.02),
    }


def _read_windows(model_type: str, keys: Keys, layers: int) -> dict[str, Any]:
    if model_type == "llama":
        keys.only("sliding_window", None)
        return {}
    window = keys.take("sliding_window", 4096)
    if model_type == "mistral":
        return {"sliding_window": window}
    first, kinds = keys.take("max_window_layers", 28), keys.take("layer_types")
    if not keys.take("use_sliding_window", False) or window is None:
        window = None
    if kinds is None:
        kinds = ["full_attention" if i < first else "sliding_attention" for i in range(layers)]
    if window is None or "sliding_attention" not in kinds:
        return {}
    return {"sliding_window": window, "layer_kinds": None if "full_attention" not in kinds else kinds}


def _write(model_type: str, config: ModelConfig) -> dict[str, Any]:
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    told = {name: getattr(config, name) for name in (*same, "max_position_embeddings")} | {
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_size,
        **write_rope(config.rope_theta, config.rope_scaling),
        "rms_norm_eps": config.norm_eps,
        "hidden_act": theirs_of(config.activation, ("gelu_pytorch_tanh",)),
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.initializer_range,
    }
    if model_type in ("llama", "qwen3"):
        told["attention_bias"] = config.output_bias
    if model_type == "llama":
        return told | {"mlp_bias": config.mlp_bias}
    if model_type == "mistral":
        return told | {"sliding_window": config.sliding_window}
    layers = range(config.num_hidden_layers)
    kinds = ["full_attention" if config.window_of(i) is None else "sliding_attention" for i in layers]
    return told | {
        "use_sliding_window": "sliding_attention" in kinds,
        "sliding_window": config.sliding_window if "sliding_attention" in kinds else None,
        "max_window_layers": kinds.count("full_attention"),
        "layer_types": kinds,
    }


def _table(config: ModelConfig) -> list[Row]:
    biased = [*MODULES[:3]] * config.qkv_bias + [*MODULES[3:]] * config.output_bias + [*MLP] * config.mlp_bias
    inner = [f"{name}.weight" for name in (*MODULES, *MLP, "input_layernorm", "post_attention_layernorm")]
    inner += [f"{name}.bias" for name in biased]
    if config.qk_norm:
        inner += ["self_attn.q_norm.weight", "self_attn.k_norm.weight"]
    names = ["embed_tokens.weight", "norm.weight", *(f"layers.{{i}}.{name}" for name in inner)]
    rows: list[Row] = [Rename("model." + name, name) for name in names]
    if not config.tie_word_embeddings:
        rows.append(Rename("lm_head.weight", "lm_head.weight"))
    return expand(rows, config.num_hidden_layers)


LLAMA, MISTRAL, QWEN2, QWEN3 = (
    Family(name, f"{named}ForCausalLM", partial(_read, name), partial(_write, name), _table, "model.", (r".*inv_freq",))
    for name, named in (("llama", "Llama"), ("mistral", "Mistral"), ("qwen2", "Qwen2"), ("qwen3", "Qwen3"))
)
