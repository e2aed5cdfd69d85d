"""Gemma 2 (Gemma team 2024) and the texts of Gemma 3 (2025): norms before and after each part, sliding layers between
those that see everything. Gemma 2 caps its scores and logits; Gemma 3 normalises queries and keys instead."""

from __future__ import annotations

from functools import partial
from typing import Any

from lmworks.base.errors import InputError
from lmworks.families.decoder import FIELDS, MLP, OUTPUT, QKV, decoder_rows, windows_of
from lmworks.families.family import PUBLISHED, Family, Fields, Keys, keys_of, theirs_of
from lmworks.families.head_layouts import decoder_heads
from lmworks.families.mapping import Row
from lmworks.families.rope import read_rope, write_rope
from lmworks.model.config import ModelConfig

SAME: Fields = FIELDS | {
    "num_key_value_heads": ("num_key_value_heads", 4),
    "head_dim": ("head_dim", 256),
    "tie_word_embeddings": ("tie_word_embeddings", True),
    "qkv_bias": ("attention_bias", False),
}
NORMS = {
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "attention_output_layernorm",
    "pre_feedforward_layernorm": "post_attention_layernorm",
    "post_feedforward_layernorm": "mlp_output_layernorm",
}


def _read(newer: bool, keys: Keys) -> dict[str, Any]:
    keys.expect("use_bidirectional_attention", False, None)
    keys.ignore("hidden_act", "cache_implementation")  # the activation that is read is hidden_activation
    fields = keys.fields(SAME)
    fields |= read_rope(keys, 1e6, local=1e4) if newer else read_rope(keys)
    if newer:
        keys.expect("attn_logit_softcapping", None)  # a key of Gemma 2; attention of Gemma 3 has no cap
    every = (
        keys.take("sliding_window_pattern", None, int)
        or keys.take("_sliding_window_pattern", None, int)
        or (6 if newer else 2)
    )
    layers = range(1, fields["num_hidden_layers"] + 1)
    alternating = ["sliding_attention" if i % every else "full_attention" for i in layers]
    scale = keys.take("query_pre_attn_scalar", 256, float)
    if scale is None or scale <= 0:
        raise InputError(f"query_pre_attn_scalar is {scale}, not above zero", keys.place, PUBLISHED)
    return fields | {
        "embedding_scale": fields["hidden_size"] ** 0.5,
        "norm": "rms_offset",
        "norm_position": "both",
        "qk_norm": newer,
        "output_bias": fields["qkv_bias"],
        "attention_scale": None if scale == fields["head_dim"] else scale**-0.5,
        "attention_softcap": None if newer else keys.take("attn_logit_softcapping", 50.0),
        "logit_softcap": keys.take("final_logit_softcapping", None if newer else 30.0, float),
        "activation": keys.activation("hidden_activation", "gelu_pytorch_tanh"),
        "sliding_window": keys.take("sliding_window", 4096),
        "layer_kinds": keys.take("layer_types", None, list) or alternating,
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    windows = windows_of(config)
    keys = keys_of(config, SAME) | write_rope(config) | windows
    keys["sliding_window"] = windows["sliding_window"] or 4096  # transformers wants one, used or not
    keys["hidden_activation"] = theirs_of(config.activation, ("gelu_pytorch_tanh",))
    keys["query_pre_attn_scalar"] = round((config.attention_scale or config.head_size**-0.5) ** -2)
    return keys | {"attn_logit_softcapping": config.attention_softcap, "final_logit_softcapping": config.logit_softcap}


def _rows(config: ModelConfig) -> list[Row]:
    heads = ("self_attn.q_norm", "self_attn.k_norm") if config.qk_norm else ()
    return decoder_rows(config, {name: name for name in (*QKV, OUTPUT, *MLP, *heads)} | NORMS)


GEMMA2 = Family(
    "gemma2", "Gemma2ForCausalLM", partial(_read, False), _write, _rows, "model.", heads=decoder_heads("Gemma2")
)
GEMMA3 = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    partial(_read, True),
    _write,
    _rows,
    "model.",
    heads=decoder_heads("Gemma3Text", None),
)
