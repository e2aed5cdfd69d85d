"""GGUF files that are written here: the same logits and tokens when opened here and by transformers; no half of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tiny_tokenizers import CHATML, byte_level
from transformers import AutoModelForCausalLM

import lmworks
from lmworks.adapt.adapters import adapters
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.base import files
from lmworks.base.errors import InputError
from lmworks.families import gguf_writer
from lmworks.families.folder import open_folder
from lmworks.families.gguf_file import GGUFFile
from lmworks.families.opened import Opened
from lmworks.language_model.export import PRECISIONS, QUANTIZED, export_gguf
from lmworks.language_model.model import LanguageModel
from lmworks.model.block_formats import encode
from lmworks.model.storage import BlockStorage
from lmworks.model.stored_layers import store, stored_layers

CLOSE = {"rtol": 0.0, "atol": 1e-5}
VOCABULARY = byte_level().vocab_size
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.5], "long_factor": [1.5, 2.0, 3.0, 4.0]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_positions": 1024}),  # what transformers takes for every gpt2 in a GGUF file
    "gpt2-untied": ("gpt2", {"n_positions": 1024, "tie_word_embeddings": False}),
    "llama": ("llama", {}),
    "llama-grouped-tied": ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 128}),  # the same
    "gemma2": ("gemma2", {}),
    "gemma3": ("gemma3_text", {"num_hidden_layers": 7}),
    "starcoder2": ("starcoder2", {}),
}
HERE_ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-biases": ("llama", {"attention_bias": True, "num_key_value_heads": 1, "head_dim": 12}),
    "qwen3-narrow": ("qwen3", {}),
    "gemma2-caps": (
        "gemma2",
        {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "head_dim": 8, "query_pre_attn_scalar": 8},
    ),
    "gemma2-27b": ("gemma2", {"num_hidden_layers": 46, "head_dim": 12, "query_pre_attn_scalar": 8}),
    "gemma3-linear": (
        "gemma3_text",
        {
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "rope_theta": 500.0,
            "rope_local_base_freq": 50.0,
            "final_logit_softcapping": 4.0,
            "num_hidden_layers": 6,
        },
    ),
    "mistral-short": ("mistral", {"sliding_window": 64}),  # as long as the context: no window
    "phi3": ("phi3", {}),  # where no token pads, transformers takes 32000
    "phi3-window": ("phi3", {"sliding_window": 5}),
    "phi3-longrope": ("phi3", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 16}),
    "phi3-factor": (
        "phi3",
        {"rope_scaling": LONGROPE | {"attention_factor": 1.3}, "original_max_position_embeddings": 32},
    ),
    "phi3-partial": (
        "phi3",
        {"num_key_value_heads": 1, "partial_rotary_factor": 0.75, "tie_word_embeddings": True}
        | {"original_max_position_embeddings": 16}
        | {"rope_scaling": LONGROPE | {"short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.0, 3.0]}},
    ),
    "starcoder2-window": ("starcoder2", {"sliding_window": 5, "tie_word_embeddings": False}),
    "starcoder2-no-biases": ("starcoder2", {"use_bias": False, "num_key_value_heads": 1}),
    "linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.5}}),
    "yarn": ("qwen2", {"rope_scaling": YARN}),
    "yarn-factor": ("llama", {"rope_scaling": YARN | {"attention_factor": 1.3}}),
    "llama3": (
        "llama",
        {"head_dim": 32, "rope_theta": 500_000.0, "max_position_embeddings": 131_072, "rope_scaling": LLAMA3},
    ),
}


def opened(theirs: Callable[..., Any], name: str, folder: Path, **changes: Any) -> tuple[Any, LanguageModel]:
    """A tiny model of transformers, and the same opened here from its folder."""
    model = theirs(name, vocab_size=VOCABULARY, **changes)
    model.generation_config.eos_token_id = [2, 4]
    model.save_pretrained(folder)
    byte_level(CHATML).save(folder)
    return model, lmworks.load(folder)


def ids() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(3))


def logits(network: Any) -> torch.Tensor:
    with torch.no_grad():
        return network(ids()).logits


@pytest.mark.parametrize("case", [*CASES, *HERE_ALONE])
def test_every_architecture_is_the_same_model_afterwards(case: str, theirs: Callable[..., Any], tmp_path: Path) -> None:
    name, changes = (CASES | HERE_ALONE)[case]
    model, ours = opened(theirs, name, tmp_path / "folder", **changes)
    written = export_gguf(ours, tmp_path / "m.gguf", "float32")
    assert written.nbytes == (tmp_path / "m.gguf").stat().st_size
    again = lmworks.load(tmp_path / "m.gguf")
    torch.testing.assert_close(logits(again.network), logits(ours.network), **CLOSE)
    torch.testing.assert_close(logits(again.network), logits(model), rtol=0, atol=1e-4)
    assert again.config.tie_word_embeddings == ours.config.tie_word_embeddings
    assert again.tokenizer.chat_template == CHATML
    assert again.tokenizer.end_ids == ours.tokenizer.end_ids == {2, 4}
    if case in CASES:
        there = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf")
        torch.testing.assert_close(logits(there), logits(model), rtol=0, atol=1e-4)


@pytest.mark.parametrize("to", PRECISIONS)
def test_matrices_are_rounded_once_and_the_rest_is_float32(to: str, theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "gpt2", tmp_path / "folder")
    export_gguf(ours, tmp_path / "m.gguf", to)
    file = GGUFFile(tmp_path / "m.gguf")
    kinds = {name: tensor.kind for name, tensor in file.tensors.items()}
    assert {kinds[name] for name in kinds if len(file.tensors[name].shape) == 1} == {"F32"}
    assert kinds["position_embd.weight"] == "F32"
    assert kinds["blk.1.ffn_up.weight"] == kinds["token_embd.weight"] == PRECISIONS[to]
    weight = ours.network.layers[1].mlp.up_proj.weight
    assert torch.equal(file.read(["blk.1.ffn_up.weight"])["blk.1.ffn_up.weight"], weight.to(getattr(torch, to)).float())


@pytest.mark.parametrize("to", ["q8", "q4", "q4_1"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_quantized_files_hold_the_blocks_of_the_encoder(
    name: str, to: str, theirs: Callable[..., Any], tmp_path: Path
) -> None:
    changes = {} if name == "gpt2" else {"intermediate_size": 64, "tie_word_embeddings": False}
    _, ours = opened(theirs, name, tmp_path / "folder", **changes)
    written = export_gguf(ours, tmp_path / "m.gguf", to)
    file, kind = GGUFFile(tmp_path / "m.gguf"), QUANTIZED[to]
    assert not written.notes
    assert set(written.kinds) == {kind, "Q8_0"}
    up = ours.network.layers[1].mlp.up_proj.weight
    blocks = torch.from_numpy(file.raw("blk.1.ffn_up.weight").copy()).view(len(up), -1)
    assert torch.equal(blocks, encode(up, kind).blocks)
    assert file.tensors["token_embd.weight"].kind == "Q8_0"
    # the model of the file is that of the rounded matrices
    again = lmworks.load(tmp_path / "m.gguf")
    assert torch.equal(again.network.layers[1].mlp.up_proj.weight, encode(up, kind).dequantized())
    for path, module in list(ours.network.named_modules()):
        if path.endswith("_proj") or path in ("embed_tokens", "lm_head"):
            table = "Q8_0" if path in ("embed_tokens", "lm_head") else kind
            store(ours.network, path, encode(module.weight, table))
    torch.testing.assert_close(logits(again.network), logits(ours.network), rtol=0, atol=1e-4)


def test_blocks_of_the_right_format_are_written_byte_for_byte(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "llama", tmp_path / "folder", intermediate_size=64, num_key_value_heads=2)
    export_gguf(ours, tmp_path / "first.gguf", "q4_1")
    stored = lmworks.load(tmp_path / "first.gguf", storage="stored")
    assert {type(layer.storage) for _, layer in stored_layers(stored.network)} == {BlockStorage}
    export_gguf(stored, tmp_path / "again.gguf", "q4_1")
    first, again = (GGUFFile(tmp_path / f"{name}.gguf") for name in ("first", "again"))
    assert set(first.tensors) == set(again.tensors)
    for name in first.tensors:
        assert np.array_equal(first.raw(name), again.raw(name)), name
    # into another format the linears are rounded again, and the tables stay as they are
    export_gguf(stored, tmp_path / "q4.gguf", "q4")
    other = GGUFFile(tmp_path / "q4.gguf")
    assert other.tensors["blk.0.attn_q.weight"].kind == "Q4_0"
    assert np.array_equal(first.raw("token_embd.weight"), other.raw("token_embd.weight"))


def test_an_adapter_is_merged_before_rounding_and_stays(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "llama", tmp_path / "folder", intermediate_size=64)
    export_gguf(ours, tmp_path / "base.gguf", "q4_1")
    stored = lmworks.load(tmp_path / "base.gguf", storage="stored")
    LoRA(LoRASettings(rank=2, target_modules=["q_proj", "up_proj"])).apply(stored.network)
    with torch.no_grad():
        for _, module in adapters(stored.network):
            module.lora_B.copy_(torch.randn(module.lora_B.shape, generator=torch.Generator().manual_seed(5)))
    before = logits(stored.network)
    export_gguf(stored, tmp_path / "float.gguf", "float32")
    torch.testing.assert_close(logits(lmworks.load(tmp_path / "float.gguf").network), before, rtol=0, atol=1e-4)
    export_gguf(stored, tmp_path / "m.gguf", "q4_1")
    assert torch.equal(logits(stored.network), before)
    assert len(list(adapters(stored.network))) == 4
    base, tuned = GGUFFile(tmp_path / "base.gguf"), GGUFFile(tmp_path / "m.gguf")
    same = {name for name in base.tensors if np.array_equal(base.raw(name), tuned.raw(name))}
    changed = {f"blk.{layer}.{part}.weight" for layer in (0, 1) for part in ("attn_q", "ffn_up")}
    assert set(base.tensors) - same == changed


def test_rows_that_are_not_whole_blocks_stay_in_float16(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "llama", tmp_path / "folder")  # 48 columns in down_proj
    written = export_gguf(ours, tmp_path / "m.gguf", "q4")
    assert written.kinds["F16"] == 2
    assert any("rows of 48" in note for note in written.notes)
    assert GGUFFile(tmp_path / "m.gguf").tensors["blk.0.ffn_down.weight"].kind == "F16"
    with pytest.raises(InputError, match="whole blocks of 256"):
        export_gguf(ours, tmp_path / "t.gguf", "tq2")
    assert not (tmp_path / "t.gguf").exists()


def test_ternary_weights_survive(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "llama", tmp_path / "folder", hidden_size=256, intermediate_size=256)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for path, module in ours.network.named_modules():
            if path.startswith("layers.") and path.endswith("_proj"):
                module.weight.copy_(torch.randint(-1, 2, module.weight.shape, generator=generator) * 0.125)
    for to in ("tq1", "tq2"):
        written = export_gguf(ours, tmp_path / f"{to}.gguf", to)
        assert written.kinds == {QUANTIZED[to]: 14, "Q8_0": 2}
        again = lmworks.load(tmp_path / f"{to}.gguf")
        for here, there in zip(ours.network.layers, again.network.layers, strict=True):
            assert torch.equal(here.mlp.down_proj.weight, there.mlp.down_proj.weight)
            assert torch.equal(here.self_attn.q_proj.weight, there.self_attn.q_proj.weight)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("mistral", {"sliding_window": 16}, "sliding windows"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "one of 8 tokens"),
        ("llama", {"mlp_bias": True}, "mlp.*bias"),
        ("qwen3", {"attention_bias": True}, "bias of o_proj"),
        ("gemma2", {"tie_word_embeddings": False}, "no head of its own"),
        ("gemma2", {"attn_logit_softcapping": None}, "attention_softcap None"),
        ("gemma2", {"query_pre_attn_scalar": 100}, "attention_scale 0.1"),
        ("gemma2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_kinds and sliding_window"),
        ("llama", {"rope_scaling": YARN | {"beta_fast": 24.0}}, "'beta_fast': 24.0"),
        ("llama", {"hidden_act": "gelu"}, "activation 'gelu'"),
        ("gpt2", {"activation_function": "relu"}, "activation 'relu'"),
        ("phi3", {"hidden_act": "gelu"}, "activation 'gelu'"),
        ("starcoder2", {"head_dim": 16}, "equal shares"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling"),
        ("llama", {"rope_scaling": LLAMA3 | {"high_freq_factor": 5.0}, "max_position_embeddings": 99_999}, "rope"),
    ],
)
def test_what_the_format_cannot_say_is_refused_by_name(
    name: str, changes: dict[str, Any], words: str, theirs: Callable[..., Any], tmp_path: Path
) -> None:
    _, ours = opened(theirs, name, tmp_path / "folder", **changes)
    with pytest.raises(InputError, match=words) as caught:
        export_gguf(ours, tmp_path / "m.gguf")
    assert caught.value.hint
    assert not list(tmp_path.glob("*.gguf"))


def test_other_families_are_refused_by_name(tmp_path: Path) -> None:
    from tiny_families import open_case

    case: Opened = open_case("bert", tmp_path / "folder")[1]
    with pytest.raises(InputError, match="family bert") as caught:
        gguf_writer.write_gguf(tmp_path / "m.gguf", case.network, case.config, case.family, byte_level(), "F16")
    assert "gpt2, llama, qwen2, qwen3, gemma2, phi3, starcoder2, gemma3_text, mistral" in caught.value.hint


def test_numbers_beyond_a_format_are_refused_and_nothing_is_left(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "llama", tmp_path / "folder")
    path = tmp_path / "m.gguf"
    export_gguf(ours, path)
    before = path.read_bytes()
    ours.network.layers[1].self_attn.v_proj.weight.data[3, 3] = 1e6
    for to in ("float16", "q8"):
        with pytest.raises(InputError, match=r"blk\.1\.attn_v"):
            export_gguf(ours, path, to, overwrite=True)
        assert path.read_bytes() == before
        assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "m.gguf"]
    export_gguf(ours, path, "bfloat16", overwrite=True)
    assert path.read_bytes() != before


def test_places_that_must_not_be_written_to(theirs: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
    _, ours = opened(theirs, "llama", tmp_path / "folder")
    path = tmp_path / "m.gguf"
    with pytest.raises(InputError, match=r"ends in \.gguf"):
        export_gguf(ours, tmp_path / "m.bin")
    with pytest.raises(InputError, match="q2"):
        export_gguf(ours, path, "q2")
    (tmp_path / "d.gguf").mkdir()
    with pytest.raises(InputError, match="folder"):
        export_gguf(ours, tmp_path / "d.gguf")
    path.write_bytes(b"notes")
    with pytest.raises(InputError, match="--overwrite"):
        export_gguf(ours, path)
    with pytest.raises(InputError, match="no GGUF file"):
        export_gguf(ours, path, overwrite=True)
    assert path.read_bytes() == b"notes"
    monkeypatch.setattr(files, "free_disk_space", lambda _: 1000)
    with pytest.raises(InputError, match="no room on the disk"):
        export_gguf(ours, tmp_path / "full.gguf")


def test_a_model_without_tokenizer_or_with_a_task_is_refused(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "llama", tmp_path / "folder")
    for file in (tmp_path / "folder").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="without one"):
        export_gguf(lmworks.load(tmp_path / "folder"), tmp_path / "m.gguf")
    case = open_folder(tmp_path / "folder")
    config = case.config.model_copy(update={"language_head": False})
    with pytest.raises(InputError, match="head of a task"):
        gguf_writer.write_gguf(tmp_path / "m.gguf", case.network, config, case.family, ours.tokenizer, "F16")


SLOW_WRITE = """
import sys, time
import lmworks
from lmworks.families import gguf_writer
bytes_of, count = gguf_writer._bytes_of, 0
def slow(*given):
    global count
    count += 1
    if count == 4:
        print("half", flush=True)
        time.sleep(600)
    return bytes_of(*given)
