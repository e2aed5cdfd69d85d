"""A network's weights, given to the native engine: which networks it computes, and how their weights get there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from lmworks.generate.engine_file import WHOLE_MODEL, EngineWeights
from lmworks.generate.native_stepper import NativeStepper
from lmworks.kernels.native_module import NATIVE_ACTIVATIONS, native_module
from lmworks.model.linear import PLAIN_LINEARS
from lmworks.model.positions import Rotary
from lmworks.model.storage import BlockStorage, WeightStorage
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear
from lmworks.model.ternary_blocks import TERNARY, as_tq2_0
from lmworks.model.transformer import Transformer

KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
BLOCK_KINDS = {"Q4_0": 3, "Q4_1": 4, "Q8_0": 5, "TQ2_0": 6}
"""How a matrix is stored, as WeightKind of native/engine.hpp."""
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NORMS = ("input_layernorm", "attention_output_layernorm", "post_attention_layernorm", "mlp_output_layernorm")


def unsupported(network: Transformer) -> str:
    """Why the engine cannot compute this decoder, as a phrase; empty if it can."""
    config = network.config
    if fault := _unavailable(network):
        return fault
    if config.architecture != "decoder" or config.layer != "attention" or not config.language_head:
        return "it computes decoders with attention and a language head"
    if config.norm_position == "post":
        return "it computes no blocks whose norms come last"
    if fault := _unsupported_parts(network):
        return fault
    if config.num_layer_groups is not None or config.embedding_size is not None or config.head_transform:
        return "it computes neither shared layers nor narrow embeddings"
    if network.num_virtual_tokens:
        return "it computes no virtual tokens"
    names = [name for name in MATRICES if name != "gate_proj" or config.gated]
    for layer in network.layers:
        for name in names:
            module = _linear_of(layer, name)
            if type(module) not in (*PLAIN_LINEARS, StoredLinear):
                return "an adapter is not merged"
    tables = (network.embed_tokens, network.lm_head)
    if any(
        type(table) not in (nn.Embedding, StoredEmbedding, StoredLinear, type(None), *PLAIN_LINEARS) for table in tables
    ):
        return "an adapter has rows of its own for tokens"
    return ""


def unsupported_encoder(network: Transformer) -> str:
    """Why the engine cannot compute the hidden states of this encoder, as a phrase; empty if it can."""
    config = network.config
    if fault := _unavailable(network):
        return fault
    if config.architecture != "encoder" or config.layer != "attention":
        return "it computes vectors of texts by encoders with attention"
    if config.norm_position == "both":
        return "it computes no encoders with norms on both sides of a layer's parts"
    if fault := _unsupported_parts(network):
        return fault
    if config.attention_softcap or any(config.window_of(layer) for layer in range(config.num_hidden_layers)):
        return "it computes neither windows nor capped scores of an encoder"
    if network.num_virtual_tokens:
        return "it computes no virtual tokens"
    linears = [_linear_of(layer, name) for layer in network.layers for name in MATRICES]
    plain = (*PLAIN_LINEARS, StoredLinear, type(None))
    if any(type(module) not in plain for module in (*linears, network.embed_project)):
        return "an adapter is not merged"
    if type(network.embed_tokens) not in (nn.Embedding, StoredEmbedding):
        return "an adapter has rows of its own for tokens"
    return ""


def _unavailable(network: Transformer) -> str:
    """Why the engine computes nothing here, whatever the network is; empty if it does."""
    if native_module() is None or not hasattr(native_module(), "Engine"):
        return "there are no native kernels"
    return "" if network.device.type == "cpu" else f"the model is on {network.device.type}"


def _unsupported_parts(network: Transformer) -> str:
    """Which positions or activation the engine has for no network; empty if it has these."""
    config = network.config
    if config.positions not in ("rotary", "learned", "none"):
        return f"it computes no {config.positions} positions"
    rotaries = (network.rotary, network.local_rotary)
    if any(rotary is not None and rotary.depends_on_length for rotary in rotaries):
        return "its positions depend on the length of the text"
    if config.activation not in NATIVE_ACTIVATIONS:
        return f"it does not compute the activation {config.activation}"
    return ""


def native_stepper(network: Transformer, precision: str = "float32", *, kv_cache: str | None = None) -> NativeStepper:
    """A stepper over a copy of the network's weights; arguments and errors of :func:`weights_of` and NativeStepper."""
    engine, config = weights_of(network, precision).engine, network.config
    return NativeStepper(engine, config.vocab_size, config.max_position_embeddings, kv_cache=kv_cache)


