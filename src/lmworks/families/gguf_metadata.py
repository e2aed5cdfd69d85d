"""A model's config -> the metadata of a GGUF file: the way back from what families/gguf reads.

The metadata is read back before anything is written: a config that llama.cpp's keys cannot say is refused by the name
of its field. Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_VERSION, LlamaFileType

from lmworks.base.errors import InputError
from lmworks.families.family import Family
from lmworks.families.gguf import keys_of_metadata
from lmworks.families.gguf_layout import FAMILY_OF, usual_attention_factor
from lmworks.families.registry import FAMILIES
from lmworks.model.config import ModelConfig, RopeScaling

# Family -> llama.cpp's architecture. Mistral without windows is a Llama there.
ARCHITECTURES = {family: name for name, family in FAMILY_OF.items()} | {"mistral": "llama"}
GEMMA = ("gemma2", "gemma3")
WINDOW_UNUSED = ("phi3", "starcoder2")  # whose windows the file may say, and llama.cpp does not compute
AS_FOLDER = "lmworks save writes it as a Hugging Face folder"
# Fields that do not change what a trained model computes, and those in whose place _compared() has others.
UNCOMPARED = {"embedding_dropout", "attention_dropout", "hidden_dropout", "mlp_dropout", "initialization"}
UNCOMPARED |= {"initializer_range", "sliding_window", "layer_kinds", "rotary_fraction"}


def architecture_of(config: ModelConfig, family: Family, place: str) -> str:
    """llama.cpp's architecture of a model.

    Raises:
        InputError: it has none that is written here, or the model has what that does not: windows, the head of a task.
    """
    if family.name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        hint = f"written are {known}; {AS_FOLDER}, of which llama.cpp's convert_hf_to_gguf.py makes a GGUF file"
        raise InputError(f"models of family {family.name} are not written as GGUF here", place, hint)
    if config.heads or not config.language_head:
        raise InputError("a GGUF file holds a language model, not one with the head of a task", place, AS_FOLDER)
    architecture, windows = ARCHITECTURES[family.name], [window for window in _windows(config) if window is not None]
    if windows and architecture not in (*GEMMA, *WINDOW_UNUSED):
        fault = f"llama.cpp computes the architecture {architecture} without sliding windows, and it has"
        raise InputError(f"{fault} one of {min(windows)} tokens", place, AS_FOLDER)
    if architecture == "gemma2" and not config.tie_word_embeddings:
        raise InputError("llama.cpp's architecture gemma2 has no head of its own, and the model has", place, AS_FOLDER)
    if architecture in ("qwen3", *GEMMA) and config.output_bias:
        fault = f"llama.cpp's architecture {architecture} has no bias of o_proj, and the model has"
        raise InputError(fault, place, AS_FOLDER)
    equal = ("qwen2", "phi3", "starcoder2")
    if architecture in equal and config.head_size * config.num_attention_heads != config.hidden_size:
        fault = f"heads of {config.head_size} are not equal shares of {config.hidden_size}"
        raise InputError(f"{fault}, as llama.cpp's architecture {architecture} needs them", place, AS_FOLDER)
    return architecture


def metadata_of(config: ModelConfig, architecture: str, name: str, kind: str) -> dict[str, Any]:
    """All keys but the tokenizer's.

    Args:
        config: what the model is.
        architecture: llama.cpp's name of it.
        name: of the model, as people call it.
        kind: how most matrices are stored, such as F16 or Q4_0.
    """
    size = {"context_length": config.max_position_embeddings, "embedding_length": config.hidden_size}
    size |= {"block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size}
    size |= {"vocab_size": config.vocab_size, "attention.head_count": config.num_attention_heads}
    keys: dict[str, Any] = dict(size)
    if architecture == "gpt2":
        keys["attention.layer_norm_epsilon"] = config.norm_eps
    else:
        epsilon = "layer_norm_epsilon" if architecture == "starcoder2" else "layer_norm_rms_epsilon"
        keys |= {
            "attention.head_count_kv": config.key_value_heads,
            "attention.key_length": config.head_size,
            "attention.value_length": config.head_size,
            f"attention.{epsilon}": config.norm_eps,
            "rope.dimension_count": config.rotary_size,
            "rope.freq_base": float(config.rope_theta),
            **_rope(config),
        }
    if architecture in GEMMA:
        keys |= _gemma(config, architecture)
    if architecture in WINDOW_UNUSED:
        keys["attention.sliding_window"] = config.sliding_window or 0
    file_type = LlamaFileType.ALL_F32 if kind == "F32" else LlamaFileType[f"MOSTLY_{kind}"]
    general = {"architecture": architecture, "type": "model", "name": name, "file_type": int(file_type)}
    general["quantization_version"] = GGML_QUANT_VERSION
    return {f"general.{key}": value for key, value in general.items()} | {
        f"{architecture}.{key}": value for key, value in keys.items()
    }


def notes_of(config: ModelConfig, architecture: str) -> list[str]:
    """Where llama.cpp computes a model otherwise than its file says."""
    notes, windows = [], [window for window in _windows(config) if window is not None]
    if windows and architecture in WINDOW_UNUSED:
        notes.append(
            f"llama.cpp computes the architecture {architecture} without its window of {min(windows):,} tokens, which "
            "is in the file: it answers longer texts otherwise"
        )
    if (scaling := config.rope_scaling) is not None and scaling.kind == "longrope":
        notes.append(
            "llama.cpp chooses between the rotary factors of short and of long texts by the context that it is opened "
            f"with, above {_trained(config):,} tokens those of long ones, and not by the length of the text"
        )
    return notes


def check_metadata(
    config: ModelConfig,
    metadata: Mapping[str, Any],
    names: Container[str],
    divisors: Mapping[str, np.ndarray],
    place: str,
) -> None:
    """Refuse what would be read back as another model.

    Args:
        config: what the model is.
        metadata, names, divisors: of the file that is to be written; see :func:`keys_of_metadata`.
        place: the file, for errors.

    Raises:
        InputError: names the first field that does not survive.
    """
    wide = {name: values.astype(np.float64) for name, values in divisors.items()}
    try:
        keys = keys_of_metadata(metadata, names, wide, place)
    except InputError as error:
        raise InputError(f"it would not be opened again: {error.fault}", place, AS_FOLDER) from error
    keys |= {"vocab_size": config.vocab_size, "tie_word_embeddings": config.tie_word_embeddings}
    read_back, expected = _compared(FAMILIES[keys["model_type"]].read_config(keys, place)), _compared(config)
    for field, value in expected.items():
        if not _alike(read_back[field], value):
            fault = f"its config says {field} {value!r}, which llama.cpp's architecture {keys['model_type']} cannot say"
            raise InputError(fault, place, AS_FOLDER)


def _rope(config: ModelConfig) -> dict[str, Any]:
    """The keys of a scaling that llama.cpp has keys for; check_metadata() refuses others, which are not read back."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind not in ("linear", "yarn", "longrope"):
        return {}
    if scaling.kind == "longrope":  # llama.cpp has no name for the kind: its tensors of factors tell it
        factor = _attention_factor(config, scaling)
        return {"rope.scaling.original_context_length": _trained(config), "rope.scaling.attn_factor": factor}
    keys: dict[str, Any] = {"rope.scaling.type": scaling.kind, "rope.scaling.factor": float(scaling.factor)}
    if scaling.kind == "linear":
        return keys
    # beta_fast and beta_slow have keys too, but llama.cpp does not read them for these architectures
    if scaling.original_max_position_embeddings is not None:
        keys["rope.scaling.original_context_length"] = scaling.original_max_position_embeddings
    # llama.cpp's factor multiplies the scale that transformers' attention_factor replaces
    factor = _attention_factor(config, scaling) / usual_attention_factor("yarn", scaling.factor, _trained(config))
    if not math.isclose(factor, 1.0, rel_tol=1e-6):
        keys["rope.scaling.attn_factor"] = factor
    return keys