gguf_writer._bytes_of = slow
lmworks.export_gguf(lmworks.load(sys.argv[1]), sys.argv[2], "q8")
"""


def test_killed_while_writing_it_leaves_no_file(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "llama", tmp_path / "folder")
    path = tmp_path / "m.gguf"
    words = [sys.executable, "-c", SLOW_WRITE, str(tmp_path / "folder"), str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not path.exists()
    assert len(list(tmp_path.glob(".m.gguf.*.tmp"))) == 1
    export_gguf(ours, path, "q8")
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["m.gguf"]


def test_metadata_is_what_llama_cpp_expects(theirs: Callable[..., Any], tmp_path: Path) -> None:
    _, ours = opened(theirs, "qwen2", tmp_path / "Some-Model")
    export_gguf(ours, tmp_path / "m.gguf", "float16")
    metadata = GGUFFile(tmp_path / "m.gguf").metadata
    assert metadata["general.name"] == "Some-Model"
    assert metadata["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert metadata["qwen2.attention.head_count_kv"] == 2
    assert metadata["qwen2.rope.dimension_count"] == 8
    assert metadata["tokenizer.ggml.eos_token_id"] == 2
    assert len(metadata["tokenizer.ggml.tokens"]) == len(metadata["tokenizer.ggml.token_type"]) == VOCABULARY


@pytest.mark.slow
def test_the_real_model_keeps_its_blocks_and_its_answers(smollm2: Path, tmp_path: Path) -> None:
    stored = lmworks.load(smollm2, storage="stored")
    export_gguf(stored, tmp_path / "m.gguf", "q4_1")
    source, written = GGUFFile(smollm2), GGUFFile(tmp_path / "m.gguf")
    kept = [name for name in source.tensors if source.tensors[name].kind == "Q4_1"]
    assert len(kept) > 100
    for name in kept:
        assert np.array_equal(source.raw(name), written.raw(name)), name
    export_gguf(stored, tmp_path / "q8.gguf", "q8")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answers = [
        lmworks.load(path).chat(messages, max_tokens=16, temperature=0.0)
        for path in (smollm2, tmp_path / "m.gguf", tmp_path / "q8.gguf")
    ]
    assert "Paris" in answers[0]
    assert answers[1] == answers[0]
    assert "Paris" in answers[2]
