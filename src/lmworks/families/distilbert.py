"""DistilBERT (Sanh et al. 2019): BERT without types of tokens and without pooler, under names of its own."""

from __future__ import annotations

from typing import Any

from lmworks.families.bert import ENCODER, embeddings, modules
from lmworks.families.family import NEEDED, Family, Fields, Keys, keys_of, theirs_of
from lmworks.families.head_layouts import HeadLayout
from lmworks.families.mapping import Rename, Row, expand
from lmworks.model.config import ModelConfig
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS

FIELDS: Fields = {
    "vocab_size": ("vocab_size", NEEDED),
    "hidden_size": ("dim", NEEDED),
    "intermediate_size": ("hidden_dim", NEEDED),
    "num_hidden_layers": ("n_layers", NEEDED),
    "num_attention_heads": ("n_heads", NEEDED),
    "max_position_embeddings": ("max_position_embeddings", 512),
    "tie_word_embeddings": ("tie_word_embeddings", True),
    "embedding_dropout": ("dropout", 0.1),
    "hidden_dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "initializer_range": ("initializer_range", 0.02),
}
LAYER = {
    "attention.q_lin": "self_attn.q_proj",
    "attention.k_lin": "self_attn.k_proj",
    "attention.v_lin": "self_attn.v_proj",
    "attention.out_lin": "self_attn.o_proj",
    "sa_layer_norm": "input_layernorm",
    "ffn.lin1": "mlp.up_proj",
    "ffn.lin2": "mlp.down_proj",
    "output_layer_norm": "post_attention_layernorm",
}
HEAD = {"vocab_transform": "head_transform.dense", "vocab_layer_norm": "head_transform.norm"}
HEADS = {
    SEQUENCE: HeadLayout(
        "DistilBertForSequenceClassification",
        "first",
        "classifier",
        "pre_classifier",
        "relu",
        dropout=("seq_classif_dropout",),  # theirs drops out before the last linear alone
        default_dropout=0.2,
    ),
    TOKENS: HeadLayout("DistilBertForTokenClassification", "tokens", "classifier", dropout=("dropout",)),
    SPANS: HeadLayout(
        "DistilBertForQuestionAnswering", "tokens", "qa_outputs", dropout=("qa_dropout",), default_dropout=0.1
    ),
}
NORM_EPS = 1e-12  # a constant of their code, in no config


def _read(keys: Keys) -> dict[str, Any]:
    keys.expect("is_decoder", False)
    keys.ignore("sinusoidal_pos_embds", "tie_weights_")  # the former: how positions are drawn; the file has them
    keys.ignore("qa_dropout", "seq_classif_dropout", "gradient_checkpointing")
    return (
        ENCODER
        | keys.fields(FIELDS)
        | {
            "norm_eps": NORM_EPS,
            "activation": keys.activation("activation", "gelu"),
            "language_head": keys.promised("vocab_transform.weight", "DistilBertForMaskedLM"),
        }
    )


def _write(config: ModelConfig) -> dict[str, Any]:
    return keys_of(config, FIELDS) | {"activation": theirs_of(config.activation)}


def _architecture(config: ModelConfig) -> str:
    return "DistilBertForMaskedLM" if config.language_head else "DistilBertModel"


def _rows(config: ModelConfig) -> list[Row]:
    rows = embeddings(config, "distilbert.embeddings.")
    rows += modules(LAYER, "distilbert.transformer.layer.{i}.", "layers.{i}.")
    if config.language_head:
        rows += [*modules(HEAD), Rename("vocab_projector.bias", "head_bias")]
        if not config.tie_word_embeddings:
            rows.append(Rename("vocab_projector.weight", "lm_head.weight"))
    return expand(rows, config.num_hidden_layers)


DISTILBERT = Family(
    "distilbert",
    _architecture,
    _read,
    _write,
    _rows,
    "distilbert.",
    ignored=(r".*\.?position_ids",),
    duplicates=((r"vocab_projector\.weight", "embed_tokens.weight"),),
    heads=HEADS,
)
