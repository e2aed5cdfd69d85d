"""Folders whose parts do not fit together: said at opening, or where it shows, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import make, their_config
from tiny_model import save_tiny
from transformers import AutoModelForCausalLM

import lmworks
from lmworks.base.errors import InputError
from lmworks.families import opened
from lmworks.families.folder import open_folder, save_folder
from lmworks.families.registry import FAMILIES, family_of


def edit(file: Path, **keys: Any) -> None:
    output = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(output | keys))


def with_few_rows(folder: Path, lacking: int) -> Path:
    """A model whose embedding lacks the rows of its tokenizer's last tokens."""
    model = lmworks.load(save_tiny(folder / "whole"))
    model.tokenizer.core.add_tokens([f"<part {number}>" for number in range(lacking)])
    for file in ("config.json", "model.safetensors", "generation_config.json"):
        if (folder / "whole" / file).is_file():
            (folder / file).write_bytes((folder / "whole" / file).read_bytes())
    model.tokenizer.save(folder)
    return folder


def test_tokens_without_a_row_are_refused_where_they_are_used(tmp_path: Path) -> None:
    model = lmworks.load(with_few_rows(tmp_path, 2))
    rows = model.config.vocab_size
    assert any(str(rows) in note and str(rows + 1) in note and "<part 0>" in note for note in model.notes)
    assert model.generate("The sky is", max_tokens=3) is not None
    asked: list[Callable[[], Any]] = [
        lambda: model.generate("Take <part 1> now"),
        lambda: model.score("Take <part 1> now"),
        lambda: model.next("Take <part 1> now"),
        lambda: model.chat([{"role": "user", "content": "Take <part 1> now"}]),
    ]
    for ask in asked:
        with pytest.raises(InputError, match=rf"'<part 1>' has id {rows + 1}.* {rows} rows") as caught:
            ask()
        assert "Take <part 1> now" in caught.value.place


def test_an_id_without_a_row_is_no_index_error(tmp_path: Path) -> None:
    network = lmworks.load(save_tiny(tmp_path / "m")).network
    with pytest.raises(InputError, match="id 9999: the embedding has"):
        network(torch.tensor([[1, 9999]]))


