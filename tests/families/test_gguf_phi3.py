"""Phi-3 and StarCoder2 in GGUF files: fused tensors, LongRoPE's factors, windows, the spaces after special tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_gguf import ids_of, write
from test_gguf_writer import LONGROPE, opened
from tiny_tokenizers import sentencepiece
from tokenizers import Tokenizer as Core

import lmworks
from lmworks.base.errors import InputError
from lmworks.families.gguf import open_gguf
from lmworks.families.gguf_file import GGUFFile
from lmworks.families.gguf_tokenizer import SPACED, tokenizer_of
from lmworks.families.gguf_tokenizer_metadata import model_name, tokenizer_metadata
from lmworks.language_model.export import export_gguf
from lmworks.model.block_formats import encode
from lmworks.text.tokenizer import Tokenizer

LONG = {"rope_scaling": LONGROPE, "original_max_position_embeddings": 16}


@pytest.mark.parametrize("attention_factor", [None, 1.25])
def test_longrope_is_read_as_llama_cpp_has_it(
    attention_factor: float | None, theirs: Callable[..., Any], tmp_path: Path
) -> None:
    """The converter writes the factor by which cosines are multiplied; without it llama.cpp multiplies by one."""
    wanted = attention_factor or 1.0
    scaling = {"rope_scaling": LONGROPE | {"attention_factor": wanted}}
    model = theirs("phi3", **(LONG | scaling))
    model.rope_factors = {name: np.array(LONGROPE[f"{name}_factor"], np.float32) for name in ("short", "long")}
    keys: dict[str, Any] = {"phi3__rope__scaling__original_context_length": 16, "phi3__attention__sliding_window": 0}
    if attention_factor is not None:
        keys["phi3__rope__scaling__attn_factor"] = attention_factor
    network = open_gguf(write(tmp_path / "m.gguf", model, **keys)).network
    for length in (10, 20):  # short, and longer than what it was trained on
        ids = ids_of(model)[:, :length]
        torch.testing.assert_close(network(ids).logits, model(ids).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "factors"), [("long", [1.0, 1.0, -1.0, 1.0]), ("short", None)])
def test_factors_that_are_missing_or_not_positive_are_refused(
    name: str, factors: list[float] | None, theirs: Callable[..., Any], tmp_path: Path
) -> None:
    model = theirs("phi3", **LONG)
    model.rope_factors = {other: np.ones(4, np.float32) for other in ("short", "long") if other != name}
    if factors is not None:
        model.rope_factors[name] = np.array(factors, np.float32)
    with pytest.raises(InputError, match=f"rope_factors_{name}"):
        open_gguf(write(tmp_path / "m.gguf", model))


def test_what_llama_cpp_computes_otherwise_is_noted(theirs: Callable[..., Any], tmp_path: Path) -> None:
    for name, changes, words in (
        ("phi3", {"sliding_window": 5}, "window of 5 tokens"),
        ("starcoder2", {"sliding_window": 6}, "window of 6 tokens"),
        ("phi3", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 16}, "above 16 tokens"),
        ("phi3", {"sliding_window": 64}, ""),  # as long as the context
    ):
        _, ours = opened(theirs, name, tmp_path / f"{name} {words}", **changes)
        notes = export_gguf(ours, tmp_path / "m.gguf", "float32", overwrite=True).notes
        told = [note for note in notes if "window" in note or "rotary factors" in note]
        assert len(told) == bool(words)
        assert all(words in note for note in told)


def test_fused_matrices_are_quantized_part_by_part(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "phi3", tmp_path / "folder", intermediate_size=64)
    export_gguf(ours, tmp_path / "m.gguf", "q8")
    file = GGUFFile(tmp_path / "m.gguf")
    assert file.tensors["blk.0.attn_qkv.weight"].shape == (32 + 16 + 16, 32)
    assert file.tensors["blk.1.ffn_up.weight"].shape == (2 * 64, 32)
    stored = lmworks.load(tmp_path / "m.gguf", storage="stored")
    up = ours.network.layers[1].mlp.up_proj.weight
    assert torch.equal(stored.network.layers[1].mlp.up_proj.storage.blocks, encode(up, "Q8_0").blocks)
    export_gguf(stored, tmp_path / "again.gguf", "q8")
    again = GGUFFile(tmp_path / "again.gguf")
    assert all(np.array_equal(file.raw(name), again.raw(name)) for name in file.tensors)


def phi3_tokenizer() -> Tokenizer:
    """Special tokens take the spaces after them, but for those that Phi-3 leaves out."""
    tokenizer = sentencepiece()
    state = json.loads(tokenizer.core.to_str())
    for token in state["added_tokens"]:
        token["rstrip"] = token["content"] not in SPACED
    tokenizer.core = Core.from_str(json.dumps(state))
    return tokenizer


def test_spaces_after_special_tokens_go_by_the_name_of_the_model() -> None:
    tokenizer, plain = phi3_tokenizer(), sentencepiece()
    text = "<|im_start|> you<|im_end|>\n<s> the sky"
    assert tokenizer.encode(text) != plain.encode(text)
    rows = tokenizer.highest_id + 1
    with pytest.raises(InputError, match="would not survive"):
        tokenizer_metadata(tokenizer, rows, "m.gguf", "tuned")
    name = model_name("tuned", tokenizer)
    assert name == "tuned (Phi-3)"
    assert model_name("Phi-3-mini", tokenizer) == "Phi-3-mini"
    assert model_name("tuned", plain) == "tuned"
    assert model_name("my-phi-3 of PHI3", plain) == "my-Phi 3 of Phi 3"
    metadata, _ = tokenizer_metadata(tokenizer, rows, "m.gguf", name)
    assert tokenizer_of({**metadata, "general.name": name}, "file").encode(text) == tokenizer.encode(text)
    assert tokenizer_of({**metadata, "general.name": "tuned"}, "file").encode(text) == plain.encode(text)


def test_the_file_of_a_tuned_model_has_a_name_by_which_its_tokens_are_read(
    theirs: Callable[..., Any], tmp_path: Path
) -> None:
    tokenizer = phi3_tokenizer()
    theirs("phi3", vocab_size=tokenizer.highest_id + 1).save_pretrained(tmp_path / "tuned")
    tokenizer.save(tmp_path / "tuned")
    model = lmworks.load(tmp_path / "tuned")
    export_gguf(model, tmp_path / "m.gguf")
    assert GGUFFile(tmp_path / "m.gguf").metadata["general.name"] == "tuned (Phi-3)"
    text = "<|im_start|> you<|im_end|>\n the"
    assert lmworks.load(tmp_path / "m.gguf").tokenizer.encode(text) == model.tokenizer.encode(text)
