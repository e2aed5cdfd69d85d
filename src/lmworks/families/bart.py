"""BART (Lewis et al. 2019): encoder and decoder, post-norm, learned positions that begin at row 2, a norm after the
embeddings, a bias of the logits. Marian has the same
architecture with other positions, so its translation is here too."""

from __future__ import annotations

from functools import partial
from typing import Any

from lmworks.families.family import Family, Keys, theirs_of
from lmworks.families.head_layouts import HeadLayout
from lmworks.families.mapping import Rename, Row, expand
from lmworks.model.config import ModelConfig
from lmworks.model.head_requests import SEQUENCE, SPANS

THEIRS = {
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads",
}
BLOCK = {
    **{f"self_attn.{name}_proj": f"self_attn.{name}_proj" for name in "qkv"},
    "self_attn.out_proj": "self_attn.o_proj",
    "self_attn_layer_norm": "input_layernorm",
    "fc1": "mlp.up_proj",
    "fc2": "mlp.down_proj",
    "final_layer_norm": "post_attention_layernorm",
}
CROSS = {
    **{f"encoder_attn.{name}_proj": f"cross_attn.{name}_proj" for name in "qkv"},
    "encoder_attn.out_proj": "cross_attn.o_proj",
    "encoder_attn_layer_norm": "cross_attention_layernorm",
}
BIASES = ("qkv_bias", "output_bias", "mlp_bias")
TIED = tuple((rf"{name}\.weight", "embed_tokens.weight") for name in (r"model\.(en|de)coder\.embed_tokens", "lm_head"))
OLDER = ("num_hidden_layers", "classifier_dropout", "classif_dropout", "output_past", "gradient_checkpointing")


def read(positions: dict[str, Any], architecture: str, keys: Keys) -> dict[str, Any]:
    """What BART's and Marian's configs say alike; ``positions`` are the fields in which they differ."""
    sizes = keys.sizes(**THEIRS)
    inner = keys.count("encoder_ffn_dim")
    keys.expect("decoder_ffn_dim", inner)
    keys.expect("decoder_attention_heads", sizes["num_attention_heads"])
    keys.expect("is_encoder_decoder", True)
    keys.expect("tie_word_embeddings", True)
    for name in ("encoder_layerdrop", "decoder_layerdrop", "add_final_layer_norm", "normalize_before"):
        keys.expect(name, 0.0)
    keys.expect("normalize_embedding", positions.get("embedding_norm", False))
    keys.expect("static_position_embeddings", positions["positions"] != "learned")
    keys.ignore(*OLDER, "_num_labels", "add_bias_logits", "extra_pos_embeddings", "force_bos_token_to_be_generated")
    return sizes | {
        "architecture": "encoder-decoder",
        "num_decoder_layers": keys.count("decoder_layers"),
        "intermediate_size": inner,
        "max_position_embeddings": keys.count("max_position_embeddings"),
        "embedding_scale": sizes["hidden_size"] ** 0.5 if keys.take("scale_embedding", False) else 1.0,
        **positions,
        "norm": "layer",
        "norm_position": "post",
        "activation": keys.activation("activation_function", "gelu"),
        "gated": False,
        **dict.fromkeys(BIASES, True),
        "head_bias": keys.held("final_logits_bias", architecture),
        "embedding_dropout": (dropout := keys.take("dropout", 0.1)),
        "hidden_dropout": dropout,
        "attention_dropout": keys.take("attention_dropout", 0.0),
        "mlp_dropout": keys.take("activation_dropout", 0.0),
        "initializer_range": keys.take("init_std", 0.02),
    }


def write(config: ModelConfig) -> dict[str, Any]:
    """The keys that BART and Marian have alike."""
    return {
        "vocab_size": config.vocab_size,
        **{theirs: getattr(config, ours) for ours, theirs in THEIRS.items()},
        "decoder_layers": config.num_decoder_layers,
        "decoder_attention_heads": config.num_attention_heads,
        "encoder_ffn_dim": config.intermediate_size,
        "decoder_ffn_dim": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "is_encoder_decoder": True,
        "scale_embedding": config.embedding_scale != 1.0,
        "activation_function": theirs_of(config.activation, ("gelu", "gelu_new", "swish")),
        "dropout": config.hidden_dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.mlp_dropout,
        "init_std": config.initializer_range,
    }


def rows(config: ModelConfig) -> list[Row]:
    """Every tensor of either."""
    table: list[Row] = [Rename("model.shared.weight", "embed_tokens.weight")]
    if config.head_bias:
        table.append(Rename("final_logits_bias", "head_bias", single=True))
    for theirs, ours, block, layers in (
        ("model.encoder.", "encoder.", BLOCK, config.num_hidden_layers),
        ("model.decoder.", "", BLOCK | CROSS, config.num_decoder_layers or 0),
    ):
        if config.positions == "learned":
            table.append(Rename(f"{theirs}embed_positions.weight", f"{ours}embed_positions.weight"))
        names = {f"layers.{{i}}.{name}": f"layers.{{i}}.{other}" for name, other in block.items()}
        if config.embedding_norm:
            names["layernorm_embedding"] = "embed_norm"
        both = [(f"{name}.{kind}", f"{other}.{kind}") for name, other in names.items() for kind in ("weight", "bias")]
        table += expand([Rename(theirs + name, ours + other) for name, other in both], layers)
    return table


_ARCHITECTURE = "BartForConditionalGeneration"
_POSITIONS = {"positions": "learned", "position_offset": 2, "embedding_norm": True}
_NAMES = "classification_head.out_proj", "classification_head.dense"
_HEADS = {
    SEQUENCE: HeadLayout("BartForSequenceClassification", "last", *_NAMES, dropout=("classifier_dropout",)),
    SPANS: HeadLayout("BartForQuestionAnswering", "tokens", "qa_outputs"),
}
BART = Family(
    "bart", _ARCHITECTURE, partial(read, _POSITIONS, _ARCHITECTURE), write, rows, "model.", (), TIED, heads=_HEADS
)
