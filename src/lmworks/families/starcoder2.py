"""StarCoder2 (Lozhkov et al. 2024): rotary, grouped queries and a window, with LayerNorm, biases and a plain MLP."""

from __future__ import annotations

from typing import Any

from lmworks.families.decoder import FIELDS, NORMS, OUTPUT, QKV, decoder_rows
from lmworks.families.family import Family, Fields, Keys, keys_of, theirs_of
from lmworks.families.head_layouts import decoder_heads
from lmworks.families.mapping import Row
from lmworks.families.rope import read_rope, write_rope
from lmworks.model.config import ModelConfig

SAME: Fields = FIELDS | {
    "num_key_value_heads": ("num_key_value_heads", 2),
    "norm_eps": ("norm_epsilon", 1e-5),
    "tie_word_embeddings": ("tie_word_embeddings", True),
    "sliding_window": ("sliding_window", None),
    "qkv_bias": ("use_bias", True),
    "embedding_dropout": ("embedding_dropout", 0.0),
    "hidden_dropout": ("residual_dropout", 0.0),
    "initializer_range": ("initializer_range", 0.018042),
}


def _read(keys: Keys) -> dict[str, Any]:
    keys.expect("norm_type", "layer_norm")
    keys.expect("mlp_type", "default")
    keys.ignore("activation_function", "layer_norm_epsilon")  # repeat hidden_act and norm_epsilon, which are read
    keys.ignore("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")  # rounding only, in half precision
    fields = {"norm": "layer", "gated": False} | keys.fields(SAME) | read_rope(keys)
    fields |= {"output_bias": fields["qkv_bias"], "mlp_bias": fields["qkv_bias"]}
    return fields | {"activation": keys.activation("hidden_act", "gelu_pytorch_tanh")}


def _write(config: ModelConfig) -> dict[str, Any]:
    keys = keys_of(config, SAME) | write_rope(config)
    return keys | {"hidden_act": theirs_of(config.activation, ("gelu_pytorch_tanh",))}


def _rows(config: ModelConfig) -> list[Row]:
    same = {name: name for name in (*QKV, OUTPUT, *NORMS)}
    return decoder_rows(config, same | {"mlp.c_fc": "mlp.up_proj", "mlp.c_proj": "mlp.down_proj"}, norm_bias=True)


STARCODER2 = Family(
    "starcoder2", "Starcoder2ForCausalLM", _read, _write, _rows, "model.", heads=decoder_heads("Starcoder2")
)
