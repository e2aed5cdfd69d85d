"""Models that only lmworks has, since ``transformers`` has no class for them: recurrent language models (RNN, GRU,
LSTM), convolutional encoders, and a decoder whose positions may be sinusoidal, learned or rotary with nothing else
changed. Their config.json has our names of the fields, their tensors have PyTorch's names (the decoder's, Llama's).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmworks.families.decoder import MLP, NORMS, OUTPUT, QKV, decoder_rows
from lmworks.families.family import NEEDED, Family, Fields, Keys, keys_of
from lmworks.families.head_layouts import HeadLayout, decoder_heads
from lmworks.families.mapping import Rename, Row, expand
from lmworks.model.config import ModelConfig
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS
from lmworks.model.sizes import linears

SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")
FIELDS: Fields = {name: (name, NEEDED) for name in SIZES} | {
    "layer": ("layer", "lstm"),
    "tie_word_embeddings": ("tie_word_embeddings", True),
    "language_head": ("language_head", True),
    "head_bias": ("head_bias", False),
    "embedding_dropout": ("embedding_dropout", 0.0),
    "hidden_dropout": ("hidden_dropout", 0.0),
    "initializer_range": ("initializer_range", 0.02),
}


def _reader(architecture: str) -> Callable[[Keys], dict[str, Any]]:
    def read(keys: Keys) -> dict[str, Any]:
        fields = keys.fields(FIELDS) | {"architecture": architecture}
        fields["kernel_sizes"] = tuple(keys.take("kernel_sizes", None, list) or ())
        fields["max_over_time"] = keys.take("max_over_time", False)
        return fields

    return read


def _write(config: ModelConfig) -> dict[str, Any]:
    keys = keys_of(config, FIELDS)
    if config.kernel_sizes:
        keys |= {"kernel_sizes": list(config.kernel_sizes), "max_over_time": config.max_over_time}
    return keys


def _table(config: ModelConfig) -> list[Row]:
    rows: list[Row] = [Rename("model.embed_tokens.weight", "embed_tokens.weight")]
    for linear in linears(config):
        for name in (linear.weight, linear.weight.replace("weight", "bias")):
            rows.append(Rename(f"model.{linear.name}.{name}", f"{linear.name}.{name}"))
    if config.language_head and not config.tie_word_embeddings:
        rows.append(Rename("lm_head.weight", "lm_head.weight"))
    if config.language_head and config.head_bias:
        rows.append(Rename("lm_head.bias", "head_bias"))
    return expand(rows, config.num_hidden_layers)


RECURRENT_HEADS = {
    SEQUENCE: HeadLayout("RecurrentForSequenceClassification", "last", "score"),
    TOKENS: HeadLayout("RecurrentForTokenClassification", "tokens", "classifier"),
    SPANS: HeadLayout("RecurrentForQuestionAnswering", "tokens", "qa_outputs"),
}
CONVOLUTIONAL_HEADS = {SEQUENCE: HeadLayout("ConvolutionalForSequenceClassification", "first", "classifier")}
RECURRENT = Family(
    "lmworks-recurrent", "RecurrentLanguageModel", _reader("decoder"), _write, _table, "model.", heads=RECURRENT_HEADS
)
CONVOLUTIONAL = Family(
    "lmworks-convolutional",
    "ConvolutionalEncoder",
    _reader("encoder"),
    _write,
    _table,
    "model.",
    heads=CONVOLUTIONAL_HEADS,
)

TRANSFORMER_FIELDS: Fields = {
    name: (name, NEEDED) for name in (*SIZES, "intermediate_size", "num_attention_heads", "positions")
} | {
    "num_key_value_heads": ("num_key_value_heads", None),
    "head_dim": ("head_dim", None),
    "norm_eps": ("norm_eps", 1e-5),
    "tie_word_embeddings": ("tie_word_embeddings", True),
    "embedding_scale": ("embedding_scale", 1.0),
    "rope_theta": ("rope_theta", 10_000.0),
    "initializer_range": ("initializer_range", 0.02),
}


def _read_transformer(keys: Keys) -> dict[str, Any]:
    fields = keys.fields({name: entry for name, entry in TRANSFORMER_FIELDS.items() if name != "positions"})
    return fields | {"positions": keys.need("positions")}


def _write_transformer(config: ModelConfig) -> dict[str, Any]:
    return keys_of(config, TRANSFORMER_FIELDS)


def _transformer_table(config: ModelConfig) -> list[Row]:
    rows = decoder_rows(config, (*QKV, OUTPUT, *MLP, *NORMS))
    if config.positions == "learned":
        rows.append(Rename("model.embed_positions.weight", "embed_positions.weight"))
    return rows


TRANSFORMER = Family(
    "lmworks-transformer",
    "TransformerLanguageModel",
    _read_transformer,
    _write_transformer,
    _transformer_table,
    "model.",
    heads=decoder_heads("Transformer", has_spans=False),
)
