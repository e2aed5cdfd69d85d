"""A GGUF file -> config, network and tokenizer; the metadata is translated into the config.json of its family.

families/gguf_metadata and families/gguf_writer have the way back, families/gguf_layout what both need.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmworks.base.errors import InputError
from lmworks.families.family import Family
from lmworks.families.gguf_file import FETCH_AGAIN, GGUFFile, value_of
from lmworks.families.gguf_layout import (
    FAMILY_OF,
    FREQUENCIES,
    LONG_FACTORS,
    ROPE_TENSORS,
    SHORT_FACTORS,
    from_pairs,
    is_offset,
    paired_heads,
    rows_of,
    scaling_of,
    usual_attention_factor,
)
from lmworks.families.gguf_tokenizer import tokenizer_of
from lmworks.families.mapping import to_ours
from lmworks.families.opened import (
    Opened,
    fill,
    matrices_of,
    not_finite,
    read_dtype,
    shapes_of,
    with_storages,
)
from lmworks.families.registry import FAMILIES
from lmworks.model.trained_parameters import meta_network
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

# Layers of the 27B models, whose scores llama.cpp scales by hidden_size / num_attention_heads, not by the head size.
LARGEST = {"gemma2": 46, "gemma3": 62}
# Keys under the architecture's name that change nothing, or repeat what other keys say.
IGNORED = ("vocab_size", "rope.scaling.finetuned", "tensor_data_layout")
# Keys that would change what the model computes; at these values they do not.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
    "use_parallel_residual": (False, True),  # written for every gpt2, read for none
}


def open_gguf(path: str | Path, dtype: str = "float32", device: str = "cpu", storage: str | None = None) -> Opened:
    """Open a GGUF file whole.

    Args:
        path: the file.
        dtype: of the weights in memory: float32, bfloat16 or float16. Quantized ones are dequantized.
        device: of the weights.
        storage: frozen weights instead, which take less memory: "bfloat16", or "stored": quantized matrices stay in the
            file's map and are dequantized where they are used.

    Returns:
        Config, network, tokenizer, the config.json that the metadata amounts to, and notes.

    Raises:
        InputError: damaged, or of an architecture, a quantization or a tokenizer that is not read here.
    """
    requested, file = read_dtype(dtype, storage, device), GGUFFile(path)
    tokenizer = tokenizer_of(file.metadata, str(path))
    family, hf_config = _config_of(file)
    config = family.read_config(hf_config, str(path))
    network = meta_network(config)
    tensors, formats = _read_tensors(file, family, network, requested, str(path))
    if storage is None:
        fill(network, tensors, device)
    else:
        fill(network, with_storages(network, tensors, formats), device)
    generation = _generation(tokenizer)
    hf_config |= {"torch_dtype": dtype, **generation}
    notes = tokenizer.fit(config.vocab_size, str(path)) + not_finite(tensors, str(path))
    return Opened(config, network, tokenizer, hf_config, family, generation, notes)


def _read_tensors(
    file: GGUFFile, family: Family, network: Transformer, dtype: torch.dtype | None, place: str
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A file's tensors by our names, and the formats of the matrices that stay in the file's map.

    Args:
        file: of the network.
        family: of the network.
        network: without weights.
        dtype: of the tensors; None: matrices as they are stored, quantized ones as (rows, bytes of a row) uint8, all
            else in float32.
        place: the file, for errors.
    """
    config = network.config
    rows = rows_of(file.metadata["general.architecture"], config)
    names = [name for name in file.tensors if name not in ROPE_TENSORS]
    if config.tie_word_embeddings and "output.weight" in names:
        names.remove("output.weight")
    matrices = matrices_of(network) if dtype is None else set()
    two_dimensional = {name for name, tensor in file.tensors.items() if len(tensor.shape) == 2}
    as_stored = {row.theirs: row.parts for row in rows if row.theirs in two_dimensional and matrices >= {*row.parts}}
    stored = file.read_stored(list(as_stored))
    shifted = [name for name in names if is_offset(name, config)]  # in float32: 1 + w in 16 bits would lose digits of w
    read = {name: (weight - 1).to(dtype or torch.float32) for name, weight in file.read(shifted).items()}
    read |= file.read([name for name in names if name not in stored and name not in read], dtype or torch.float32)
    columns = {part: stored[name].shape[1] for name, parts in as_stored.items() for part in parts}
    shapes = {name: (*shape[:-1], columns.get(name, shape[-1])) for name, shape in shapes_of(network).items()}
    tensors = to_ours(rows, read | stored, shapes, place=place)
    for name, heads in paired_heads(family.name, config, tensors).items():
        tensors[name] = from_pairs(tensors[name], heads)
    return tensors, {part: file.tensors[name].kind for name, parts in as_stored.items() for part in parts}


