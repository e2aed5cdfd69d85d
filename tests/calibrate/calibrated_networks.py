"""Tiny decoders of several kinds with weights as training leaves them, and rows to calibrate them with."""

from __future__ import annotations

import torch

from lmworks.data.batch import Batch, Example
from lmworks.data.packing import pack
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer

SIZES = {"vocab_size": 90, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 64}  # fmt: skip
KINDS: dict[str, dict] = {
    "llama": {},
    "grouped": {"num_key_value_heads": 2},
    "gpt2": {"norm": "layer", "gated": False, "activation": "gelu", "qkv_bias": True, "output_bias": True,
             "mlp_bias": True, "positions": "learned"},
    "gemma": {"norm": "rms_offset", "norm_position": "both", "qk_norm": True, "activation": "gelu_tanh",
              "attention_softcap": 30.0, "num_key_value_heads": 2},
    "qwen": {"qkv_bias": True},
}  # fmt: skip
IDS = torch.arange(1, 41).view(2, 20)


def network(kind: str = "llama") -> Transformer:
    """With norms and biases as training leaves them."""
    result = Transformer(ModelConfig(**(SIZES | KINDS[kind]))).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    draw(result, generator)
    for name, parameter in result.named_parameters():
        if parameter.ndim == 1:
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        elif "embed" not in name:
            parameter *= 3.0
    return result


def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(0, 90, (length,), generator=generator).int().numpy() for length in (40, 33, 64, 20)]
    return pack([Example(ids, ids >= 0) for ids in rows], 80)
