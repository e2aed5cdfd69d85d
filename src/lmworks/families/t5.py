"""T5 (Raffel et al. 2020), T5 v1.1, Flan-T5: encoder and decoder, or the encoder alone. RMSNorm first, relative
positions, no biases, scores that are not scaled. v1.0 is plain and ties its head, scaling what it reads; v1.1 is gated
and has a head of its own.

In training theirs also drops out what leaves a stack; ours drops out within it alone.
"""

from __future__ import annotations

from typing import Any

from lmworks.base.errors import InputError
from lmworks.families.family import ACTIVATIONS, Family, Keys, theirs_of
from lmworks.families.head_layouts import HeadLayout
from lmworks.families.mapping import Rename, Row, expand
from lmworks.model.config import ModelConfig
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS
from lmworks.model.sizes import stacks

SIZES = {"hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"}
FIELDS: dict[str, tuple[str, Any]] = {  # ours: theirs, and its value where the config lacks it
    "head_dim": ("d_kv", 64),
    "intermediate_size": ("d_ff", 2048),
    "max_position_embeddings": ("n_positions", 512),
    "relative_buckets": ("relative_attention_num_buckets", 32),
    "relative_max_distance": ("relative_attention_max_distance", 128),
    "norm_eps": ("layer_norm_epsilon", 1e-6),
}
DROPOUTS = ("embedding_dropout", "attention_dropout", "hidden_dropout", "mlp_dropout")
GATED = "gated-"
EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"
TIED = ((r"(en|de)coder\.embed_tokens\.weight", EMBEDDING), (r"lm_head\.weight", EMBEDDING))
UNUSED = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"


def _read(keys: Keys) -> dict[str, Any]:
    sizes = keys.sizes(**SIZES)
    alone = keys.promised("classifier.weight", "T5EncoderModel", "T5ForTokenClassification")
    keys.expect("is_encoder_decoder", not alone, True)
    keys.ignore("initializer_factor", "classifier_dropout", "output_past", "gradient_checkpointing")
    keys.ignore("dense_act_fn", "is_gated_act")  # both follow from feed_forward_proj
    word = keys.take("feed_forward_proj", "relu") or "relu"
    activation = "gelu_new" if word == "gated-gelu" else word.removeprefix(GATED)
    if activation not in ACTIVATIONS:
        raise InputError(f"feed_forward_proj: {word!r} is not a feed-forward we have", keys.place, "relu or gated-gelu")
    decoder_layers = keys.take("num_decoder_layers", None, int)
    # transformers 5 always writes that the head is tied; only the scale distinguishes v1.0 from v1.1
    scaled = keys.take("scale_decoder_outputs", None, bool)
    tied = keys.take("tie_word_embeddings", True)
    scaled = tied is not False if scaled is None else scaled
    return sizes | {
        "architecture": "encoder" if alone else "encoder-decoder",
        "num_decoder_layers": None if alone else decoder_layers or sizes["num_hidden_layers"],
        "language_head": not alone,
        **{ours: keys.take(*theirs) for ours, theirs in FIELDS.items()},
        "positions": "relative",
        "norm": "rms",
        "attention_scale": 1.0,
        "activation": ACTIVATIONS[activation],
        "gated": word.startswith(GATED),
        "tie_word_embeddings": scaled or not keys.held(HEAD, "T5ForConditionalGeneration"),
        "head_scale": sizes["hidden_size"] ** -0.5 if scaled else 1.0,
        **dict.fromkeys(DROPOUTS, keys.take("dropout_rate", 0.1)),
        "initialization": "t5",
    }


def _architecture(config: ModelConfig) -> str:
    return "T5EncoderModel" if config.architecture == "encoder" else "T5ForConditionalGeneration"


def _write(config: ModelConfig) -> dict[str, Any]:
    word = theirs_of(config.activation, ("relu", "gelu_new"))
    return {
        "vocab_size": config.vocab_size,
        **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
        **{theirs: getattr(config, ours) for ours, (theirs, _) in FIELDS.items()},
        "d_kv": config.head_size,
        "dropout_rate": config.hidden_dropout,
        "num_decoder_layers": config.num_decoder_layers or config.num_hidden_layers,
        "feed_forward_proj": word if not config.gated else GATED + word.replace("gelu_new", "gelu"),
        "is_encoder_decoder": config.architecture == "encoder-decoder",
        "tie_word_embeddings": config.head_scale != 1.0,
    }


def _rows(config: ModelConfig) -> list[Row]:
    table: list[Row] = [Rename("shared.weight", EMBEDDING)]
    if not config.tie_word_embeddings:
        table.append(Rename(HEAD, HEAD))
    ups = {"wi_0": "gate_proj", "wi_1": "up_proj"} if config.gated else {"wi": "up_proj"}
    for stack in stacks(config):  # the decoder is our own stack, as an encoder alone is
        theirs, ours = "decoder." if stack.cross else "encoder.", stack.prefix
        last = 2 if stack.cross else 1
        block = {"layer.0.layer_norm": "input_layernorm", f"layer.{last}.layer_norm": "post_attention_layernorm"}
        block |= {f"layer.0.SelfAttention.{name}": f"self_attn.{name}_proj" for name in "qkvo"}
        if stack.cross:
            block |= {f"layer.1.EncDecAttention.{name}": f"cross_attn.{name}_proj" for name in "qkvo"}
            block["layer.1.layer_norm"] = "cross_attention_layernorm"
        block |= {f"layer.{last}.DenseReluDense.{name}": f"mlp.{other}" for name, other in ups.items()}
        block[f"layer.{last}.DenseReluDense.wo"] = "mlp.down_proj"
        names = {f"block.{{i}}.{name}": f"layers.{{i}}.{other}" for name, other in block.items()}
        names |= {"final_layer_norm": "norm"}
        names["block.0.layer.0.SelfAttention.relative_attention_bias"] = "relative_bias"
        pairs = [(f"{theirs}{name}.weight", f"{ours}{other}.weight") for name, other in names.items()]
        table += expand([Rename(*pair) for pair in pairs], stack.layers)
    return table


NAMES = "classification_head.out_proj", "classification_head.dense"
RATE, WRAPPED = ("classifier_dropout",), "transformer."
HEADS = {
    SEQUENCE: HeadLayout("T5ForSequenceClassification", "last", *NAMES, dropout=RATE, prefix=WRAPPED),
    TOKENS: HeadLayout(
        "T5ForTokenClassification", "tokens", "classifier", dropout=RATE, prefix=WRAPPED, encoder_alone=True
    ),
    SPANS: HeadLayout("T5ForQuestionAnswering", "tokens", "qa_outputs"),
}
OLDER = ((r"^transformer\.", ""),)
T5 = Family("t5", _architecture, _read, _write, _rows, "", (UNUSED,), TIED, OLDER, HEADS)
