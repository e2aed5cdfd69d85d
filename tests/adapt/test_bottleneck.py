"""Bottleneck adapters: what they compute, where they are, their folders, and that what cannot merge them keeps them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_families import ask_ours, open_case, question
from tiny_model import save_tiny
from torch import nn
from torch.nn.functional import gelu

import lmworks
from lmworks.adapt.adapters import adapters, merged
from lmworks.adapt.bottleneck import Bottleneck, BottleneckSettings
from lmworks.adapt.bottleneck_linear import BottleneckLinear
from lmworks.adapt.registry import load_adapter
from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.families.folder import open_folder
from lmworks.language_model.model import LanguageModel

FAMILIES = ["llama", "gpt2", "phi3", "gemma2", "bert-masked", "distilbert", "albert-groups", "bart", "t5"]


def shake(network: nn.Module) -> None:
    """Weights as training might leave them."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)


def test_it_is_the_layer_of_the_paper_and_starts_as_the_base():
    base, x = nn.Linear(5, 6), torch.randn(4, 5)
    adapter, again, other = (
        BottleneckLinear(base, 3, "gelu", torch.Generator().manual_seed(seed)) for seed in (2, 2, 3)
    )
    assert torch.equal(again.down, adapter.down)
    assert not torch.equal(other.down, adapter.down)
    y = base(x)
    assert torch.equal(adapter(x), y)
    assert float(adapter.down.detach().std()) > 0.1
    shake(adapter)
    inner = gelu(y @ adapter.down.T + adapter.down_bias)
    torch.testing.assert_close(adapter(x), y + inner @ adapter.up.T + adapter.up_bias)


@pytest.mark.parametrize(
    ("kind", "places"),
    [("houlsby", {"self_attn.o_proj", "cross_attn.o_proj", "mlp.down_proj"}), ("pfeiffer", {"mlp.down_proj"})],
)
def test_it_is_after_the_parts_of_each_block(kind, places, tmp_path):
    _, ours = open_case("bart", tmp_path)
    Bottleneck(BottleneckSettings(kind=kind, reduction_factor=8)).apply(ours.network)
    names = [name for name, _ in adapters(ours.network)]
    assert {".".join(name.split(".")[-2:]) for name in names} == places
    layers = ours.config.num_hidden_layers, ours.config.num_decoder_layers
    assert len(names) == (2 * layers[0] + 3 * layers[1] if kind == "houlsby" else sum(layers))
    assert {module.size for _, module in adapters(ours.network)} == {ours.config.hidden_size // 8}


@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_opened_it_gives_the_same_logits(name, kind, tmp_path):
    _, ours = open_case(name, tmp_path / "base")
    method, asked = Bottleneck(BottleneckSettings(kind=kind, size=3, activation="silu")), question(ours.config)
    method.apply(ours.network.eval())
    shake(ours.network)
    method.write(ours.network, tmp_path / "adapter", ours.family)
    again = open_folder(tmp_path / "base")
    assert load_adapter(again.network.eval(), tmp_path / "adapter", again.family) == []
    with torch.no_grad():
        assert torch.equal(ask_ours(again.network, asked)["logits"], ask_ours(ours.network, asked)["logits"])
    keys = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert keys["peft_type"] == "BOTTLENECK"


def test_its_files_are_checked(tmp_path):
    from safetensors.torch import load_file, save_file

    _, ours = open_case("llama", tmp_path / "base")
    Bottleneck(BottleneckSettings(size=3)).apply(ours.network)
    Bottleneck.write(ours.network, tmp_path / "adapter", ours.family)
    weights, config = tmp_path / "adapter" / "adapter_model.safetensors", tmp_path / "adapter" / "adapter_config.json"
    tensors, keys = load_file(weights), json.loads(config.read_text())
    first = sorted(tensors)[0]
    module = first.rpartition(".bottleneck")[0]
    for changed, words in (
        ({name: tensor for name, tensor in tensors.items() if name != first}, "lacks"),
        ({name: tensor for name, tensor in tensors.items() if not name.startswith(module)}, "no tensors for"),
        (tensors | {f"{module}.lora_A.weight": torch.ones(2, 2)}, "unexpected tensor"),
        (tensors | {f"{module}.bottleneck_up.bias": torch.ones(7)}, "the adapter of .* is for"),
    ):
        save_file(changed, weights)
        opened = open_folder(tmp_path / "base")
        with pytest.raises(InputError, match=words):
            load_adapter(opened.network, tmp_path / "adapter", opened.family)
    save_file(tensors, weights)
    for change, words in (({"activation": "mish"}, "mish"), ({"new_key": 1}, "new_key")):
        config.write_text(json.dumps(keys | change))
        with pytest.raises(InputError, match=words):
            load_adapter(opened.network, tmp_path / "adapter", opened.family)


@pytest.fixture(name="folders")
def _folders(tmp_path):
    """A tiny model, and an adapter of it that is not its base."""
    save_tiny(tmp_path / "base")
    model = lmworks.load(str(tmp_path / "base"))
    method = Bottleneck(BottleneckSettings(kind="houlsby", size=3))
    method.apply(model.network)
    shake(model.network)
    method.save(model, tmp_path / "adapter", str(tmp_path / "base"))
    return tmp_path


def test_it_cannot_be_merged_and_says_so_before_anything_changes(folders):
    model = lmworks.load(str(folders / "adapter"))
    assert isinstance(model, LanguageModel)
    with pytest.raises(InputError, match="cannot be merged"), merged(model.network):
        pass
    assert len(list(adapters(model.network))) == 4
    with pytest.raises(InputError, match="cannot be merged"):
        model.save(folders / "whole")
    assert not (folders / "whole").exists()


def test_the_hint_of_save_works(folders, capsys):
    assert main(["save", str(folders / "adapter"), str(folders / "whole")]) != 0
    message = " ".join(capsys.readouterr().err.split())
    assert "copy the adapter's folder instead" in message
    shutil.copytree(folders / "adapter", folders / "elsewhere" / "copy")
    copy, original = (lmworks.load(str(folders / name)) for name in ("elsewhere/copy", "adapter"))
    ids = torch.arange(1, 8)[None]
    with torch.no_grad():
        assert torch.equal(copy.network(ids).logits, original.network(ids).logits)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prepared_for_generation_it_is_still_there(folders, precision):
    model = lmworks.load(str(folders / "adapter"))
    ids = torch.arange(1, 8)[None]
    with torch.no_grad():
        expected = model.network(ids).logits
        base = lmworks.load(str(folders / "base")).network(ids).logits
        prepared = model.prepare(precision).network(ids).logits.float()
    assert not torch.allclose(expected, base, atol=0.1)
    torch.testing.assert_close(prepared, expected, atol=1e-4 if precision == "float32" else 0.1, rtol=0.02)
    assert model.generate("the", max_tokens=3, details=True).usage.completion_tokens > 0
