"""Several adapters on one base: each computes as if it was opened alone, none as the base bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import save_questions, save_tiny, settings

import lmworks
from lmworks.adapt import adapters
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.adapt.registry import make, names_with_adapters
from lmworks.base.errors import InputError
from lmworks.language_model.input_format import InputFormat
from lmworks.model.quant_types import QUANT_TYPES

IDS = torch.tensor([[5, 9, 30, 7, 11, 40]])
MOVIES = [{"text": f"row {n} is {'good' if n % 2 else 'bad'}", "label": "pos" if n % 2 else "neg"} for n in range(60)]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.network(IDS).logits


@pytest.fixture(scope="module", name="base")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("several") / "base")


def save_lora(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    """An adapter with random factors."""
    model = lmworks.load(base)
    LoRA(LoRASettings(**options)).apply(model.network, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.network.named_parameters():
        if name.endswith("lora_B"):
            weight.data.normal_(0.0, 0.3, generator=generator)
    LoRA().save(model, folder, str(base))
    return folder


def save_method(base: Path, folder: Path, name: str) -> Path:
    """An adapter of a method, with parameters as training might leave them."""
    model, method = lmworks.load(base), make(name)
    method.apply(model.network, seed=5)
    generator = torch.Generator().manual_seed(5)
    for weight in model.network.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    method.save(model, folder, str(base))
    return folder


@pytest.fixture(scope="module", name="folders")
def _folders(base: Path) -> dict[str, Path]:
    """Adapters of LoRA by different settings, of a classifier, and of every other method."""
    folders = {
        "a": save_lora(base, base.parent / "a", 1, rank=2),
        "b": save_lora(base, base.parent / "b", 2, rank=3, target_modules="v_proj,up_proj", use_rslora=True),
    }
    InputFormat(task="instructions", kind="prompt", prompt="Ask: {prompt}").save(folders["b"])
    data = save_questions(base.parent / "movies.jsonl", MOVIES)
    values = settings()
    given = {"source": str(data), **values.pop("data")}
    values["train"] |= {"steps": 2, "learning_rate": 1e-2}
    folders["movies"] = lmworks.tune(str(base), given, task="classify", out=base.parent / "movies", **values).folder
    others = [name for name in names_with_adapters() if type(make(name)) is not LoRA and not _quantizes(name)]
    return folders | {name: save_method(base, base.parent / name, name) for name in others}


def _quantizes(name: str) -> bool:
    """Whether a method trains over a quantized base, on which alone its adapter is what it was."""
    return make(name).base_precision in QUANT_TYPES


def test_an_adapter_of_a_quantized_base_is_noted(base, tmp_path):
    model = lmworks.load(base)
    for name in filter(_quantizes, names_with_adapters()):
        model.add_adapter(name, save_method(base, tmp_path / name, name))
    (note,) = model.notes
    assert "another quantization" in note


@pytest.fixture(name="model")
def _model(base: Path, folders: dict[str, Path]) -> Any:
    model = lmworks.load(base)
    for name, folder in folders.items():
        model.add_adapter(name, folder)
    return model


def test_each_is_what_it_is_alone_and_none_is_the_base_bit_for_bit(model, base, folders):
    alone = lmworks.load(base)
    expected = logits(alone)
    weights = {name: tensor.data_ptr() for name, tensor in model.network.state_dict().items()}
    assert model.adapters == list(folders)
    assert model.active_adapter is None
    assert model.notes == []
    for name in ("a", "movies", *folders, "a", None, "b", None):
        model.use_adapter(name)
        opened = alone if name is None else lmworks.load(folders[name])
        assert torch.equal(logits(model), logits(opened)), name
        assert model.config == opened.config
        assert model.input_format == opened.input_format
        assert model.tokenizer.core.to_str() == opened.tokenizer.core.to_str()
        assert model.network.state_dict().keys() == opened.network.state_dict().keys()
        assert model.labels == opened.labels
    assert torch.equal(logits(model), expected)
    assert {name: tensor.data_ptr() for name, tensor in model.network.state_dict().items()} == weights  # none copied


def test_texts_are_read_as_each_adapter_was_trained(model, folders):
    asked = {}
    for name in ("movies", "b", None):
        with model.adapter(name) as same:
            assert same is model
            asked[name] = model._prompt("Why?", raw=False).ids
    assert asked["b"] != asked[None]
    with model.adapter("movies"):
        predictions = model.predict(["row 3 is good"])
    assert predictions == lmworks.load(folders["movies"]).predict(["row 3 is good"])
    with pytest.raises(InputError, match="head"):
        model.predict(["row 3 is good"])


def test_a_block_ends_with_the_adapter_before_it(model, folders):
    model.use_adapter("a")
    expected = logits(model)
    with pytest.raises(ValueError, match="inside"), model.adapter("movies"):
        raise ValueError("inside")
    assert model.active_adapter == "a"
    assert torch.equal(logits(model), expected)
    with model.adapter("b"):
        model.remove_adapter("a")
    assert model.active_adapter is None
    assert model.adapters == [name for name in folders if name != "a"]


def test_a_model_that_is_opened_with_an_adapter_takes_others(base, folders):
    model = lmworks.load(folders["a"])
    assert model.adapters == ["default"]
    expected = logits(model)
    model.add_adapter("b", folders["b"])
    assert torch.equal(logits(model), expected)
    model.use_adapter("b")
    assert torch.equal(logits(model), logits(lmworks.load(folders["b"])))
    model.use_adapter(None)
    assert torch.equal(logits(model), logits(lmworks.load(base)))


def test_what_is_merged_by_hand_comes_apart_when_it_is_switched(model, base):
    model.use_adapter("a")
    adapted = logits(model)
    for _, adapter in adapters.adapters(model.network):
        adapter.merge()
    model.use_adapter(None)
    assert torch.equal(logits(model), logits(lmworks.load(base)))
    model.use_adapter("a")
    assert torch.equal(logits(model), adapted)


def test_the_active_one_is_saved_with_the_model_or_alone(model, tmp_path, folders):
    model.use_adapter("b")
    adapted = logits(model)
    model.save(tmp_path / "whole")
    torch.testing.assert_close(logits(lmworks.load(tmp_path / "whole")), adapted, rtol=1e-5, atol=1e-5)
    model.save_adapter(tmp_path / "movies", "movies")
    again = lmworks.load(tmp_path / "movies")
    assert torch.equal(logits(again), logits(lmworks.load(folders["movies"])))
    assert again.labels == ["neg", "pos"]
    assert model.active_adapter == "b"
    with pytest.raises(InputError, match="not empty"):
        model.save_adapter(tmp_path / "movies")
    model.save_adapter(tmp_path / "movies", overwrite=True)
    assert torch.equal(logits(lmworks.load(tmp_path / "movies")), adapted)


@pytest.mark.parametrize("how", ["cat", "svd"])
def test_a_sum_is_the_sum_of_the_updates_and_opens_in_peft(model, base, tmp_path, how):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model.combine_adapters({"a": 0.7, "b": -0.3}, "mix", how, rank=5 if how == "svd" else None)
    assert model.active_adapter is None
    weights = {}
    for name in (None, "a", "b", "mix"):
        with model.adapter(name), adapters.merged(model.network):
            weights[name] = {key: tensor.clone() for key, tensor in model.network.state_dict().items()}
    for key, weight in weights[None].items():
        total = weight + 0.7 * (weights["a"][key] - weight) - 0.3 * (weights["b"][key] - weight)
        torch.testing.assert_close(weights["mix"][key], total, rtol=1e-4, atol=1e-4)
    model.save_adapter(tmp_path / "mix", "mix")
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "mix")
    model.use_adapter("mix")
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(IDS).logits, logits(model), rtol=1e-4, atol=1e-4)
    assert not any(weight.requires_grad for weight in model.network.parameters())


def test_errors_name_what_there_is(model, base, folders, tmp_path):
    for name, words in (("sql", "no adapter 'sql'"), ("", "no adapter ''")):
        with pytest.raises(InputError, match=words) as caught:
            model.use_adapter(name)
        assert "'a', 'b', 'movies'" in caught.value.hint
    with pytest.raises(InputError, match="already"):
        model.add_adapter("a", folders["b"])
    with pytest.raises(InputError, match="no adapter"):
        model.add_adapter("whole", base)
    with pytest.raises(InputError, match="no name"):
        model.add_adapter("", folders["a"])
    with pytest.raises(InputError, match="no adapter is in use"):
        model.save_adapter(tmp_path / "x")
    with pytest.raises(InputError, match="none; load one"):
        lmworks.load(base).remove_adapter("a")
    for weights, words in (
        ({"a": 1.0, "movies": 1.0}, "'movies' has more than low-rank updates"),
        ({"a": 1.0, "ia3": 1.0}, "'ia3' has more than low-rank updates"),
        ({"a": float("nan")}, "no weight"),
        ({}, "names no adapters"),
        ({"a": 1.0, "sql": 1.0}, "no adapter 'sql'"),
    ):
        with pytest.raises(InputError, match=words):
            model.combine_adapters(weights, "mix")
    assert model.adapters == list(folders)


def test_an_adapter_that_is_refused_leaves_the_model_as_it_was(model, base, folders, tmp_path):
    other = save_lora(base, tmp_path / "other", 3, rank=2)
    path = other / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dora": "a wrong value"}))
    model.use_adapter("movies")
    expected = logits(model)
    with pytest.raises(InputError, match="use_dora"):
        model.add_adapter("other", other)
    assert model.active_adapter == "movies"
    assert torch.equal(logits(model), expected)
    model.use_adapter(None)
    assert torch.equal(logits(model), logits(lmworks.load(base)))


def test_an_adapter_of_another_base_is_noted_by_its_name(base, folders, tmp_path):
    changed = lmworks.load(base)
    changed.network.layers[0].mlp.up_proj.weight.data.mul_(2)
    model = lmworks.load(changed.save(tmp_path / "other"))
    model.add_adapter("a", folders["a"])
    (note,) = model.notes
    assert note.startswith("adapter a: ")
    assert str(base) in note


def test_an_adapter_of_another_model_is_refused(folders, tmp_path):
    other = save_tiny(tmp_path / "other", seed=7)
    model = lmworks.load(other)
    for refused in (
        lambda: model.add_adapter("a", folders["a"]),
        lambda: lmworks.load(folders["a"], base=other),
    ):
        with pytest.raises(InputError, match="made for another model"):
            refused()
    assert model.adapters == []


def test_a_prepared_model_is_not_switched(model):
    model.use_adapter("a")
    model.prepare("float32")
    for switch in (lambda: model.use_adapter(None), lambda: model.remove_adapter("a")):
        with pytest.raises(InputError, match="prepared") as caught:
            switch()
        assert "load it again" in caught.value.hint


def test_an_adapter_whose_base_is_an_adapter_is_refused(base, folders, tmp_path):
    top = save_lora(base, tmp_path / "top", 4, rank=2)
    (top / "lmworks_base.json").unlink()
    path = top / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(folders["a"])}))
    with pytest.raises(InputError, match="is an adapter, too"):
        lmworks.load(top)
