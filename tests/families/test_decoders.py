"""Gemma 2 and 3, Phi-3, StarCoder2: configs as published, in the words of every version; beyond windows and borders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import CASES, SIZES, make, open_case
from transformers import AutoConfig

from lmworks.base.errors import InputError
from lmworks.families.folder import open_folder
from lmworks.families.mapping import ModulePart, their_place
from lmworks.families.registry import FAMILIES, family_of
from lmworks.generate.decode import decode
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.model.config import ModelConfig

LONGROPE = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
BORDER = 16  # of the phi3 cases of tiny_families: where longrope's other factors begin
DEFAULTS = ("gemma2", "gemma3_text", "phi3", "starcoder2")


def read(model_type: str, /, **keys: Any) -> ModelConfig:
    config = {"model_type": model_type, "vocab_size": 101, **SIZES, **keys}
    return family_of(config).read_config(config)


@pytest.mark.parametrize("name", DEFAULTS)
def test_absent_keys_have_the_familys_defaults(name: str) -> None:
    """Those of transformers, which a config.json may rely on."""
    output = {"model_type": name, "vocab_size": 101, **SIZES}
    full = AutoConfig.for_model(**output).to_dict()
    assert family_of(output).read_config(output) == family_of(full).read_config(full)


def test_gemma2_as_it_is_published() -> None:
    """gemma-2-27b: its scale is not that of a head's size, and its config is older than layer_types."""
    config = read(
        "gemma2",
        num_hidden_layers=5,
        head_dim=128,
        query_pre_attn_scalar=144,
        hidden_act="gelu_pytorch_tanh",
        cache_implementation="hybrid",
        sliding_window=4096,
    )
    assert config.attention_scale == pytest.approx(1 / 12)
    assert [config.window_of(layer) for layer in range(5)] == [4096, None, 4096, None, 4096]
    assert (config.attention_softcap, config.logit_softcap) == (50.0, 30.0)
    assert config.embedding_scale == pytest.approx(32**0.5)
    assert read("gemma2", head_dim=256).attention_scale is None
    assert FAMILIES["gemma2"].write_config(config)["query_pre_attn_scalar"] == 144


def test_gemma3_in_older_and_newer_words() -> None:
    """gemma-3-4b's texts: every sixth layer sees everything, with positions eight times as dense."""
    linear = {"rope_type": "linear", "factor": 8.0}
    same = {"num_hidden_layers": 7, "sliding_window": 512}
    older = read(
        "gemma3_text",
        rope_theta=1e6,
        rope_local_base_freq=1e4,
        rope_scaling=linear,
        sliding_window_pattern=6,
        **same,
    )
    kinds = ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"]
    newer = read(
        "gemma3_text",
        layer_types=kinds,
        rope_parameters={
            "full_attention": {"rope_theta": 1e6, **linear},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
        **same,
    )
    assert older == newer
    assert older.layer_kinds == tuple(kinds)
    assert [older.is_local(layer) for layer in range(7)] == [kind == "sliding_attention" for kind in kinds]
    assert (older.rope_theta, older.rope_local_theta) == (1e6, 1e4)
    assert older.rope_scaling is not None
    assert older.rope_scaling.factor == 8.0
    assert read("gemma3_text", **FAMILIES["gemma3_text"].write_config(older)) == older


def test_phi3_in_older_and_newer_words() -> None:
    output = {"max_position_embeddings": 64, "original_max_position_embeddings": 16}
    older = read("phi3", rope_scaling=LONGROPE, rope_theta=500.0, **output)
    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 500.0}
    newer = read("phi3", rope_parameters=scaling | {"partial_rotary_factor": 1.0}, **output)
    assert older == newer
    assert older == read("phi3", rope_scaling=LONGROPE | {"type": "su"}, rope_theta=500.0, **output)
    assert older.rope_scaling is not None
    assert (older.rope_scaling.factor, older.rope_scaling.original_max_position_embeddings) == (4.0, 16)
    written = FAMILIES["phi3"].write_config(older)
    assert written["rope_scaling"] == LONGROPE  # transformers 4 refuses a fourth key
    assert read("phi3", **written) == older


def test_starcoder2_as_it_is_published() -> None:
    """starcoder2-3b: keys of two generations of code, of which one is read."""
    older = {
        "activation_function": "gelu",
        "layer_norm_epsilon": 1e-3,
        "norm_type": "layer_norm",
        "mlp_type": "default",
    }
    output = {
        "hidden_act": "gelu_pytorch_tanh",
        "norm_epsilon": 1e-5,
        "rope_theta": 999999.4420358813,
        "use_bias": True,
    }
    config = read("starcoder2", sliding_window=4096, attention_softmax_in_fp32=True, **older, **output)
    assert (config.activation, config.norm_eps, config.sliding_window) == ("gelu_tanh", 1e-5, 4096)
    assert config.qkv_bias
    assert config.output_bias
    assert config.mlp_bias
    assert read("starcoder2", **FAMILIES["starcoder2"].write_config(config)) == config


