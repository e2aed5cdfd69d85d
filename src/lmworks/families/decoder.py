"""What the configs and tables of decoder families have in common. Knows no family by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lmworks.families.family import NEEDED, Fields
from lmworks.families.mapping import Rename, Row, expand
from lmworks.model.config import ModelConfig

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
FIELDS: Fields = {name: (name, NEEDED) for name in (*SIZES, "max_position_embeddings")} | {
    "num_key_value_heads": ("num_key_value_heads", None),
    "head_dim": ("head_dim", None),
    "norm_eps": ("rms_norm_eps", 1e-6),
    "tie_word_embeddings": ("tie_word_embeddings", False),
    "attention_dropout": ("attention_dropout", 0.0),
    "initializer_range": ("initializer_range", 0.02),
}
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
OUTPUT = "self_attn.o_proj"
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


def windows_of(config: ModelConfig) -> dict[str, Any]:
    """Their keys that say which layers slide, and how far they look back."""
    layers = range(config.num_hidden_layers)
    kinds = ["full_attention" if config.window_of(i) is None else "sliding_attention" for i in layers]
    return {"sliding_window": config.sliding_window if "sliding_attention" in kinds else None, "layer_types": kinds}


def decoder_rows(config: ModelConfig, layer: Iterable[str] | Mapping[str, str], norm_bias: bool = False) -> list[Row]:
    """Every tensor of a decoder that has Llama's names round its layers.

    Args:
        config: what the model is; says which linears have biases.
        layer: the modules of a layer, theirs -> ours; or their names alone, where they are ours too.
        norm_bias: norms have biases.
    """
    named = layer if isinstance(layer, Mapping) else {name: name for name in layer}
    biased = {**dict.fromkeys(QKV, config.qkv_bias), OUTPUT: config.output_bias, **dict.fromkeys(MLP, config.mlp_bias)}
    rows: list[Row] = [Rename(f"model.{name}", name) for name in ("embed_tokens.weight", "norm.weight")]
    if norm_bias:
        rows.append(Rename("model.norm.bias", "norm.bias"))
    for their, our in named.items():
        kinds = ["weight"] + ["bias"] * biased.get(our, norm_bias)
        rows += [Rename(f"model.layers.{{i}}.{their}.{kind}", f"layers.{{i}}.{our}.{kind}") for kind in kinds]
    if not config.tie_word_embeddings:
        rows.append(Rename("lm_head.weight", "lm_head.weight"))
    return expand(rows, config.num_hidden_layers)
