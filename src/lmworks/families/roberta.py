"""RoBERTa (Liu et al. 2019) and XLM-RoBERTa: BERT without a next-sentence head; positions start after the padding."""

from __future__ import annotations

from functools import partial
from typing import Any

from lmworks.base.errors import InputError
from lmworks.families.bert import OLDER, body, encoder_heads, head, head_duplicates, read_encoder, write_encoder
from lmworks.families.family import PUBLISHED, Family, Keys
from lmworks.families.head_layouts import HeadLayout
from lmworks.families.mapping import Row
from lmworks.model.config import ModelConfig
from lmworks.model.head_requests import SEQUENCE

HEAD = {"dense": "head_transform.dense", "layer_norm": "head_transform.norm"}


def _read(named: str, keys: Keys) -> dict[str, Any]:
    read = read_encoder(keys)
    padding = keys.take("pad_token_id", 1)
    if padding is None or padding < 0:
        raise InputError(f"pad_token_id is {padding}: positions count from it", keys.place, PUBLISHED)
    offset = padding + 1  # the rows up to the padding's are never read
    headed = keys.promised("lm_head.dense.weight", f"{named}ForMaskedLM")
    if headed:
        keys.expect("hidden_act", "gelu")  # the head's activation, whatever the layers'
    return read | {
        "max_position_embeddings": read["max_position_embeddings"] - offset,
        "position_offset": offset,
        "language_head": headed,
        "pooler": keys.held("roberta.pooler.dense.weight", f"{named}Model"),
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    rows = config.max_position_embeddings + config.position_offset
    return write_encoder(config) | {"max_position_embeddings": rows, "pad_token_id": config.position_offset - 1}


def _architecture(named: str, config: ModelConfig) -> str:
    return f"{named}ForMaskedLM" if config.language_head else f"{named}Model"


def _rows(config: ModelConfig) -> list[Row]:
    return body(config, "roberta.") + head(config, "lm_head.", HEAD)


def _sequence_head(named: str) -> HeadLayout:
    rates = ("classifier_dropout", "hidden_dropout_prob")
    names = "classifier.out_proj", "classifier.dense"
    return HeadLayout(f"{named}ForSequenceClassification", "first", *names, dropout=rates)


ROBERTA, XLM_ROBERTA = (
    Family(
        name,
        partial(_architecture, named),
        partial(_read, named),
        _write,
        _rows,
        "roberta.",
        ignored=(r".*\.?position_ids", r"lm_head\.bias"),  # the latter: unread where the head has its own matrix
        duplicates=head_duplicates(r"lm_head\."),
        older=OLDER,
        heads=encoder_heads(named) | {SEQUENCE: _sequence_head(named)},
    )
    for name, named in (("roberta", "Roberta"), ("xlm-roberta", "XLMRoberta"))
)
