"""Phi-3, Phi-3.5 (Abdin et al. 2024) and Phi-4-mini: Llama with fused projections, and longrope for long contexts."""

from __future__ import annotations

from typing import Any

from lmworks.families.decoder import FIELDS, NORMS, OUTPUT, QKV, decoder_rows
from lmworks.families.family import Family, Fields, Keys, keys_of, theirs_of
from lmworks.families.head_layouts import decoder_heads
from lmworks.families.mapping import Row, Split, expand
from lmworks.families.rope import read_rope, write_rope
from lmworks.model.config import ModelConfig

SAME: Fields = FIELDS | {
    "norm_eps": ("rms_norm_eps", 1e-5),
    "sliding_window": ("sliding_window", None),
    "embedding_dropout": ("embd_pdrop", 0.0),
    "hidden_dropout": ("resid_pdrop", 0.0),
}
TRAINED = 4096  # original_max_position_embeddings for configs without it


def _read(keys: Keys) -> dict[str, Any]:
    keys.expect("attention_bias", False)
    activation = keys.activation("hidden_act", "silu")
    return keys.fields(SAME) | read_rope(keys, trained=TRAINED, partial=True) | {"activation": activation}


def _write(config: ModelConfig) -> dict[str, Any]:
    return keys_of(config, SAME) | write_rope(config) | {"hidden_act": theirs_of(config.activation)}


def _rows(config: ModelConfig) -> list[Row]:
    theirs, ours = "model.layers.{i}.", "layers.{i}."
    queries, keys = (heads * config.head_size for heads in (config.num_attention_heads, config.key_value_heads))
    heads = tuple(f"{ours}{name}.weight" for name in QKV)
    halves = (f"{ours}mlp.gate_proj.weight", f"{ours}mlp.up_proj.weight")
    fused: list[Row] = [
        Split(f"{theirs}self_attn.qkv_proj.weight", heads, (queries, keys, keys)),
        Split(f"{theirs}mlp.gate_up_proj.weight", halves),
    ]
    return decoder_rows(config, (OUTPUT, "mlp.down_proj", *NORMS)) + expand(fused, config.num_hidden_layers)


PHI3 = Family("phi3", "Phi3ForCausalLM", _read, _write, _rows, "model.", heads=decoder_heads("Phi3"))