def test_the_index_says_which_copy_of_a_tensor_counts(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    expected = open_folder(tmp_path).network.norm.weight.clone()
    table = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    for file in set(table.values()) - {table["model.norm.weight"]}:  # an older copy in every other file
        tensors = load_file(tmp_path / file) | {"model.norm.weight": expected + 5}
        save_file(tensors, tmp_path / file, metadata={"format": "pt"})
    torch.testing.assert_close(open_folder(tmp_path).network.norm.weight, expected, rtol=0, atol=0)
    first = sorted(set(table.values()))[0]
    held = load_file(tmp_path / first)
    lost = next(name for name in held if table[name] == first)
    save_file({name: held[name] for name in held if name != lost}, tmp_path / first, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"assigns {lost} to this file") as caught:
        open_folder(tmp_path)
    assert caught.value.place.endswith(first)


def test_an_index_that_names_files_outside_of_the_folder_is_refused(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("llama").save_pretrained(tmp_path / "m", max_shard_size="20KB")
    index = tmp_path / "m" / "model.safetensors.index.json"
    table = json.loads(index.read_text())["weight_map"]
    for outside in ("../other.safetensors", str(tmp_path / "other.safetensors")):
        edit(index, weight_map=table | {"model.norm.weight": outside})
        with pytest.raises(InputError, match="is no file of this folder") as caught:
            open_folder(tmp_path / "m")
        assert caught.value.place == str(index)


@pytest.mark.parametrize("pad", [-1, 5000])
def test_an_id_without_a_row_is_read_as_none_and_not_written(
    theirs: Callable[..., Any], tmp_path: Path, pad: int
) -> None:
    model = theirs("llama")
    model.save_pretrained(tmp_path / "m")
    for file in ("config.json", "generation_config.json"):
        edit(tmp_path / "m" / file, pad_token_id=pad, eos_token_id=[2, pad])
    model_file = open_folder(tmp_path / "m")
    assert "pad_token_id" not in model_file.generation
    assert model_file.generation["eos_token_id"] == [2]
    assert any("pad_token_id is 5000" in note for note in model_file.notes) == (pad == 5000)
    again = save_folder(
        tmp_path / "again", model_file.network, model_file.config, model_file.family,
        hf_config=model_file.hf_config, generation=model_file.generation,
    )  # fmt: skip
    assert json.loads((again / "config.json").read_text())["pad_token_id"] is None
    ids = torch.tensor([[1, 5, 7]])
    theirs_again = AutoModelForCausalLM.from_pretrained(again)
    torch.testing.assert_close(theirs_again(ids).logits, model(ids).logits, rtol=0, atol=1e-5)


WRONG: list[Any] = [["x"], [1, 2], "word", {"a": 1}, -1, 0, 2.5, None, True]


@pytest.mark.parametrize("case", ["gpt2", "llama-yarn", "gemma3", "phi3-longrope", "bert", "roberta", "bart", "t5"])
def test_wrong_values_of_a_config_are_read_or_refused(case: str) -> None:
    whole = their_config(case).to_dict()
    family = FAMILIES[whole["model_type"]]
    assert family.read_config(whole)
    for key in whole:
        for value in WRONG:
            with suppress(InputError):  # any other error fails the test
                family_of(whole | {key: value})
                family.read_config(whole | {key: value}, "config.json")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rms_norm_eps", "small", 'rms_norm_eps is "small", not a number'),
        ("max_position_embeddings", "64", "max_position_embeddings is '64'"),
        ("num_key_value_heads", [4], r"num_key_value_heads is \[4\], not a whole number"),
        ("hidden_act", ["silu"], r'hidden_act is \["silu"\], not a text'),
        ("attention_dropout", 3.0, "attention_dropout: input should be less than 1"),
        ("rope_parameters", "yarn", 'rope_parameters is "yarn", not an object'),
        ("model_type", ["llama"], "model_type"),
        ("eos_token_id", {"id": 2}, "eos_token_id"),
        ("eos_token_id", [2, "</s>"], "eos_token_id"),
    ],
)
def test_wrong_values_are_refused_by_their_key(
    theirs: Callable[..., Any], tmp_path: Path, key: str, value: Any, words: str
) -> None:
    theirs("llama").save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **{key: value})
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(InputError, match=words) as caught:
        open_folder(tmp_path)
    assert caught.value.place.endswith("config.json")


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("tokenizer_config.json", {"eos_token": ["</s>"]}),
        ("tokenizer_config.json", {"eos_token": {"content": None}}),
        ("tokenizer_config.json", {"chat_template": 3}),
        ("tokenizer_config.json", {"chat_template": ["{{ x }}"]}),
        ("tokenizer_config.json", {"add_bos_token": "yes"}),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"one": {"content": "a"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"7": "a"}}),
        ("special_tokens_map.json", {"pad_token": 0}),
        ("special_tokens_map.json", {"unk_token": {"content": 5}}),
        ("generation_config.json", {"eos_token_id": "</s>"}),
        ("generation_config.json", {"suppress_tokens": 5}),
        ("generation_config.json", {"num_beams": "four"}),
    ],
)
def test_wrong_values_in_other_files_are_refused_by_file_and_key(
    tmp_path: Path, file: str, keys: dict[str, Any]
) -> None:
    folder = save_tiny(tmp_path / "m")
    edit(folder / file, **keys)
    with pytest.raises(InputError, match=next(iter(keys))) as caught:
        lmworks.load(folder)
    assert caught.value.place == str(folder / file)
    for value in ("[1]", "{", "\udcff".encode("utf-8", "surrogateescape")):
        (folder / file).write_bytes(value if isinstance(value, bytes) else value.encode())
        with pytest.raises(InputError) as caught:
            lmworks.load(folder)
        assert caught.value.place == str(folder / file)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_said(tmp_path: Path, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "m")
    assert lmworks.load(folder).notes == []
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 3] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for most in (opened.CHECKED_BYTES, 0):  # as a small model and as a large one
        monkeypatch.setattr(opened, "CHECKED_BYTES", most)
        assert any("layers.1.mlp.up_proj.weight (1)" in note for note in lmworks.load(folder).notes)


@pytest.mark.parametrize("size", [9_999, 10**9, 10**15])
@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size", "head_dim"])
def test_absurd_sizes_are_refused_before_anything_of_that_size_is_made(tmp_path: Path, key: str, size: int) -> None:
    folder = save_tiny(tmp_path / "model")
    edit(folder / "config.json", **{key: size})
    with pytest.raises(InputError) as caught:
        open_folder(folder)
    assert str(folder) in caught.value.place
    assert str(size) in caught.value.fault
    assert caught.value.hint


@pytest.mark.parametrize("case", ["bert", "t5", "bart"])
def test_absurd_numbers_of_layers_are_refused_in_every_shape_of_model(tmp_path: Path, case: str) -> None:
    make(case).save_pretrained(tmp_path)
    layers = [name for name in json.loads((tmp_path / "config.json").read_text()) if name.endswith("layers")]
    assert layers
    for name in layers:
        output = json.loads((tmp_path / "config.json").read_text())
        edit(tmp_path / "config.json", **{name: 10**9})
        with pytest.raises(InputError, match=name):
            open_folder(tmp_path)
        edit(tmp_path / "config.json", **output)
