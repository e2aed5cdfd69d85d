"""ALBERT (Lan et al. 2020): BERT with narrow embeddings and layers that share their weights in groups."""

from __future__ import annotations

from typing import Any

from lmworks.families.bert import (
    HEAD,
    NEXT_SENTENCE_HEAD,
    classifiers,
    embeddings,
    encoder_heads,
    head,
    head_duplicates,
    modules,
    read_encoder,
    write_encoder,
)
from lmworks.families.family import Family, Keys
from lmworks.families.mapping import Row, expand
from lmworks.model.config import ModelConfig

LAYER = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.dense": "self_attn.o_proj",
    "attention.LayerNorm": "input_layernorm",
    "ffn": "mlp.up_proj",
    "ffn_output": "mlp.down_proj",
    "full_layer_layer_norm": "post_attention_layernorm",
}


def _read(keys: Keys) -> dict[str, Any]:
    keys.expect("inner_group_num", 1)
    keys.expect("net_structure_type", 0)
    keys.expect("gap_size", 0)
    keys.expect("num_memory_blocks", 0)
    keys.expect("down_scale_factor", 1)
    keys.ignore("classifier_dropout_prob")
    both = ("AlbertForPreTraining",)
    return read_encoder(keys, "gelu_new", 0.0) | {
        "embedding_size": keys.take("embedding_size", 128),
        "num_layer_groups": keys.take("num_hidden_groups", 1),
        "language_head": keys.promised("predictions.dense.weight", "AlbertForMaskedLM", *both),
        "pooler": keys.held("albert.pooler.weight", "AlbertModel", *both),
        "heads": (NEXT_SENTENCE_HEAD,) if keys.promised("sop_classifier.classifier.weight", *both) else (),
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    return write_encoder(config) | {
        "embedding_size": config.embedding_width,
        "num_hidden_groups": config.num_layer_groups or config.num_hidden_layers,
    }


def _architecture(config: ModelConfig) -> str:
    if config.heads:
        return "AlbertForPreTraining"
    return "AlbertForMaskedLM" if config.language_head else "AlbertModel"


def _rows(config: ModelConfig) -> list[Row]:
    rows = embeddings(config, "albert.embeddings.")
    rows += modules({"albert.encoder.embedding_hidden_mapping_in": "embed_project"})
    rows += modules(LAYER, "albert.encoder.albert_layer_groups.{i}.albert_layers.0.", "layers.{i}.")
    rows += head(config, "predictions.", HEAD)
    rows += modules({"albert.pooler": "pooler"} if config.pooler else {})
    rows += classifiers(config, "sop_classifier.classifier")
    return expand(rows, config.num_layer_groups or config.num_hidden_layers)


ALBERT = Family(
    "albert",
    _architecture,
    _read,
    _write,
    _rows,
    "albert.",
    ignored=(r".*\.?position_ids", r"predictions\.bias"),  # the latter: unread where the head has its own matrix
    duplicates=head_duplicates(r"predictions\."),
    heads=encoder_heads("Albert", ("classifier_dropout_prob", "hidden_dropout_prob")),
)
