"""Llama 1, 2, 3 (Touvron et al. 2023) and what differs from it in a flag: SmolLM2, Mistral, Qwen2, Qwen2.5, Qwen3."""

from __future__ import annotations

from functools import partial
from typing import Any

from lmworks.families.decoder import FIELDS, MLP, NORMS, OUTPUT, QKV, decoder_rows, windows_of
from lmworks.families.family import Family, Keys, keys_of, theirs_of
from lmworks.families.head_layouts import decoder_heads
from lmworks.families.mapping import Row
from lmworks.families.rope import read_rope, write_rope
from lmworks.model.config import ModelConfig

# What a config means where it does not say; Llama: as many key-value heads as heads.
ABSENT = {"mistral": {"num_key_value_heads": 8}, "qwen2": {"num_key_value_heads": 32}}
ABSENT |= {"qwen3": {"num_key_value_heads": 32, "head_dim": 128}}


def _read(name: str, keys: Keys) -> dict[str, Any]:
    for key, harmless in {"pretraining_tp": 1, "rope_interleaved": False, "use_mrope": False}.items():
        keys.expect(key, harmless, None)
    keys.ignore("is_llama_config", "max_sequence_length")
    fields = keys.fields(FIELDS)
    fields |= {key: value for key, value in ABSENT.get(name, {}).items() if fields[key] is None}
    bias = keys.take("attention_bias", False) if name in ("llama", "qwen3") else False
    fields |= {"qkv_bias": bias or name == "qwen2", "output_bias": bias, "qk_norm": name == "qwen3"}
    fields["mlp_bias"] = keys.take("mlp_bias", False) if name == "llama" else False
    fields["activation"] = keys.activation("hidden_act", "silu")
    return fields | read_rope(keys) | _read_windows(name, keys, fields["num_hidden_layers"])


def _read_windows(name: str, keys: Keys, layers: int) -> dict[str, Any]:
    if name == "llama":
        keys.expect("sliding_window", None)
        return {}
    window = keys.take("sliding_window", 4096)
    if name == "mistral":
        return {"sliding_window": window}
    num_full, kinds = keys.take("max_window_layers", 28), keys.take("layer_types", None, list)
    kinds = kinds or ["full_attention" if i < num_full else "sliding_attention" for i in range(layers)]
    return {"sliding_window": window, "layer_kinds": kinds} if keys.take("use_sliding_window", False) else {}


def _write(name: str, config: ModelConfig) -> dict[str, Any]:
    keys = keys_of(config, FIELDS) | write_rope(config)
    keys["hidden_act"] = theirs_of(config.activation, ("gelu_pytorch_tanh",))
    if name in ("llama", "qwen3"):
        keys["attention_bias"] = config.output_bias
    if name == "llama":
        return keys | {"mlp_bias": config.mlp_bias}
    if name == "mistral":
        return keys | {"sliding_window": config.sliding_window}
    windows = windows_of(config)
    full = windows["layer_types"].count("full_attention")
    return keys | windows | {"use_sliding_window": windows["sliding_window"] is not None, "max_window_layers": full}


def _rows(config: ModelConfig) -> list[Row]:
    heads = ("self_attn.q_norm", "self_attn.k_norm") if config.qk_norm else ()
    return decoder_rows(config, (*QKV, OUTPUT, *MLP, *NORMS, *heads))


def _family(name: str, title: str) -> Family:
    functions = partial(_read, name), partial(_write, name), _rows
    span_prefix = None if name == "mistral" else "transformer."
    heads = decoder_heads(title, has_spans=True, span_prefix=span_prefix)
    older = ((r"^transformer\.", "model."),)
    return Family(name, f"{title}ForCausalLM", *functions, "model.", (r".*inv_freq",), older=older, heads=heads)


LLAMA, MISTRAL = _family("llama", "Llama"), _family("mistral", "Mistral")
QWEN2, QWEN3 = _family("qwen2", "Qwen2"), _family("qwen3", "Qwen3")