def _gemma(config: ModelConfig, architecture: str) -> dict[str, Any]:
    """What Gemma 2 and 3 have beside Llama's keys."""
    keys: dict[str, Any] = {"final_logit_softcapping": config.logit_softcap}
    if config.sliding_window is not None and "sliding_attention" in (config.layer_kinds or ()):
        keys["attention.sliding_window"] = config.sliding_window
    if architecture == "gemma2":
        keys["attn_logit_softcapping"] = config.attention_softcap
    else:
        keys["rope.freq_base_swa"] = config.rope_local_theta
    return {key: value if isinstance(value, int) else float(value) for key, value in keys.items() if value is not None}


def _windows(config: ModelConfig) -> list[int | None]:
    """The window of each layer; None where it is no shorter than the context."""
    windows = [config.window_of(layer) for layer in range(config.num_hidden_layers)]
    return [window if window is not None and window < config.max_position_embeddings else None for window in windows]


def _trained(config: ModelConfig) -> int:
    """The context before the scaling of rotary positions."""
    scaling = config.rope_scaling
    trained = None if scaling is None else scaling.original_max_position_embeddings
    return trained or config.max_position_embeddings


def _attention_factor(config: ModelConfig, scaling: RopeScaling) -> float:
    """What the cosines and sines of yarn and longrope are multiplied by."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return usual_attention_factor(scaling.kind, scaling.factor, _trained(config))


def _compared(config: ModelConfig) -> dict[str, Any]:
    """The fields that say what is computed; those that may be left open have the value that is computed with."""
    fields = {name: value for name, value in config.model_dump().items() if name not in UNCOMPARED}
    fields |= {"num_key_value_heads": config.key_value_heads, "head_dim": config.head_size}
    fields |= {"layer_kinds and sliding_window": _windows(config), "rotary_size": config.rotary_size}
    if (scaling := config.rope_scaling) is not None and scaling.kind in ("yarn", "longrope"):
        fields["rope_scaling"]["attention_factor"] = _attention_factor(config, scaling)
        if scaling.kind == "longrope":  # whose factor changes nothing else
            fields["rope_scaling"]["factor"] = None
    return fields


def _alike(written: Any, wanted: Any) -> bool:
    """Whether two values are equal, numbers within the precision that the file has."""
    if isinstance(wanted, dict) and isinstance(written, dict):
        return all(_alike(written.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list | tuple) and isinstance(written, list | tuple):
        return len(written) == len(wanted) and all(map(_alike, written, wanted))
    if isinstance(wanted, float) and isinstance(written, float | int):
        return math.isclose(written, wanted, rel_tol=1e-6)
    return bool(written == wanted)
