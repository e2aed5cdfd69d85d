"""Linears packed for generation straight from a storage compute what it holds."""

from __future__ import annotations

import copy

import gguf
import pytest
import torch

from lmworks.generate.packed import FourBitLinear, make_fast
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear, store, stored_layers
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer


def quantized(kind: str, **settings: object) -> Transformer:
    sizes = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    network = Transformer(
        ModelConfig(num_attention_heads=4, max_position_embeddings=32, initializer_range=0.1, **sizes, **settings)
    ).eval()
    draw(network, torch.Generator().manual_seed(0))
    for name, module in [*named_linears(network), ("embed_tokens", network.embed_tokens)]:
        own = "Q8_0" if name in ("embed_tokens", "lm_head") else kind
        data = gguf.quants.quantize(module.weight.detach().numpy(), gguf.GGMLQuantizationType[own])
        store(network, name, BlockStorage(torch.from_numpy(data), own))
    return network.requires_grad_(False)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_are_packed_as_they_are(kind: str, precision: str, tied: bool) -> None:
    stored = quantized(kind, tie_word_embeddings=tied)
    exact = copy.deepcopy(stored)
    count = 14 if kind != "Q8_0" else 0
    make_fast(stored, precision)
    ids = torch.randint(0, 96, (1, 12))
    row = ids[:, :1]
    for given in (ids, row):  # many rows, and one
        logits, expected = stored(given).logits.float(), exact(given).logits
        assert float((logits - expected).norm() / expected.norm()) < 0.03
    if precision == "float32":
        torch.testing.assert_close(stored(ids).logits, exact(ids).logits, rtol=0, atol=1e-4)
        assert isinstance(stored.embed_tokens, StoredEmbedding)
    linears = [module for module in stored.modules() if isinstance(module, FourBitLinear)]
    assert len(linears) == count
    assert all(isinstance(linear.plain, StoredLinear) for linear in linears)
    if not count:
        assert all(name.startswith(("embed", "lm_head")) for name, _ in stored_layers(stored))
