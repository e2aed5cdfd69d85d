"""Folders: shards, data types, old names and what is damaged. That the numbers are theirs, test_parity proves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lmworks.base.errors import InputError
from lmworks.families.folder import check_place, open_folder, save_folder

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CLOSE = {"rtol": 0.0, "atol": 1e-4}


def ids_of(*shape: int) -> torch.Tensor:
    return torch.randint(3, 101, shape, generator=torch.Generator().manual_seed(3))


def test_older_keys_of_rotary_scaling_are_read(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("llama", rope_scaling=LLAMA3, rope_theta=500.0).save_pretrained(tmp_path)
    newer = open_folder(tmp_path).config
    config = json.loads((tmp_path / "config.json").read_text())
    output = config.pop("rope_parameters")
    config["rope_theta"] = output.pop("rope_theta")
    config["rope_scaling"] = {"type": output.pop("rope_type"), **output}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_folder(tmp_path).config == newer
    assert newer.rope_scaling is not None
    assert newer.rope_scaling.kind == "llama3"


def test_shards_are_the_whole(theirs: Callable[..., Any], tmp_path: Path) -> None:
    model = theirs("llama")
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 2
    opened = open_folder(tmp_path / "theirs")
    ids = ids_of(1, 9)
    torch.testing.assert_close(opened.network(ids).logits, model(ids).logits, **CLOSE)
    save_folder(tmp_path / "ours", opened.network, opened.config, opened.family, shard_bytes=20_000)
    assert (tmp_path / "ours" / "model.safetensors.index.json").is_file()
    assert all(file.stat().st_size < 25_000 for file in (tmp_path / "ours").glob("*.safetensors"))
    there = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(there(ids).logits, model(ids).logits, **CLOSE)
    torch.testing.assert_close(open_folder(tmp_path / "ours").network(ids).logits, model(ids).logits, **CLOSE)


def test_saved_in_half_precision_both_read_the_same(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("qwen3").save_pretrained(tmp_path / "theirs")
    opened = open_folder(tmp_path / "theirs")
    path = save_folder(tmp_path / "half", opened.network, opened.config, opened.family, dtype="bfloat16")
    ids = ids_of(1, 9)
    there = AutoModelForCausalLM.from_pretrained(path)
    assert there.dtype == torch.bfloat16
    torch.testing.assert_close(open_folder(path).network(ids).logits, there.float()(ids).logits, **CLOSE)
    assert open_folder(path, dtype="bfloat16").network.embed_tokens.weight.dtype == torch.bfloat16


def test_base_model_saved_without_prefix_opens(theirs: Callable[..., Any], tmp_path: Path) -> None:
    model = theirs("gpt2")
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    bare["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()  # the mask that old files carry
    save_file(bare, tmp_path / "model.safetensors")
    ids = ids_of(1, 9)
    torch.testing.assert_close(open_folder(tmp_path).network(ids).logits, model(ids).logits, **CLOSE)


def test_training_does_not_reach_the_file(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    opened = open_folder(tmp_path)
    with torch.no_grad():
        for weight in opened.network.parameters():
            weight.add_(1.0)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_saving_over_its_own_folder_keeps_what_was_learned(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path / "m")
    opened = open_folder(tmp_path / "m")
    with torch.no_grad():
        opened.network.norm.weight.mul_(2.0)
    ids = ids_of(1, 5)
    expected = opened.network(ids).logits
    with pytest.raises(InputError, match="already and not empty"):
        save_folder(tmp_path / "m", opened.network, opened.config, opened.family)
    save_folder(tmp_path / "m", opened.network, opened.config, opened.family, overwrite=True)
    torch.testing.assert_close(open_folder(tmp_path / "m").network(ids).logits, expected, rtol=0, atol=0)


def _refused(folder: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        open_folder(folder)
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


def test_damaged_folders_are_refused_by_name(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _refused(tmp_path / "nowhere", "nowhere", "no such folder")
    _refused(tmp_path, "config.json")
    model = theirs("llama")
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 5, 100, len(whole) - 1):
        weights.write_bytes(whole[:size])
        _refused(tmp_path, "model.safetensors")
    weights.unlink()
    _refused(tmp_path, "model.safetensors is missing")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    _refused(tmp_path, "pickle")
    weights.write_bytes(whole)
    (tmp_path / "config.json").write_text("{")
    _refused(tmp_path, "config.json", "not JSON")


def test_weights_that_do_not_fit_are_named(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, weights)
    _refused(tmp_path, "missing", name)
    save_file(tensors | {"model.layers.0.strange.weight": torch.ones(2)}, weights)
    _refused(tmp_path, "model.layers.0.strange.weight")
    save_file(tensors | {name: torch.ones(47, 32)}, weights)
    _refused(tmp_path, name, "(47, 32)", "(48, 32)")


def test_a_second_head_is_left_if_it_is_the_embedding(theirs: Callable[..., Any], tmp_path: Path) -> None:
    model = theirs("llama", tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, weights)
    ids = ids_of(1, 5)
    torch.testing.assert_close(open_folder(tmp_path).network(ids).logits, model(ids).logits, **CLOSE)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, weights)
    _refused(tmp_path, "tie_word_embeddings")


def test_a_folder_with_other_things_is_not_replaced(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path / "m")
    opened = open_folder(tmp_path / "m")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        save_folder(tmp_path / "mine", opened.network, opened.config, opened.family, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["x.gguf", "x.GGUF", "model.safetensors"])
def test_the_name_of_a_file_is_no_folder_and_the_hint_works(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ends the name of a file") as caught:
        check_place(tmp_path / name)
    assert ("lmworks export" in caught.value.hint) == name.lower().endswith(".gguf")
    check_place(Path(caught.value.hint.partition("such as ")[2].partition(";")[0]))
    check_place(tmp_path / "v1.5")
    assert not list(tmp_path.iterdir())
