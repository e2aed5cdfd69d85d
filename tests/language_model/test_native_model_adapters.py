"""Adapters on a base of the engine's cache: the texts of PyTorch, without torch; the rest is left to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_engine_cache import generate
from test_named_adapters import save_lora
from tiny_model import save_tiny

import lmworks
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.base.errors import InputError
from lmworks.kernels.native_module import native_module
from lmworks.language_model import engine_cache
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.native_model import NativeModel

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")
TEXT, OPTIONS = "What is", {"max_tokens": 16, "temperature": 0}


@pytest.fixture(autouse=True, name="engines")
def _engines(tmp_path, monkeypatch):
    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture(scope="module", name="base")
def _base(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("native") / "base")


@pytest.fixture(scope="module", name="folders")
def _folders(base: Path) -> dict[str, Path]:
    folders = {
        "a": save_lora(base, base.parent / "a", 1, rank=2),
        "b": save_lora(base, base.parent / "b", 2, rank=3, target_modules="v_proj,up_proj", use_rslora=True),
    }
    InputFormat(task="instructions", kind="prompt", prompt="Ask: {prompt}").save(folders["b"])
    return folders


@pytest.fixture(name="model")
def _model(base: Path, folders: dict[str, Path]) -> NativeModel:
    model = opened(base)
    for name, folder in folders.items():
        model.add_adapter(name, folder)
    return model


def opened(base: Path, source: Path | None = None) -> Any:
    """A model, or an adapter of it, from the cache."""
    if engine_cache.open_cached(str(base)) is None:
        engine_cache.store(lmworks.load(base).prepare("float32"))
    return engine_cache.open_cached(str(source or base))


def test_each_writes_what_it_writes_alone_merged_or_not(model, base, folders):
    texts = set()
    for name in ("a", None, "b", "a"):
        model.use_adapter(name)
        source = base if name is None else folders[name]
        text = model.generate(TEXT, **OPTIONS)
        assert text == lmworks.load(source).generate(TEXT, **OPTIONS)
        assert text == lmworks.load(source).prepare("float32").generate(TEXT, **OPTIONS)
        assert model.input_format == lmworks.load(source).input_format
        texts.add(text)
    assert len(texts) == 3
    assert model.notes == []
    assert model.adapters == list(folders)


def test_texts_that_are_written_at_once_keep_their_adapters(model, folders):
    alone = {}
    for name in folders:
        with model.adapter(name) as same:
            assert same is model
            alone[name] = model.generate(TEXT, **OPTIONS)
    streams = {}
    for name in folders:
        with model.adapter(name):
            streams[name] = model.generate(TEXT, stream=True, **OPTIONS)
    pieces = {name: [] for name in folders}
    for _ in range(OPTIONS["max_tokens"] + 1):
        for name, stream in streams.items():
            pieces[name] += [next(stream, "")]
    assert {name: "".join(texts) for name, texts in pieces.items()} == alone


def test_names_are_those_of_other_models(model, folders):
    model.use_adapter("a")
    with pytest.raises(ValueError, match="inside"), model.adapter("b"):
        raise ValueError("inside")
    assert model.active_adapter == "a"
    with model.adapter("b"):
        model.remove_adapter("a")
    assert (model.active_adapter, model.adapters) == (None, ["b"])
    model.use_adapter("b")
    model.remove_adapter("b")
    assert (model.active_adapter, model.adapters, model.input_format) == (None, [], None)
    model.add_adapter("a", folders["a"])
    for refused, said in (
        (lambda: model.use_adapter("c"), "there is no adapter 'c'"),
        (lambda: model.remove_adapter("c"), "there are: 'a'"),
        (lambda: model.add_adapter("a", folders["b"]), "remove_adapter"),
        (lambda: model.add_adapter("", folders["b"]), "no name"),
        (lambda: model.add_adapter("c", folders["a"].parent / "base"), "holds no adapter"),
    ):
        with pytest.raises(InputError, match=said):
            refused()


def test_the_next_opening_of_an_adapter_imports_no_torch(base, folders, engines):
    first, second = generate(folders["a"], "--temperature", "0"), generate(folders["a"], "--temperature", "0")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "cached for the next opening" in first.stderr
    assert [path for path, _, _ in engine_cache.entries()] == [str(base)]
    assert first.stderr.splitlines()[-1] == "True"
    assert second.stderr.splitlines()[-1] == "False"
    torch_text = generate(folders["a"], "--backend", "torch", "--temperature", "0").stdout
    assert first.stdout == second.stdout == torch_text
    other = generate(folders["b"], "--temperature", "0")  # another adapter of the same base, for the first time
    assert other.stderr.splitlines()[-1] == "False"
    assert other.stdout == generate(folders["b"], "--backend", "torch", "--temperature", "0").stdout
    assert generate(base, "--temperature", "0").stdout != first.stdout


def test_an_opened_adapter_is_the_default_one(base, folders):
    model = opened(base, folders["a"])
    assert (model.adapters, model.active_adapter, model.source) == (["default"], "default", str(folders["a"]))
    text = model.generate(TEXT, **OPTIONS)
    model.add_adapter("b", folders["b"])
    assert model.generate(TEXT, **OPTIONS) == text
    model.use_adapter(None)
    assert model.generate(TEXT, **OPTIONS) == lmworks.load(base).generate(TEXT, **OPTIONS)


def test_a_base_that_has_moved_is_named(base, folders, tmp_path):
    moved = save_tiny(tmp_path / "moved")
    opened(moved)
    model = engine_cache.open_cached(str(folders["a"]), str(moved))
    assert model.generate(TEXT, **OPTIONS) == lmworks.load(folders["a"]).generate(TEXT, **OPTIONS)
    assert engine_cache.open_cached(str(moved), str(base)) is None  # a whole model has no base


def test_an_adapter_of_other_weights_is_noted_as_by_torch(base, tmp_path):
    changed = lmworks.load(base)
    changed.network.layers[0].mlp.up_proj.weight.data.mul_(2)
    other = save_lora(changed.save(tmp_path / "other"), tmp_path / "adapter", 1, rank=2)
    (other / "lmworks_base.json").write_text(
        json.dumps(json.loads((other / "lmworks_base.json").read_text()) | {"base": str(base), "base_from_here": None})
    )
    model = opened(base)
    model.add_adapter("other", other)
    (note,) = model.notes
    assert note.startswith("adapter other: it was made for a base with other weights")
    in_torch = lmworks.load(base)
    in_torch.add_adapter("other", other)
    assert in_torch.notes == [note]


def test_an_adapter_of_another_model_is_refused_as_by_torch(base, tmp_path):
    adapter = save_lora(save_tiny(tmp_path / "other", seed=7), tmp_path / "adapter", 1, rank=2)
    for model in (opened(base), lmworks.load(base)):
        with pytest.raises(InputError, match="made for another model") as caught:
            model.add_adapter("other", adapter)
        assert str(tmp_path / "other") in caught.value.fault
        assert (model.adapters, model.notes) == ([], [])
    with pytest.raises(InputError, match="made for another model"):
        engine_cache.open_cached(str(adapter), str(base))
    assert engine_cache.open_cached(str(base)) is not None  # the base stays in the cache


def test_an_adapter_of_another_shape_is_refused_as_by_torch(base, tmp_path):
    wider = save_tiny(tmp_path / "wider", intermediate_size=64)
    adapter = save_lora(wider, tmp_path / "adapter", 1, rank=2, target_modules="up_proj")
    (adapter / "lmworks_base.json").unlink()  # as PEFT writes it
    for model in (opened(base), lmworks.load(base)):
        with pytest.raises(InputError, match=r"is \(64, 32\), the model's \(48, 32\)") as caught:
            model.add_adapter("wide", adapter)
        assert "base that it was trained on" in caught.value.hint
        assert model.adapters == []
    with pytest.raises(InputError, match="the model's"):
        engine_cache.open_cached(str(adapter), str(base))


def test_damaged_adapters_are_refused_and_the_base_stays(base, folders, tmp_path):
    path = tmp_path / "damaged"
    path.mkdir()
    for file in folders["a"].iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    opened(base)
    weights = path / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = sorted(tensors)[0]
    for changed, said in (
        ({name: own for name, own in tensors.items() if name != first}, "alone"),
        (tensors | {first: tensors[first] * float("nan")}, "not finite"),
        (tensors | {first: tensors[first].long()}, "I64"),
    ):
        save_file(changed, weights)
        with pytest.raises(InputError, match=said):
            engine_cache.open_cached(str(path))
    weights.write_bytes(weights.read_bytes()[:64])
    with pytest.raises(InputError, match="damaged"):
        engine_cache.open_cached(str(path))
    assert engine_cache.open_cached(str(base)) is not None


@pytest.mark.parametrize("kind", ["dora", "tokens"])
def test_adapters_of_more_than_updates_are_computed_as_before(base, kind, tmp_path):
    folder = tmp_path / kind
    options: dict[str, Any] = {"dora": {"use_dora": True}, "tokens": {"trainable_token_indices": [5, 6]}}[kind]
    model = lmworks.load(base)
    LoRA(LoRASettings(rank=2, **options)).apply(model.network, seed=3)
    with torch.no_grad():
        for weight in model.network.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    LoRA().save(model, folder, str(base))
    assert opened(base, folder) is None
    assert engine_cache.base_to_store(str(folder)) is None
    native = generate(folder, "--temperature", "0")
    assert native.returncode == 0, native.stderr
    assert native.stderr.splitlines()[-1] == "True"
    assert native.stdout == generate(folder, "--backend", "torch", "--temperature", "0").stdout


def test_switched_off_an_adapter_is_merged(folders, engines, monkeypatch):
    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", "off")
    assert engine_cache.open_cached(str(folders["a"])) is None
    assert engine_cache.base_to_store(str(folders["a"])) is None
    assert generate(folders["a"]).stdout == generate(folders["a"], "--backend", "torch").stdout
    assert not engines.exists()


def test_labels_and_likelihoods_are_those_of_torch(base, tmp_path):
    folder = save_lora(base, tmp_path / "labels", 4, rank=2)
    InputFormat(task="labels", kind="label", labels=("no", "yes")).save(folder)
    model, in_torch = opened(base, folder), lmworks.load(folder)
    texts = ["What is it?", "It is so.", "No."]
    assert [own.label for own in model.predict(texts)] == [own.label for own in in_torch.predict(texts)]
    for own, expected in zip(model.score(texts), in_torch.score(texts), strict=True):
        assert own.nats == pytest.approx(expected.nats, rel=1e-4)
    with model.adapter(None):
        assert model.score(texts)[0].nats != pytest.approx(in_torch.score(texts)[0].nats, rel=1e-3)
