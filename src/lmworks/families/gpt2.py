"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm first, fused and transposed attention weights."""

from __future__ import annotations

from typing import Any

from lmworks.families.family import Family, Keys, theirs_of
from lmworks.families.mapping import Rename, Row, Split, expand
from lmworks.model.config import ModelConfig

THEIRS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
}


def _read(keys: Keys) -> dict[str, Any]:
    sizes = keys.sizes(**THEIRS)
    keys.ignore("n_ctx", "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels")
    keys.ignore("summary_first_dropout", "reorder_and_upcast_attn")  # the latter: rounding only, in half precision
    keys.only("scale_attn_weights", True)
    keys.only("scale_attn_by_inverse_layer_idx", False)
    return sizes | {
        "intermediate_size": keys.take("n_inner") or 4 * sizes["hidden_size"],
        "max_position_embeddings": keys.take("n_positions", 1024),
        "positions": "learned",
        "norm": "layer",
        "norm_eps": keys.take("layer_norm_epsilon", 1e-5),
        "activation": keys.activation("activation_function", "gelu_new"),
        "gated": False,
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": keys.take("tie_word_embeddings", True),
        "embedding_dropout": keys.take("embd_pdrop", 0.1),
        "attention_dropout": keys.take("attn_pdrop", 0.1),
        "hidden_dropout": keys.take("resid_pdrop", 0.1),
        "initializer_range": keys.take("initializer_range", 0.02),
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        **{theirs: getattr(config, ours) for ours, theirs in THEIRS.items()},
        "n_inner": config.intermediate_size,
        "n_positions": config.max_position_embeddings,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": theirs_of(config.activation, ("gelu_new",)),
        "tie_word_embeddings": config.tie_word_embeddings,
        "embd_pdrop": config.embedding_dropout,
        "attn_pdrop": config.attention_dropout,
        "resid_pdrop": config.hidden_dropout,
        "initializer_range": config.initializer_range,
    }


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
    "gpt2", "GPT2LMHeadModel", _read, _write, _table, "transformer.", (r".*\.attn\.bias", r".*\.attn\.masked_bias")
)
