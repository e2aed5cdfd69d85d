"""Weight storages: dequantized as the reference does, used by products as the plain weights would be."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from torch import nn

from lmworks.adapt.adapters import adapters, disabled, fingerprint
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.storage import BlockStorage, DenseStorage, WeightStorage, row_parts
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear, store, stored_bytes, widen
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer
from lmworks.train import losses
from lmworks.train.step import autocast, cast_frozen_weights

QUANTIZED = ("Q4_0", "Q4_1", "Q8_0", "Q5_1", "Q6_K")
SIZES = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
         "initializer_range": 0.1}  # fmt: skip


def storage_of(kind: str, weight: torch.Tensor) -> WeightStorage:
    """A matrix rounded to a format."""
    if kind in ("float32", "bfloat16"):
        return DenseStorage(weight.detach().to(getattr(torch, kind)))
    if kind == "Q6_K":  # which the library reads and does not write: any bytes are a matrix
        blocks = torch.randint(0, 256, (len(weight), weight.shape[1] // 256 * 210), dtype=torch.uint8)
        blocks.view(len(weight), -1, 210)[:, :, 208:] = torch.tensor([0.01], dtype=torch.float16).view(torch.uint8)
        return BlockStorage(blocks, kind)
    data = gguf.quants.quantize(weight.detach().numpy(), gguf.GGMLQuantizationType[kind])
    return BlockStorage(torch.from_numpy(data), kind)


def stored_and_plain(kind: str, **settings: object) -> tuple[Transformer, Transformer]:
    """The same weights in a format, and in float32."""
    networks = []
    for _ in range(2):
        network = Transformer(ModelConfig(**SIZES, **settings)).eval()
        draw(network, torch.Generator().manual_seed(0))
        for name, module in [*named_linears(network), ("embed_tokens", network.embed_tokens)]:
            store(network, name, storage_of(kind, module.weight))
        networks.append(network.requires_grad_(False))
    widen(networks[1])
    return networks[0], networks[1]


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "pytorch"])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_blocks_are_dequantized_as_the_reference_does(kind: str, kernels: bool, monkeypatch) -> None:
    if not kernels:
        monkeypatch.setattr("lmworks.model.storage.can_dequantize", lambda *_: False)
    torch.manual_seed(0)
    storage = storage_of(kind, torch.randn(48, 256))
    assert isinstance(storage, BlockStorage)
    reference = gguf.quants.dequantize(storage.blocks.numpy(), gguf.GGMLQuantizationType[kind])
    assert storage.shape == (48, 256)
    assert storage.dtype_name == kind
    assert storage.nbytes == storage.blocks.numel() < 2 * 48 * 256
    assert np.array_equal(storage.dequantized().numpy(), reference)
    assert torch.equal(storage.dequantized(torch.bfloat16), torch.from_numpy(reference).bfloat16())
    chosen = torch.tensor([7, 0, 7, 47])
    assert np.array_equal(storage.rows(chosen).dequantized().numpy(), reference[chosen.numpy()])
    assert np.array_equal(storage.rows(slice(3, 9)).dequantized().numpy(), reference[3:9])


def test_dense_storage_is_rounded_once() -> None:
    weight = torch.randn(5, 7)
    storage = DenseStorage(weight.bfloat16())
    assert (storage.shape, storage.dtype_name, storage.nbytes) == ((5, 7), "bfloat16", 70)
    assert torch.equal(storage.dequantized(), weight.bfloat16().float())
    assert storage.dequantized(torch.bfloat16).data_ptr() == storage.tensor.data_ptr()
    assert row_parts(storage, torch.bfloat16) == [slice(0, 5)]


@pytest.mark.parametrize("kind", QUANTIZED)
def test_blocks_of_zeros(kind: str) -> None:
    storage = BlockStorage.zeros(3, 512, kind)
    assert storage is not None
    assert storage.shape == (3, 512)
    assert not storage.dequantized().any()
    assert BlockStorage.zeros(3, 40, kind) is None


def test_weights_dequantized_from_blocks_leave_memory_while_copies_in_bfloat16_are_used() -> None:
    network = stored_and_plain("Q4_1")[0]
    network.dequantized_from = widen(network)
    changed = network.layers[1].mlp.up_proj.weight
    changed.data += 1.0  # as if an adapter had been merged: its blocks do not hold it
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with cast_frozen_weights(network, "bfloat16") as originals:
        norms = sum(weight.nbytes for weight in network.parameters() if weight.ndim == 1) * 2
        assert originals == 4 * changed.numel() + norms
        assert all(weight.dtype == torch.bfloat16 for weight in network.parameters())
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_levels_of_four_bits_are_the_weights(kind: str) -> None:
    storage = storage_of(kind, torch.randn(16, 64))
    assert isinstance(storage, BlockStorage)
    groups = storage.four_bit_groups()
    assert groups is not None
    levels, steps, smallest = groups
    assert int(levels.min()) >= 0
    assert int(levels.max()) <= 15
    weight = levels.view(16, -1, 32) * steps[..., None] + smallest[..., None]
    torch.testing.assert_close(weight.view(16, 64), storage.dequantized(), rtol=0, atol=1e-6)
    assert storage_of("Q8_0", torch.randn(16, 64)).four_bit_groups() is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": False, "qkv_bias": True, "mlp_bias": True}])
@pytest.mark.parametrize("kind", ["bfloat16", "Q4_1", "Q8_0"])
def test_logits_are_those_of_the_widened_weights(kind: str, settings: dict[str, object], monkeypatch) -> None:
    monkeypatch.setattr("lmworks.model.storage.PART", 64 * 40)  # the head in parts
    stored, plain = stored_and_plain(kind, **settings)
    assert isinstance(stored.embed_tokens, StoredEmbedding)
    assert not any(isinstance(module, nn.Linear) for module in stored.modules())
    ids = torch.randint(0, 96, (2, 11))
    with torch.no_grad():
        assert torch.equal(stored(ids).hidden, plain(ids).hidden)
        torch.testing.assert_close(stored(ids).logits, plain(ids).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["bfloat16", "Q4_1"])
def test_gradients_of_lora_are_those_over_the_widened_weights(kind: str, dropout: float, precision: str) -> None:
    results = []
    for network in stored_and_plain(kind):
        LoRA(LoRASettings(rank=3, dropout=dropout, target_modules=["q_proj", "v_proj", "down_proj"])).apply(network)
        torch.manual_seed(1)
        for _, adapter in adapters(network):
            nn.init.normal_(adapter.lora_B, std=0.1)  # type: ignore[arg-type]
        ids = torch.randint(0, 96, (1, 20))
        with cast_frozen_weights(network.train(), precision):
            with autocast(precision, torch.device("cpu")):
                hidden = network.hidden_states(ids).flatten(0, 1)
                loss = losses.language_loss(network, hidden, ids.flatten(), torch.ones(20))
            loss.backward()
        grads = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
        results.append((loss.detach(), grads))
    (loss, grads), (expected_loss, expected) = results
    assert loss == expected_loss
    assert len(grads) == 2 * 3 * 2
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        assert torch.equal(grad, expected[name]), name


def test_a_head_in_parts_has_the_same_gradient(monkeypatch) -> None:
    stored, plain = stored_and_plain("Q8_0")
    monkeypatch.setattr("lmworks.model.storage.PART", 64 * 40)
    grads = []
    for network in (stored, plain):
        hidden = torch.randn(20, 64, generator=torch.Generator().manual_seed(2)).requires_grad_()
        losses.language_loss(network, hidden, torch.arange(20), torch.ones(20)).backward()
        grads.append(hidden.grad)
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["bfloat16", "Q4_1"])
def test_a_fingerprint_does_not_depend_on_the_storage(kind: str) -> None:
    stored, plain = stored_and_plain(kind)
    assert fingerprint(stored) == fingerprint(plain)
    LoRA(LoRASettings()).apply(stored)
    assert fingerprint(stored) == fingerprint(plain)


def test_a_merged_update_over_a_storage_is_taken_out_exactly() -> None:
    network, _ = stored_and_plain("Q4_1")
    ids = torch.randint(0, 96, (1, 9))
    with torch.no_grad():
        base = network(ids).logits
        LoRA(LoRASettings(rank=2)).apply(network)
        for _, adapter in adapters(network):
            nn.init.normal_(adapter.lora_B, std=0.1)  # type: ignore[arg-type]
        adapted = network(ids).logits
        assert not torch.allclose(adapted, base, atol=1e-3)
        for _, adapter in adapters(network):
            adapter.merge()
        torch.testing.assert_close(network(ids).logits, adapted, rtol=0, atol=1e-4)
        with disabled(network):
            assert torch.equal(network(ids).logits, base)
        for _, adapter in adapters(network):
            adapter.unmerge()
            assert isinstance(adapter.base, StoredLinear)
        assert torch.equal(network(ids).logits, adapted)


def test_bytes_are_those_of_the_format() -> None:
    plain = sum(weight.nbytes for weight in Transformer(ModelConfig(**SIZES)).parameters() if weight.dim() == 2)
    half, _ = stored_and_plain("bfloat16")
    quarter, _ = stored_and_plain("Q4_1")
    assert stored_bytes(half) == plain / 2
    assert stored_bytes(quarter) == plain * 20 / 128
