"""LoRA adapters read for the native engine: the factors that PyTorch reads, whatever the files; the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_adapter_folder import make_pair, shake

from lmworks.adapt import native_lora
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.adapt.registry import load_adapter
from lmworks.base.errors import InputError
from lmworks.families.registry import FAMILIES
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer

PHI3 = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
"""Its q_proj has twice the rows of k_proj, and all three are one matrix in its file."""


def network_of(kind: str) -> tuple[Transformer, Any]:
    if kind != "phi3":
        return make_pair(kind)[1:]
    config = ModelConfig(**PHI3, num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False)
    network = Transformer(config).eval()
    draw(network, torch.Generator().manual_seed(0))
    return network, FAMILIES["phi3"]


def check(network: Transformer, folder: Path, family: Any) -> None:
    """The updates in a folder are those of a network that has loaded them."""
    native_lora.check_computed(folder)
    read = {(own.layer, own.name): own for own in native_lora.read_updates(folder, family, network.config)}
    expected = LoRA.factors(network)
    assert len(read) == len(expected) > 0
    for name, factors in expected.items():
        _, layer, _, linear = name.split(".")
        a, b = read[int(layer), linear][2:]
        assert (a.dtype, b.dtype) == (np.float32, np.float32)
        np.testing.assert_array_equal(a, factors.a.numpy())
        np.testing.assert_allclose(b, factors.scale * factors.b.numpy(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi3"])
@pytest.mark.parametrize(
    "options", [{}, {"target_modules": "all-linear", "use_rslora": True}, {"target_modules": "q_proj,v_proj"}]
)
def test_factors_are_those_that_the_network_was_written_with(kind, options, tmp_path):
    network, family = network_of(kind)
    LoRA(LoRASettings(rank=3, alpha=9, **options)).apply(network, seed=4)
    shake(network)
    LoRA.write(network, tmp_path, family)
    again, _ = network_of(kind)
    assert load_adapter(again, tmp_path, family) == []
    check(again, tmp_path, family)
    torch.testing.assert_close(again(torch.arange(9)[None]).logits, network(torch.arange(9)[None]).logits)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"target_modules": "all-linear", "use_rslora": True}),
        ("llama", {"target_modules": ["q_proj", "o_proj"], "rank_pattern": {"o_proj": 2}}),
        ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    ],
)
def test_what_peft_writes_is_read(kind, options, tmp_path):
    peft = pytest.importorskip("peft")
    theirs, ours, family = make_pair(kind)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **options))
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    load_adapter(ours, tmp_path, family)
    check(ours, tmp_path, family)


@pytest.fixture(name="saved")
def _saved(tmp_path: Path) -> Path:
    network, family = network_of("llama")
    LoRA(LoRASettings(rank=2, target_modules="q_proj,v_proj")).apply(network)
    shake(network)
    LoRA.write(network, tmp_path, family)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(saved, dtype):
    path = saved / "adapter_model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    network, family = network_of("llama")
    load_adapter(network, saved, family)
    check(network, saved, family)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["score"]}, "head"),
        ({"trainable_token_indices": [3]}, "tokens"),
        ({"bias": "lora_only"}, "biases"),
        ({"peft_type": "IA3"}, "IA3"),
    ],
)
def test_adapters_of_more_than_updates_are_left_to_torch(saved, change, named):
    path = saved / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(native_lora.NotComputed, match=named):
        native_lora.check_computed(saved)


@pytest.mark.parametrize(("key", "value"), [("head", {"name": "labels"}), ("base_quant_type", "nf4")])
def test_adapters_of_a_head_or_a_quantized_base_are_left_to_torch(saved, key, value):
    path = saved / "lmworks_base.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(native_lora.NotComputed):
        native_lora.check_computed(saved)


def test_an_update_of_the_head_is_left_to_torch(saved):
    path, config = saved / "adapter_model.safetensors", saved / "adapter_config.json"
    module = "base_model.model.lm_head"
    factors = {f"{module}.lora_A.weight": torch.ones(2, 24), f"{module}.lora_B.weight": torch.ones(61, 2)}
    save_file(load_file(path) | factors, path)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": ["q_proj", "v_proj", "lm_head"]}))
    network, family = network_of("llama")
    with pytest.raises(native_lora.NotComputed, match="lm_head"):
        native_lora.read_updates(saved, family, network.config)


def changed(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[dict[str, torch.Tensor], str]]:
    """Hostile files by what is wrong with them, each with what is said."""
    first = next(name for name in sorted(tensors) if "lora_A" in name)
    without = {name: tensor for name, tensor in tensors.items() if name != first}
    module = first.partition(".lora_")[0]
    return {
        "one factor": (without, "alone"),
        "no module": ({name: own for name, own in tensors.items() if not name.startswith(module)}, "no tensors for"),
        "nothing": ({}, "no tensors"),
        "integers": (tensors | {first: tensors[first].int()}, "I32"),
        "a vector": (tensors | {first: tensors[first][0].clone()}, "factors of"),
        "a number": (tensors | {first: torch.tensor(1.0)}, "factors of"),
        "another rank": (tensors | {first: tensors[first][:1].clone()}, "factors of"),
        "a module that is none": (tensors | {first.replace("q_proj", "x_proj"): tensors[first].clone()}, "x_proj"),
        "another tensor": (tensors | {"base_model.model.model.norm.weight": torch.ones(24)}, "unexpected tensor"),
    }


@pytest.mark.parametrize("fault", list(changed({"a.q_proj.lora_A.weight": torch.ones(2, 3)})))
def test_damaged_files_are_refused_by_both(saved, fault):
    path = saved / "adapter_model.safetensors"
    tensors, said = changed(load_file(path))[fault]
    save_file(tensors, path)
    network, family = network_of("llama")
    with pytest.raises(InputError, match=said) as caught:
        native_lora.read_updates(saved, family, network.config)
    assert str(saved) in caught.value.place
    if fault != "integers":
        with pytest.raises(InputError, match=said):
            load_adapter(network, saved, family)


def test_a_cut_or_missing_file_is_refused(saved):
    path = saved / "adapter_model.safetensors"
    network, family = network_of("llama")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        native_lora.read_updates(saved, family, network.config)
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        native_lora.read_updates(saved, family, network.config)
