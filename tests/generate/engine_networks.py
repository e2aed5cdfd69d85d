"""Networks that tests of the native engine share: decoders with all that a config can say, dense and in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from lmworks.generate.native_weights import BLOCK_KINDS
from lmworks.generate.stepper import RowStart
from lmworks.model.config import ModelConfig
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import store
from lmworks.model.surgery import named_linears
from lmworks.model.ternary_blocks import TERNARY
from lmworks.model.transformer import Transformer

BASE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
GPT2 = {
    "norm": "layer",
    "positions": "learned",
    "gated": False,
    "activation": "gelu",
    "qkv_bias": True,
    "output_bias": True,
    "mlp_bias": True,
    "num_key_value_heads": 4,
}
GEMMA = {
    "norm": "rms_offset",
    "norm_position": "both",
    "attention_softcap": 20.0,
    "logit_softcap": 10.0,
    "sliding_window": 8,
    "layer_kinds": ("sliding_attention", "full_attention", "sliding_attention"),
    "rope_local_theta": 1000.0,
    "embedding_scale": 8.0,
    "qk_norm": True,
    "activation": "gelu_tanh",
    "head_dim": 24,
    "attention_scale": 0.1,
}
ODD = {"tie_word_embeddings": False, "rotary_fraction": 0.5, "head_bias": True, "hidden_size": 72, "head_dim": 20}
BLOCKS = [*BLOCK_KINDS, "TQ1_0"]
WHOLE_BLOCKS = {"hidden_size": 256, "intermediate_size": 512}  # of 256 columns, as ternary formats have
PROMPTS = (5, 70, 1, 33)


def network_of(spread: float = 0.3, **changes) -> Transformer:
    torch.manual_seed(0)
    network = Transformer(ModelConfig.model_validate({**BASE, **changes})).eval().requires_grad_(False)
    for weight in network.parameters():
        weight += torch.randn_like(weight) * (spread if weight.ndim > 1 else 0.1)
    return network


def network_in_blocks(kind: str, **changes) -> Transformer:
    """With its linears in blocks of a format."""
    quants = pytest.importorskip("gguf.quants")
    from gguf.constants import GGMLQuantizationType

    network = network_of(spread=0.1, **(WHOLE_BLOCKS if kind in TERNARY else {}), **changes)
    for name, linear in list(named_linears(network)):
        weight = linear.weight
        blocks = quants.quantize((ternary(weight) if kind in TERNARY else weight).numpy(), GGMLQuantizationType[kind])
        store(network, name, BlockStorage(torch.from_numpy(blocks), kind))
    return network


def ternary(weight: torch.Tensor) -> torch.Tensor:
    """-1, 0 and 1 times the mean magnitude, as training makes them; rounded from others, nearly all would be zero."""
    scale = weight.abs().mean()
    return (weight / scale).round().clamp(-1, 1) * scale


def prompts(lengths: Sequence[int] = PROMPTS) -> list[RowStart]:
    return [RowStart(torch.randint(0, 97, (length,)).tolist()) for length in lengths]
