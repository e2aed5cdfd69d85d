"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm first, fused and transposed attention weights."""

from __future__ import annotations

from typing import Any

from lmworks.families.family import NEEDED, Family, Fields, Keys, keys_of, theirs_of
from lmworks.families.head_layouts import decoder_heads
from lmworks.families.mapping import Rename, Row, Split, expand
from lmworks.model.config import ModelConfig

FIELDS: Fields = {
    "vocab_size": ("vocab_size", NEEDED),
    "hidden_size": ("n_embd", NEEDED),
    "intermediate_size": ("n_inner", None),
    "num_hidden_layers": ("n_layer", NEEDED),
    "num_attention_heads": ("n_head", NEEDED),
    "max_position_embeddings": ("n_positions", 1024),
    "norm_eps": ("layer_norm_epsilon", 1e-5),
    "tie_word_embeddings": ("tie_word_embeddings", True),
    "embedding_dropout": ("embd_pdrop", 0.1),
    "attention_dropout": ("attn_pdrop", 0.1),
    "hidden_dropout": ("resid_pdrop", 0.1),
    "initializer_range": ("initializer_range", 0.02),
}
ALWAYS = {"positions": "learned", "norm": "layer", "gated": False}
ALWAYS |= {"qkv_bias": True, "output_bias": True, "mlp_bias": True}


def _read(keys: Keys) -> dict[str, Any]:
    keys.ignore("n_ctx", "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels")
    keys.ignore("summary_first_dropout", "reorder_and_upcast_attn")  # the latter: rounding only, in half precision
    keys.expect("scale_attn_weights", True)
    keys.expect("scale_attn_by_inverse_layer_idx", False)
    fields = keys.fields(FIELDS)
    fields["intermediate_size"] = fields["intermediate_size"] or 4 * fields["hidden_size"]
    return ALWAYS | fields | {"activation": keys.activation("activation_function", "gelu_new")}


def _write(config: ModelConfig) -> dict[str, Any]:
    return keys_of(config, FIELDS) | {"activation_function": theirs_of(config.activation, ("gelu_new",))}


def _table(config: ModelConfig) -> list[Row]:
    ours, theirs = "layers.{i}.", "transformer.h.{i}."
    rows: list[Row] = [
        Rename("transformer.wte.weight", "embed_tokens.weight"),
        Rename("transformer.wpe.weight", "embed_positions.weight"),
    ]
    for kind, turned in (("weight", True), ("bias", False)):
        heads = tuple(f"{ours}self_attn.{part}_proj.{kind}" for part in "qkv")
        rows += [
            Rename(f"{theirs}ln_1.{kind}", f"{ours}input_layernorm.{kind}"),
            Split(f"{theirs}attn.c_attn.{kind}", heads, transpose=turned),
            Rename(f"{theirs}attn.c_proj.{kind}", f"{ours}self_attn.o_proj.{kind}", turned),
            Rename(f"{theirs}ln_2.{kind}", f"{ours}post_attention_layernorm.{kind}"),
            Rename(f"{theirs}mlp.c_fc.{kind}", f"{ours}mlp.up_proj.{kind}", turned),
            Rename(f"{theirs}mlp.c_proj.{kind}", f"{ours}mlp.down_proj.{kind}", turned),
            Rename(f"transformer.ln_f.{kind}", f"norm.{kind}"),
        ]
    if not config.tie_word_embeddings:
        rows.append(Rename("lm_head.weight", "lm_head.weight"))
    return expand(rows, config.num_hidden_layers)


GPT2 = Family(
    "gpt2",
    "GPT2LMHeadModel",
    _read,
    _write,
    _table,
    "transformer.",
    (r".*\.attn\.bias", r".*\.attn\.masked_bias"),
    heads=decoder_heads("GPT2", "classifier", True),
)