def read_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a GGUF file, without its weights."""
    return tokenizer_of(GGUFFile(path).metadata, str(path))


def read_config(path: str | Path) -> tuple[Family, dict[str, Any]]:
    """The family of a GGUF file and the config.json that its metadata amounts to, without its weights."""
    return _config_of(GGUFFile(path))


def _config_of(file: GGUFFile) -> tuple[Family, dict[str, Any]]:
    name = value_of(file.metadata, "general.architecture", str, str(file.path))
    _refuse_other_kinds(file, name)
    if name not in FAMILY_OF:
        raise InputError(
            f"a model of architecture {name!r} is not read here",
            str(file.path),
            f"known: {', '.join(FAMILY_OF)}; of other families, open the Hugging Face folder",
        )
    last = value_of(file.metadata, f"{name}.block_count", int, str(file.path), 1) - 1
    for needed in ("token_embd.weight", f"blk.{last}.attn_output.weight"):
        if needed not in file.tensors or len(file.tensors[needed].shape) != 2:
            raise InputError(f"tensor {needed} is missing", str(file.path), FETCH_AGAIN)
    scaling = file.read([tensor for tensor in ROPE_TENSORS if tensor in file.tensors])
    divisors = {tensor: values.double().flatten().numpy() for tensor, values in scaling.items()}
    hf_config = keys_of_metadata(file.metadata, file.tensors, divisors, str(file.path))
    vocabulary = file.tensors["token_embd.weight"].shape[0]
    return FAMILIES[FAMILY_OF[name]], hf_config | {"vocab_size": vocabulary, "tie_word_embeddings": _tied(file)}


def keys_of_metadata(
    metadata: Mapping[str, Any], names: Container[str], divisors: Mapping[str, np.ndarray], place: str
) -> dict[str, Any]:
    """The keys of a config.json that metadata amounts to, but for vocab_size and tie_word_embeddings.

    Args:
        metadata: of an architecture that is read here.
        names: of the file's tensors.
        divisors: what those of ROPE_TENSORS that it has hold, (R / 2,) float64 each.
        place: the file, for errors.

    Raises:
        InputError: a key is missing, or would change what the model computes and is not understood here.
    """
    name = metadata["general.architecture"]
    keys = _Metadata(metadata, name, place)
    if name == "gpt2":
        hf_config = _gpt2_config(keys)
    else:
        hf_config = _llama_config(keys, name, "blk.0.attn_output.bias" in names) | _rope(keys, divisors)
    if name in LARGEST:
        hf_config |= _gemma_config(keys, name, hf_config)
    if name in ("phi3", "starcoder2"):
        hf_config["sliding_window"] = keys.take("attention.sliding_window", int) or None
    keys.finish()
    family = FAMILIES[FAMILY_OF[name]]
    return {"model_type": family.name, "architectures": [family.architecture]} | hf_config


def _refuse_other_kinds(file: GGUFFile, architecture: str | None) -> None:
    """Say what a GGUF file is that holds no whole model: an adapter, a projector, a vocabulary, statistics."""
    place = str(file.path)
    kind = value_of(file.metadata, "general.type", str, place, "model")
    if kind == "adapter" or any(key.startswith("adapter.") for key in file.metadata):
        hint = (
            "merge it into its base with llama.cpp's llama-export-lora, or take the PEFT folder that it was made from"
        )
        raise InputError("this is an adapter (LoRA as GGUF), not a model", place, hint)
    if kind == "mmproj" or architecture == "clip":
        hint = "open the file of the language model that lies beside it; lmworks reads text alone"
        raise InputError("this is a projector (of pictures or sound, mmproj), not a language model", place, hint)
    if kind == "imatrix":
        raise InputError("these are activation statistics (imatrix), not a model", place, "open the model's own file")
    if kind == "vocab" or not file.tensors:
        raise InputError("this is a vocabulary without weights, not a model", place, "open the model's own file")


class _Metadata:
    """The metadata under the architecture's name; like a config.json, every key is taken or knowingly left."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str, place: str) -> None:
        self.prefix, self.place = architecture + ".", place
        self.values = {key: value for key, value in metadata.items() if key.startswith(self.prefix)}

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        """The value of a key, as :func:`value_of`; of an array with a number for each layer the one that all have."""
        key = self.prefix + name
        if isinstance(array := self.values.get(key), np.ndarray):
            if len(set(array.tolist())) != 1:
                raise InputError(f"{key} differs from layer to layer", self.place, "open its Hugging Face folder")
            self.values[key] = array[0].item()
        value = value_of(self.values, key, kind, self.place, default)
        self.values.pop(key, None)
        return value

    def count(self, name: str, default: int | None = None) -> int:
        """An integer that must be there, or have a default, and be positive."""
        value = self.take(name, int, default)
        if value is None or value < 1:
            raise InputError(f"{self.prefix}{name} is {'missing' if value is None else value}", self.place, FETCH_AGAIN)
        return value

    def epsilon(self, name: str) -> float:
        """The epsilon of a norm, which must be there, as the decimal that was meant."""
        value = self.take(name, float)
        if value is None:
            raise InputError(f"{self.prefix}{name} is missing", self.place, FETCH_AGAIN)
        return _short(value)

    def finish(self) -> None:
        """Refuse keys that nobody took, unless they are known to change nothing."""
        for key, value in self.values.items():
            name = key.removeprefix(self.prefix)
            if name not in IGNORED and (isinstance(value, np.ndarray) or value not in HARMLESS.get(name, ())):
                raise InputError(
                    f"{key} = {value!r} may change what the model computes, and is not understood here",
                    self.place,
                    "convert the model from its Hugging Face folder, or open that",
                )


