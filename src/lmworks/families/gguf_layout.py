"""How llama.cpp names and orders the tensors of the architectures that are read and written here; both ways.

Its names are not Hugging Face's, and for its llama architecture it stores the rows of each query and key head in
another order: there pairs of neighbours are rotated, not a row of the first half with one of the second. Llama 3.1's
and LongRoPE's scalings of rotary positions are tensors there, of what each frequency is divided by. Names:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from lmworks.base.errors import InputError
from lmworks.families.mapping import Rename, Row, Split, expand
from lmworks.model.config import ModelConfig

# llama.cpp's architectures that are read and written here -> the families whose config.json their metadata becomes.
FAMILY_OF = {name: name for name in ("gpt2", "llama", "qwen2", "qwen3", "gemma2", "phi3", "starcoder2")}
FAMILY_OF |= {"gemma3": "gemma3_text"}
FREQUENCIES = "rope_freqs.weight"  # of Llama 3.1
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"  # of LongRoPE
ROPE_TENSORS = (FREQUENCIES, SHORT_FACTORS, LONG_FACTORS)
TRAINED_CONTEXTS = (8192, 4096, 2048, 16384, 32768)  # tried for llama3 scaling; every published model has the first
LOW, HIGH = 1.0, 4.0  # low_freq_factor and high_freq_factor of every published model with llama3 scaling


def rows_of(architecture: str, config: ModelConfig) -> list[Row]:
    """Every tensor of a model: llama.cpp's names and ours.

    Args:
        architecture: one of :data:`FAMILY_OF`.
        config: what the model is.
    """
    others = {"gpt2": _gpt2_rows, "phi3": _phi3_rows, "starcoder2": _starcoder2_rows}
    return others.get(architecture, _llama_rows)(config)


def paired_heads(architecture: str, config: ModelConfig, names: Iterable[str]) -> dict[str, int]:
    """Which of our tensors llama.cpp stores with neighbouring pairs, each with its number of heads."""
    if architecture != "llama":
        return {}
    heads = {".q_proj.": config.num_attention_heads, ".k_proj.": config.key_value_heads}
    return {name: count for name in names for part, count in heads.items() if part in name}


def is_offset(name: str, config: ModelConfig) -> bool:
    """Whether llama.cpp stores 1 + w where a folder has w: the weights of Gemma's norms, which multiply by 1 + w."""
    return config.norm == "rms_offset" and name.endswith("norm.weight")