def test_another_attention_factor_is_kept() -> None:
    scaling = LONGROPE | {"attention_factor": 1.3, "factor": 2.0}
    config = read("phi3", rope_scaling=scaling, original_max_position_embeddings=16)
    written = FAMILIES["phi3"].write_config(config)
    assert written["rope_scaling"] == scaling
    assert read("phi3", **written) == config


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("gemma3", {"text_config": {}}, ["pictures", "gemma3_text"]),
        ("gemma2", {"use_bidirectional_attention": True}, ["use_bidirectional_attention"]),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, ["attn_logit_softcapping"]),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            ["sliding"],
        ),
        ("gemma2", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, ["lacks long_factor"]),
        ("phi3", {"attention_bias": True}, ["attention_bias"]),
        ("starcoder2", {"norm_type": "rms_norm"}, ["norm_type"]),
        ("llama", {"rope_theta": 0}, ["rope_theta", "greater than 0"]),
        ("gemma3_text", {"rope_local_base_freq": 0.0}, ["rope_local_theta", "greater than 0"]),
        ("phi3", {"partial_rotary_factor": 0.0}, ["rotary_fraction", "greater than 0"]),
    ],
)
def test_what_is_not_computed_is_refused_by_name(name: str, keys: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read(name, **keys)
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


def test_a_gemma_cannot_say_what_a_llama_is_and_the_other_way() -> None:
    gemma = read("gemma3_text", head_dim=16)
    with pytest.raises(InputError, match=r"rope_local_base_freq.* llama"):
        FAMILIES["llama"].write_config(gemma)
    with pytest.raises(InputError, match=r"gemma2 config cannot say .*norm = 'rms'"):
        FAMILIES["gemma2"].write_config(read("llama"))
    odd = read("gemma2").model_copy(update={"attention_scale": 0.3})
    with pytest.raises(InputError, match=r"attention_scale = 0\.3"):
        FAMILIES["gemma2"].write_config(odd)


def test_fused_projections_are_found_for_adapters() -> None:
    rows = FAMILIES["phi3"].table(read("phi3", num_key_value_heads=2))
    assert their_place(rows, "layers.1.self_attn.v_proj") == ModulePart("model.layers.1.self_attn.qkv_proj", 2, 3)
    assert their_place(rows, "layers.0.mlp.up_proj") == ModulePart("model.layers.0.mlp.gate_up_proj", 1, 2)


@pytest.mark.parametrize("case", ["gemma2", "gemma3", "phi3-window", "phi3-longrope", "phi3-partial"])
def test_written_beyond_windows_and_borders_as_transformers_writes(case: str, tmp_path: Path) -> None:
    """Greedy, in a batch of unequal prompts: one passes the border while it is written, one began beyond it."""
    model, opened = open_case(case, tmp_path)
    model.generation_config.eos_token_id = None
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 101, (length,), generator=generator).tolist() for length in (5, BORDER - 3, 21)]
    steps = list(decode(TorchStepper(opened.network), prompts, SamplingSettings(max_tokens=6, temperature=0.0), set()))
    written = [[step[row].id for step in steps] for row in range(len(prompts))]
    for prompt, received in zip(prompts, written, strict=True):
        whole = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, use_cache=False)
        assert received == whole[0, len(prompt) :].tolist()


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith(("gemma", "phi3", "starcoder2"))])
def test_packed_and_padded_beyond_the_border(case: str, tmp_path: Path) -> None:
    network = open_case(case, tmp_path)[1].network
    lengths = (BORDER + 5, 7, BORDER)
    texts = [torch.randint(3, 101, (1, n), generator=torch.Generator().manual_seed(n)) for n in lengths]
    numbers = [torch.arange(n)[None] for n in lengths]
    segments = [torch.full((1, n), at + 1) for at, n in enumerate(lengths)]
    flat, places, parts = (torch.cat(some, dim=1) for some in (texts, numbers, segments))
    width = max(lengths)
    padded, at, real = (
        torch.cat([torch.nn.functional.pad(item, (0, width - item.shape[1])) for item in some])
        for some in (texts, numbers, segments)
    )
    with torch.no_grad():
        alone = [network(text).logits[0] for text in texts]
        packed = network(flat, positions=places, segments=parts).logits[0].split(lengths)
        rows = network(padded, positions=at, segments=real.clamp(max=1)).logits
    for row, expected in enumerate(alone):
        torch.testing.assert_close(packed[row], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(rows[row, : lengths[row]], expected, rtol=0, atol=1e-4)


def test_a_folder_of_version_4_opens(tmp_path: Path) -> None:
    """The same weights beside a config in the words of its time."""
    model = make("gemma3-linear")
    model.save_pretrained(tmp_path)
    newer = open_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    output = config.pop("rope_parameters")
    full = output["full_attention"]
    config["rope_theta"], config["rope_local_base_freq"] = (
        full.pop("rope_theta"),
        output["sliding_attention"]["rope_theta"],
    )
    config["rope_scaling"] = {"type": full.pop("rope_type"), **full}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_folder(tmp_path).config == newer.config