def _gpt2_config(metadata: _Metadata) -> dict[str, Any]:
    return {
        "n_positions": metadata.count("context_length"),
        "n_embd": metadata.count("embedding_length"),
        "n_layer": metadata.count("block_count"),
        "n_head": metadata.count("attention.head_count"),
        "n_inner": metadata.count("feed_forward_length"),
        "layer_norm_epsilon": metadata.epsilon("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
    }


def _llama_config(metadata: _Metadata, name: str, output_bias: bool) -> dict[str, Any]:
    size, heads = metadata.count("embedding_length"), metadata.count("attention.head_count")
    head = metadata.count("attention.key_length", size // heads)
    sizes = {key: metadata.take(key, int, head) for key in ("attention.value_length", "rope.dimension_count")}
    for key, other in sizes.items():
        is_part = (name, key) == ("phi3", "rope.dimension_count") and 0 < other < head
        if other != head and not is_part:
            fault = f"{metadata.prefix}{key} is {other}, but a head has {head}"
            raise InputError(fault, metadata.place, "not computed here")
    config: dict[str, Any] = {
        "hidden_size": size,
        "intermediate_size": metadata.count("feed_forward_length"),
        "num_hidden_layers": metadata.count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.count("attention.head_count_kv", heads),
        "head_dim": head,
    }
    if name == "starcoder2":
        return config | {"norm_epsilon": metadata.epsilon("attention.layer_norm_epsilon"), "use_bias": output_bias}
    config["rms_norm_eps"] = metadata.epsilon("attention.layer_norm_rms_epsilon")
    if name == "phi3":
        return config | {"partial_rotary_factor": sizes["rope.dimension_count"] / head}
    return config if name == "qwen2" else config | {"attention_bias": output_bias}


def _gemma_config(metadata: _Metadata, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What Gemma 2 and 3 have beside Llama's keys; defaults are llama.cpp's."""
    newer, layers = name == "gemma3", config["num_hidden_layers"]
    width = config["hidden_size"] // config["num_attention_heads"]
    window = metadata.take("attention.sliding_window", int, None if newer else 4096)
    period = metadata.count("attention.sliding_window_pattern", 6 if newer else 2)  # the last layer of each is full
    kinds = ["sliding_attention" if window and (layer + 1) % period else "full_attention" for layer in range(layers)]
    cap = metadata.take("final_logit_softcapping", float, None if newer else 30.0)
    keys: dict[str, Any] = {
        "query_pre_attn_scalar": width if layers == LARGEST[name] else config["head_dim"],
        "sliding_window": window or 4096,
        "layer_types": kinds,
        "final_logit_softcapping": _short(cap) if cap else None,
    }
    if newer:
        return keys | {"rope_local_base_freq": _short(metadata.take("rope.freq_base_swa", float, 10_000.0))}
    return keys | {"attn_logit_softcapping": _short(metadata.take("attn_logit_softcapping", float, 50.0))}


def _rope(metadata: _Metadata, divisors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    theta, context = _short(metadata.take("rope.freq_base", float, 10_000.0)), metadata.count("context_length")
    kind = metadata.take("rope.scaling.type", str, "none")
    factor = _short(metadata.take("rope.scaling.factor", float, metadata.take("rope.scale_linear", float, 1.0)))
    if not factor >= 0.0 or theta <= 0.0:
        fault = f"{metadata.prefix}rope.freq_base is {theta}, the factor of its scaling {factor}"
        raise InputError(fault, metadata.place, FETCH_AGAIN)
    original = metadata.take("rope.scaling.original_context_length", int) or context
    fields = {"attention_factor": "attn_factor", "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}
    yarn = {ours: metadata.take(f"rope.scaling.{theirs}", float) for ours, theirs in fields.items()}
    keys: dict[str, Any] = {"max_position_embeddings": context, "rope_theta": theta, "rope_scaling": None}
    if divisors:
        of_tensors = ("none", "longrope") if FREQUENCIES not in divisors else ("none",)
        if kind not in of_tensors:
            raise InputError(f"{min(divisors)} stands beside rope.scaling.type {kind!r}", metadata.place, FETCH_AGAIN)
        if FREQUENCIES in divisors:
            keys["rope_scaling"] = scaling_of(divisors[FREQUENCIES], theta, metadata.place)
        else:
            given = yarn["attention_factor"]
            keys["rope_scaling"] = _longrope(divisors, context, original, given, metadata.place)
    elif kind == "linear" or (kind == "none" and factor not in (0.0, 1.0)):
        keys["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    elif kind == "yarn":
        scaling = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
        # llama.cpp's attn_factor multiplies the scale that transformers' attention_factor replaces
        if (given := yarn.pop("attention_factor")) not in (None, 1.0) and factor > 0.0:
            yarn["attention_factor"] = given * usual_attention_factor("yarn", factor, original)
        keys["rope_scaling"] = scaling | {name: value for name, value in yarn.items() if value is not None}
    elif kind != "none":
        raise InputError(f"{metadata.prefix}rope.scaling.type {kind!r} is not computed here", metadata.place)
    return keys


def _longrope(
    divisors: Mapping[str, np.ndarray], context: int, trained: int, attention_factor: float | None, place: str
) -> dict[str, Any]:
    """The rope_scaling of a model with factors for short and for long texts.

    Args:
        divisors: both tensors.
        context: tokens, with the scaling.
        trained: tokens, without it.
        attention_factor: what cosines and sines are multiplied by; None: llama.cpp then multiplies them by one.
        place: the file, for errors.
    """
    for name in (SHORT_FACTORS, LONG_FACTORS):
        if name not in divisors or not (divisors[name] > 0.0).all():
            fault = "is missing" if name not in divisors else "holds numbers that are not positive"
            raise InputError(f"tensor {name} {fault}", place, FETCH_AGAIN)
    attention_factor = 1.0 if attention_factor is None else _short(attention_factor)
    if trained < 2 or not attention_factor > 0.0:
        fault = f"rope.scaling: original_context_length is {trained}, attn_factor {attention_factor}"
        raise InputError(fault, place, FETCH_AGAIN)
    short, long = ([_short(value) for value in divisors[name].tolist()] for name in (SHORT_FACTORS, LONG_FACTORS))
    scaling: dict[str, Any] = {"rope_type": "longrope", "factor": context / trained}
    scaling |= {"original_max_position_embeddings": trained, "short_factor": short, "long_factor": long}
    if not math.isclose(attention_factor, usual_attention_factor("longrope", context / trained, trained), rel_tol=1e-6):
        scaling["attention_factor"] = attention_factor
    return scaling


def _short(value: float) -> float:
    """A float32 of the file as the decimal that was meant: 9.999999747378752e-06 -> 1e-05."""
    return float(str(np.float32(value)))


def _tied(file: GGUFFile) -> bool:
    """Whether the head is the embedding: it is absent, or the same bytes again."""
    head, embedding = file.tensors.get("output.weight"), file.tensors["token_embd.weight"]
    if head is None:
        return True
    alike = (head.kind, head.shape) == (embedding.kind, embedding.shape)
    return alike and bool(np.array_equal(file.raw(head.name), file.raw(embedding.name)))


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    """What generation_config.json would say: which ids begin, pad and end a text (the main ending first)."""
    main_end = tokenizer.eos_id
    ends = ([] if main_end is None else [main_end]) + sorted(tokenizer.end_ids - {main_end})
    ids = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": tokenizer.pad_id,
    }
    return {name: value for name, value in ids.items() if value is not None}