def weights_of(network: Transformer, precision: str = "float32") -> EngineWeights:
    """The engine with the network's weights, each as it is stored: in blocks of 2, 4 or 8 bits, or dense.

    Args:
        network: one that :func:`unsupported` has nothing against.
        precision: "float32" or "bfloat16": of the matrices that are stored in float32.

    Raises:
        InputError: ternary blocks hold numbers that are not ternary.
    """
    config = network.config
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    engine = EngineWeights(_engine_config(network, dtype))
    _set_matrix(engine, WHOLE_MODEL, "embed_tokens", network.embed_tokens, dtype)
    if network.lm_head is not None:
        _set_matrix(engine, WHOLE_MODEL, "lm_head", network.lm_head, dtype)
    if network.head_bias is not None:
        engine.set_vector("head_bias", _floats(network.head_bias))
    if network.embed_positions is not None:
        table = network.embed_positions.weight[config.position_offset :]
        engine.set_vector("embed_positions", _floats(table[: config.max_position_embeddings]))
    for local, rotary in ((False, network.rotary), (True, network.local_rotary)):
        if rotary is not None:
            _set_rotary(engine, local, rotary, config.max_position_embeddings)
    return _with_layers(engine, network, lambda layer, name, module: _set_matrix(engine, layer, name, module, dtype))


def encoder_weights_of(network: Transformer, precision: str = "float32") -> EngineWeights:
    """The engine with an encoder's weights.

    Args:
        network: one that :func:`unsupported_encoder` has nothing against.
        precision: "float32" or "bfloat16": of all matrices, and of what they are multiplied with; those of odd sizes
            are in float32.
    """
    config = network.config
    sizes = (config.hidden_size, config.intermediate_size, config.embedding_width)
    is_even = not any(size % 2 for size in (*sizes, config.num_attention_heads * config.head_size))
    dtype = torch.bfloat16 if precision == "bfloat16" and is_even else torch.float32
    groups = len(network.layers)  # of layers that share their weights, or single layers
    parts = {"post_norm": config.norm_position == "post", "depth": config.num_hidden_layers}
    parts["embedding_size"] = config.embedding_width
    of_encoder = {"windows": [0] * groups, "local": [False] * groups, "encoder": parts}
    engine = EngineWeights(_engine_config(network, dtype) | of_encoder)
    engine.set_vector("embed_tokens", _floats(_weight(network.embed_tokens)).reshape(-1))
    if (rows := _position_rows(network)) is not None:
        engine.set_vector("embed_positions", _floats(rows).reshape(-1))
    if network.rotary is not None:
        _set_rotary(engine, False, network.rotary, config.max_position_embeddings)
    if network.embed_project is not None:
        _set_dense(engine, WHOLE_MODEL, "embed_project", network.embed_project, dtype)
    return _with_layers(engine, network, lambda layer, name, module: _set_dense(engine, layer, name, module, dtype))


def _with_layers(
    engine: EngineWeights, network: Transformer, put: Callable[[int, str, nn.Module], None]
) -> EngineWeights:
    """Give the engine all norms, and the layers' matrices by ``put(layer, name, module)``; then finish it."""
    offset = 1.0 if network.config.norm == "rms_offset" else 0.0
    for name in ("norm", "embed_norm"):
        _set_norm(engine, WHOLE_MODEL, name, getattr(network, name), offset)
    for index, layer in enumerate(network.layers):
        for name in MATRICES:
            if (module := _linear_of(layer, name)) is not None:
                put(index, name, module)
        for name in NORMS:
            _set_norm(engine, index, name, getattr(layer, name), offset)
        for name in ("q_norm", "k_norm"):
            _set_norm(engine, index, name, getattr(layer.self_attn, name), offset)
    engine.engine.finish()
    return engine


def formats_of(weights: EngineWeights) -> list[str]:
    """The formats of an engine's matrices, such as Q4_1 and Q8_0, the most frequent first."""
    names = {number: str(dtype).removeprefix("torch.") for dtype, number in KINDS.items()}
    names |= {number: name for name, number in BLOCK_KINDS.items()}
    return [names[kind] for kind, _ in Counter(weights.kinds.values()).most_common()]


