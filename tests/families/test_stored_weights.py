"""Models opened with their matrices in storages: a GGUF's own blocks, and bfloat16 as transformers has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from test_gguf import ARCHITECTURES, TYPES, ids_of, write

from lmworks.base.errors import InputError
from lmworks.families.folder import open_folder, save_folder
from lmworks.families.gguf import open_gguf
from lmworks.model.stored_layers import StoredEmbedding, StoredLinear, stored_bytes, stored_layers

SIZES = {"intermediate_size": 64, "num_key_value_heads": 2}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q5_0"])
def test_a_gguf_as_it_is_stored_gives_the_logits_of_the_widened_one(
    kind: str, theirs: Callable[..., Any], tmp_path: Path
) -> None:
    model = theirs("llama", **SIZES)
    path = write(tmp_path / "m.gguf", model, TYPES[kind])
    plain, stored = open_gguf(path), open_gguf(path, storage="stored")
    layers = dict(stored_layers(stored.network))
    assert len(layers) == 7 * model.config.num_hidden_layers + 2
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    assert {layer.storage.dtype_name for layer in layers.values()} == {names.get(kind, kind)}
    block, size = gguf.GGML_QUANT_SIZES[TYPES[kind]]
    assert stored_bytes(stored.network) == sum(
        weight.numel() * size // block for weight in plain.network.parameters() if weight.dim() == 2
    )
    with torch.no_grad():
        assert torch.equal(stored.network(ids_of(model)).logits, plain.network(ids_of(model)).logits)


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_every_architecture_opens_as_it_is_stored(case: str, theirs: Callable[..., Any], tmp_path: Path) -> None:
    name, changes = ARCHITECTURES[case]
    model = theirs(name, **changes)
    path = write(tmp_path / "m.gguf", model)
    plain, stored = open_gguf(path), open_gguf(path, storage="stored")
    with torch.no_grad():
        assert torch.equal(stored.network(ids_of(model)).logits, plain.network(ids_of(model)).logits)


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_in_bfloat16_is_transformers_bfloat16_at_half_the_memory(
    tied: bool, theirs: Callable[..., Any], tmp_path: Path
) -> None:
    model = theirs("llama", tie_word_embeddings=tied, **SIZES)
    model.save_pretrained(tmp_path)
    plain, stored = open_folder(tmp_path), open_folder(tmp_path, storage="bfloat16")
    matrices = sum(weight.nbytes for weight in plain.network.parameters() if weight.dim() == 2)
    assert stored_bytes(stored.network) == matrices / 2
    half = model.to(torch.bfloat16)
    assert isinstance(stored.network.embed_tokens, StoredEmbedding)
    assert torch.equal(stored.network.embed_tokens.storage.dequantized(torch.bfloat16), half.model.embed_tokens.weight)
    for name, layer in stored_layers(stored.network):
        if name.startswith("layers."):
            own = half.get_submodule(f"model.{name}").weight
            assert torch.equal(layer.storage.dequantized(torch.bfloat16), own)
    ids = ids_of(model)
    with torch.no_grad():
        expected = half(ids).logits.float()
        with torch.autocast("cpu", torch.bfloat16):
            ours = stored.network(ids).logits.float()
        exact = plain.network(ids).logits
    rounding = float((expected - exact).norm() / exact.norm())  # what bfloat16 costs transformers
    assert float((ours - expected).norm() / expected.norm()) < 2 * rounding < 0.1


def test_a_storage_is_saved_back_in_its_data_type(theirs: Callable[..., Any], tmp_path: Path) -> None:
    model = theirs("llama", **SIZES)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    stored = open_folder(tmp_path / "bf16", storage="stored")
    path = save_folder(tmp_path / "again", stored.network, stored.config, stored.family)
    again = open_folder(path, storage="stored")
    assert '"torch_dtype": "bfloat16"' in (path / "config.json").read_text(encoding="utf-8")
    for (name, layer), (_, other) in zip(stored_layers(stored.network), stored_layers(again.network), strict=True):
        assert other.storage.dtype_name == "bfloat16"
        assert torch.equal(layer.storage.dequantized(), other.storage.dequantized()), name
    quantized = open_gguf(write(tmp_path / "m.gguf", theirs("llama", **SIZES), TYPES.Q4_1), storage="stored")
    path = save_folder(tmp_path / "widened", quantized.network, quantized.config, quantized.family)
    ids = ids_of(model)
    with torch.no_grad():
        assert torch.equal(open_folder(path).network(ids).logits, quantized.network(ids).logits)


def test_norms_and_biases_stay_float32(theirs: Callable[..., Any], tmp_path: Path) -> None:
    model = theirs("qwen2")
    model.save_pretrained(tmp_path)
    network = open_folder(tmp_path, storage="bfloat16").network
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert all(isinstance(network.get_submodule(f"layers.0.self_attn.{name}_proj"), StoredLinear) for name in "qkvo")


def test_unknown_storages_and_other_devices_are_refused(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("llama", **SIZES).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not a storage"):
        open_folder(tmp_path, storage="int3")
    with pytest.raises(InputError, match="on the CPU"):
        open_folder(tmp_path, device="cuda", storage="stored")


def test_a_missing_tensor_is_named(theirs: Callable[..., Any], tmp_path: Path) -> None:
    model = theirs("llama", **SIZES)
    del model.model.layers[0].mlp.down_proj
    path = write(tmp_path / "m.gguf", model)
    for storage in (None, "stored"):
        with pytest.raises(InputError, match=r"missing: blk\.0\.ffn_down\.weight"):
            open_gguf(path, storage=storage)