def from_pairs(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows (H*D, ...) of neighbouring pairs -> first halves, then second halves of each head."""
    return rows.view(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def to_pairs(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows (H*D, ...) of first and second halves of each head -> neighbouring pairs: what :func:`from_pairs` undoes."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def rope_tensors(config: ModelConfig) -> dict[str, np.ndarray]:
    """The tensors that scale rotary positions, by their names: (R / 2,) float32, what each frequency is divided by.

    Of Llama 3.1 (Llama team 2024, as published in code) one; of LongRoPE (Ding et al. 2024) one for short texts and one
    for long ones. Empty where the metadata says all of the scaling, or there is none.
    """
    scaling = config.rope_scaling
    if scaling is None or scaling.kind not in ("llama3", "longrope"):
        return {}
    if scaling.kind == "longrope":
        factors = {SHORT_FACTORS: scaling.short_factor, LONG_FACTORS: scaling.long_factor}
        return {name: np.array(values, np.float32) for name, values in factors.items()}
    assert scaling.original_max_position_embeddings is not None
    divisors = _divisors(
        config.head_size,
        config.rope_theta,
        scaling.factor,
        scaling.low_freq_factor,
        scaling.high_freq_factor,
        scaling.original_max_position_embeddings,
    )
    return {FREQUENCIES: divisors.astype(np.float32)}


def usual_attention_factor(kind: str, factor: float, trained: int) -> float:
    """What cosines and sines are multiplied by where a config does not say it (Peng et al. 2023, equation 22; Ding et
    al. 2024, as published in code).

    Args:
        kind: of the scaling, yarn or longrope.
        factor: how many times longer the context becomes.
        trained: the context before.
    """
    if kind == "yarn":
        return 0.1 * math.log(factor) + 1.0
    return 1.0 if factor <= 1.0 else math.sqrt(1.0 + math.log(factor) / math.log(trained))


def scaling_of(divisors: np.ndarray, theta: float, place: str) -> dict[str, Any] | None:
    """The rope_scaling of a config.json that divides the frequencies by these; None: by one.

    Raises:
        InputError: no scaling that is known here does.
    """
    factor = float(divisors.max())
    if factor == 1.0:
        return None
    for original in TRAINED_CONTEXTS:
        if np.allclose(divisors, _divisors(2 * len(divisors), theta, factor, LOW, HIGH, original), rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": LOW,
                "high_freq_factor": HIGH,
                "original_max_position_embeddings": original,
            }
    raise InputError(
        f"{FREQUENCIES} is not a scaling of rotary positions that is known here", place, "open its Hugging Face folder"
    )


def _divisors(size: int, theta: float, factor: float, low: float, high: float, original: int) -> np.ndarray:
    """What llama3 scaling divides each frequency by, (size / 2,) float64; arguments as the keys of a rope_scaling."""
    wavelengths = 2 * math.pi * theta ** (np.arange(0, size, 2) / size)
    blend = ((original / wavelengths - low) / (high - low)).clip(0, 1)
    return 1 / ((1 - blend) / factor + blend)


def _llama_rows(config: ModelConfig) -> list[Row]:
    ours = {
        "attn_norm": "input_layernorm",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
    }
    if config.norm_position == "both":
        ours |= {"post_attention_norm": "attention_output_layernorm", "post_ffw_norm": "mlp_output_layernorm"}
    if config.qk_norm:
        ours |= {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
    biased = ["attn_q", "attn_k", "attn_v"] * config.qkv_bias + ["attn_output"] * config.output_bias
    names = [(f"{name}.weight", f"{ours[name]}.weight") for name in ours]
    names += [(f"{name}.bias", f"{ours[name]}.bias") for name in biased]
    rows: list[Row] = [Rename(f"blk.{{i}}.{theirs}", f"layers.{{i}}.{mine}") for theirs, mine in names]
    return _ends(config, ["weight"]) + expand(rows, config.num_hidden_layers)


def _gpt2_rows(config: ModelConfig) -> list[Row]:
    ours = {
        "attn_norm": "input_layernorm",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    rows: list[Row] = []
    for part in ("weight", "bias"):
        rows += [Rename(f"blk.{{i}}.{name}.{part}", f"layers.{{i}}.{mine}.{part}") for name, mine in ours.items()]
        heads = tuple(f"layers.{{i}}.self_attn.{letter}_proj.{part}" for letter in "qkv")
        rows.append(Split(f"blk.{{i}}.attn_qkv.{part}", heads))
    rows.append(Rename("position_embd.weight", "embed_positions.weight"))
    return _ends(config, ["weight", "bias"]) + expand(rows, config.num_hidden_layers)


def _phi3_rows(config: ModelConfig) -> list[Row]:
    """q, k and v are one tensor there, gate and up another."""
    ours = {
        "attn_norm": "input_layernorm",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_down": "mlp.down_proj",
    }
    queries, keys = (heads * config.head_size for heads in (config.num_attention_heads, config.key_value_heads))
    heads = tuple(f"layers.{{i}}.self_attn.{letter}_proj.weight" for letter in "qkv")
    halves = ("layers.{i}.mlp.gate_proj.weight", "layers.{i}.mlp.up_proj.weight")
    rows: list[Row] = [Rename(f"blk.{{i}}.{name}.weight", f"layers.{{i}}.{mine}.weight") for name, mine in ours.items()]
    rows += [Split("blk.{i}.attn_qkv.weight", heads, (queries, keys, keys)), Split("blk.{i}.ffn_up.weight", halves)]
    return _ends(config, ["weight"]) + expand(rows, config.num_hidden_layers)


def _starcoder2_rows(config: ModelConfig) -> list[Row]:
    norms = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    linears = {f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"} | {"attn_output": "self_attn.o_proj"}
    linears |= {"ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    biased = norms | (linears if config.mlp_bias else {})
    names = [(f"{name}.weight", f"{ours}.weight") for name, ours in (norms | linears).items()]
    names += [(f"{name}.bias", f"{ours}.bias") for name, ours in biased.items()]
    rows: list[Row] = [Rename(f"blk.{{i}}.{theirs}", f"layers.{{i}}.{mine}") for theirs, mine in names]
    return _ends(config, ["weight", "bias"]) + expand(rows, config.num_hidden_layers)


def _ends(config: ModelConfig, parts: list[str]) -> list[Row]:
    """Embeddings, last norm (``parts``: its weight, or weight and bias) and head."""
    rows: list[Row] = [Rename("token_embd.weight", "embed_tokens.weight")]
    rows += [Rename(f"output_norm.{part}", f"norm.{part}") for part in parts]
    if not config.tie_word_embeddings:
        rows.append(Rename("output.weight", "lm_head.weight"))
    return rows