def _engine_config(network: Transformer, dtype: torch.dtype) -> dict[str, Any]:
    """The config as the constructor of native/engine.cpp reads it."""
    config = network.config
    layers = range(config.num_hidden_layers)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.key_value_heads,
        "head_size": config.head_size,
        "rotary_size": config.rotary_size if config.positions == "rotary" else 0,
        "positions": config.max_position_embeddings,
        "float_cache": dtype == torch.float32 and _is_float(network),
        "layer_norm": config.norm == "layer",
        "activation": NATIVE_ACTIVATIONS[config.activation],
        "eps": config.norm_eps,
        "attention_scale": config.attention_scale or config.head_size**-0.5,
        "embedding_scale": config.embedding_scale,
        "head_scale": config.head_scale,
        "attention_softcap": config.attention_softcap or 0.0,
        "logit_softcap": config.logit_softcap or 0.0,
        "windows": [config.window_of(layer) or 0 for layer in layers],
        "local": [config.is_local(layer) for layer in layers],
    }


def _is_float(network: Transformer) -> bool:
    """Whether the weights are in float32, as keys and values are then; the first matrix tells for all."""
    module = network.layers[0].get_submodule("self_attn.q_proj")
    storage: WeightStorage | None = getattr(module, "storage", None)
    return (
        storage.dtype_name == "float32"
        if storage is not None
        else module.get_parameter("weight").dtype == torch.float32
    )


def _linear_of(layer: nn.Module, name: str) -> nn.Module | None:
    part = layer.mlp if name in ("gate_proj", "up_proj", "down_proj") else layer.self_attn
    return getattr(part, name, None)


def _floats(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()


def _set_matrix(engine: EngineWeights, layer: int, name: str, module: nn.Module, dtype: torch.dtype) -> None:
    """Give a matrix with its bias to the engine, as it is stored; converted to ``dtype`` if it is in float32, or in
    blocks that the engine has not."""
    storage: WeightStorage | None = getattr(module, "storage", None)
    if isinstance(storage, BlockStorage) and storage.kind in TERNARY:
        storage = as_tq2_0(storage, name if layer == WHOLE_MODEL else f"layer {layer}, {name}")
    if isinstance(storage, BlockStorage) and storage.kind in BLOCK_KINDS:
        kind, data = BLOCK_KINDS[storage.kind], storage.blocks
    else:
        weight = _weight(module)
        weight = weight.to(dtype) if weight.dtype == torch.float32 else weight
        kind, data = KINDS[weight.dtype], weight.contiguous().view(torch.uint8)
    bias = getattr(module, "bias", None)
    engine.set_matrix(layer, name, kind, data.reshape(-1).numpy(), None if bias is None else _floats(bias))


def _weight(module: nn.Module) -> torch.Tensor:
    """The matrix of a linear or an embedding, in its own precision; dequantized to float32 where it is quantized."""
    storage: WeightStorage | None = getattr(module, "storage", None)
    if storage is None:
        return module.get_parameter("weight").detach()
    dtype = getattr(torch, storage.dtype_name, torch.float32)
    return storage.dequantized(dtype if dtype in KINDS else torch.float32)


def _set_dense(engine: EngineWeights, layer: int, name: str, module: nn.Module, dtype: torch.dtype) -> None:
    """Give a matrix with its bias to the engine in this ``dtype``, however it is stored."""
    data = _weight(module).to(dtype).contiguous().view(torch.uint8).reshape(-1).numpy()
    bias = getattr(module, "bias", None)
    engine.set_matrix(layer, name, KINDS[dtype], data, None if bias is None else _floats(bias))


def _position_rows(network: Transformer) -> torch.Tensor | None:
    """(positions, width) float32: what is added to the embedding of a token at each position, which is the embedding of
    the position plus that of the first token type; None where there is neither."""
    config, table = network.config, network.embed_positions
    rows = None
    if table is not None:
        rows = table.weight[config.position_offset :][: config.max_position_embeddings].detach().float()
    if network.embed_types is not None:
        first = network.embed_types.weight[0].detach().float()
        rows = first.expand(config.max_position_embeddings, -1) if rows is None else rows + first
    return rows


def _set_norm(engine: EngineWeights, layer: int, name: str, module: nn.Module | None, offset: float) -> None:
    if module is None:
        return
    bias = getattr(module, "bias", None)
    weight = module.get_parameter("weight").detach().float() + offset
    engine.set_norm(layer, name, _floats(weight), None if bias is None else _floats(bias))


def _set_rotary(engine: EngineWeights, local: bool, rotary: Rotary, positions: int) -> None:
    cos, sin = rotary.cos_sin(torch.arange(positions)[None], torch.float32)
    engine.set_rotary(local, _floats(cos.reshape(positions, -1)), _floats(sin.reshape(positions, -1)))
