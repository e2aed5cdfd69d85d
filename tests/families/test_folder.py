"""A tiny random model of transformers and ours give the same numbers, whoever wrote the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from lmworks.base.errors import InputError
from lmworks.families.folder import open_folder, save_folder
from lmworks.families.mapping import to_ours
from lmworks.model.cache import Cache
from lmworks.model.transformer import Transformer

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2-untied": ("gpt2", {"tie_word_embeddings": False, "n_inner": 40, "activation_function": "relu"}),
    "llama": ("llama", {}),
    "llama-tied-grouped": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
    "llama-multi-query": ("llama", {"num_key_value_heads": 1, "head_dim": 12}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama-linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.5}}),
    "llama-dynamic": (
        "llama",
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 16},
    ),
    "llama-yarn": ("llama", {"rope_scaling": YARN}),
    "llama-yarn-told": (
        "llama",
        {"rope_scaling": YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 1.3, "truncate": False}},
    ),
    "llama-yarn-mscale": ("llama", {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 1.4}}),
    "llama3": ("llama", {"rope_scaling": LLAMA3, "rope_theta": 500.0}),
    "mistral": ("mistral", {"sliding_window": None, "hidden_act": "gelu_pytorch_tanh"}),
    "mistral-window": ("mistral", {"sliding_window": 5}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("qwen3", {}),
    "qwen3-biased-window": (
        "qwen3",
        {
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
}
every_case = pytest.mark.parametrize("case", CASES, ids=str)
CLOSE = {"rtol": 0.0, "atol": 1e-4}


def ids_of(*shape: int) -> torch.Tensor:
    return torch.randint(3, 101, shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def saved(case: str, theirs: Callable[..., Any], tmp_path: Path) -> tuple[Any, Path]:
    """A model of transformers, and the folder that it wrote."""
    model_type, changes = CASES[case]
    model = theirs(model_type, **changes)
    model.save_pretrained(tmp_path / "theirs")
    return model, tmp_path / "theirs"


@every_case
def test_logits_and_gradients_are_theirs(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    ours = open_folder(folder)
    ids = ids_of(2, 30)
    expected, got = model(ids).logits, ours.network(ids).logits
    torch.testing.assert_close(got, expected, **CLOSE)
    for logits in (expected, got):
        cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    their_gradients = {name: weight.grad for name, weight in model.named_parameters()}
    gradients = to_ours(ours.family.table(ours.config), their_gradients)
    for name, weight in ours.network.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


@every_case
def test_our_folder_opens_there_and_here(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = saved
    ours = open_folder(folder)
    path = save_folder(
        tmp_path / "ours", ours.network, ours.config, ours.family, hf_config=ours.hf_config, generation=ours.generation
    )
    ids = ids_of(2, 30)
    expected = model(ids).logits
    there = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    torch.testing.assert_close(there(ids).logits, expected, **CLOSE)
    here = open_folder(path)
    assert here.config == ours.config
    torch.testing.assert_close(here.network(ids).logits, ours.network(ids).logits, rtol=0, atol=0)
    assert there.config.eos_token_id == model.config.eos_token_id
    assert here.generation["eos_token_id"] == 2


@every_case
def test_cached_is_uncached(saved: tuple[Any, Path]) -> None:
    opened = open_folder(saved[1])
    length = 14  # within the trained context: beyond it, dynamic scaling turns earlier layers' keys anew each step
    ids = ids_of(2, length)
    with torch.no_grad():
        expected = opened.network(ids).logits
        cache = Cache(opened.config, 2, length)
        parts = [opened.network(ids[:, :6], cache=cache).logits]
        parts += [opened.network(ids[:, i : i + 1], cache=cache).logits for i in range(6, length)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, **CLOSE)


@every_case
def test_padded_is_alone(saved: tuple[Any, Path]) -> None:
    opened = open_folder(saved[1])
    long, short = ids_of(1, 12), ids_of(1, 7) - 1
    padding = torch.zeros(1, 5, dtype=torch.int64)
    places, real = torch.arange(12), torch.ones(1, 12, dtype=torch.int64)
    with torch.no_grad():
        alone = opened.network(short).logits
        right = torch.cat([short, padding], 1)
        left = torch.cat([padding, short], 1)
        for row, part, positions in (
            (right, slice(0, 7), places),
            (left, slice(5, 12), (places - 5).clamp(min=0)),
        ):
            segments = torch.cat([real, (row != 0).long()])
            both = opened.network(
                torch.cat([long, row]), segments=segments, positions=torch.stack([places, positions])
            ).logits
            torch.testing.assert_close(both[1:, part], alone, **CLOSE)
            torch.testing.assert_close(both[:1], opened.network(long).logits, **CLOSE)


@every_case
def test_scalings_and_windows_tell(saved: tuple[Any, Path]) -> None:
    """The cases above would prove nothing if these made no difference."""
    opened = open_folder(saved[1])
    plain = opened.config.model_copy(update={"rope_scaling": None, "sliding_window": None, "layer_kinds": None})
    if plain == opened.config:
        pytest.skip("this case has neither")
    without = Transformer(plain)
    without.load_state_dict(opened.network.state_dict())
    ids = ids_of(1, 30)
    assert (without.eval()(ids).logits - opened.network(ids).logits).abs().max() > 1e-2


def test_older_keys_of_rotary_scaling_are_read(theirs: Callable[..., Any], tmp_path: Path) -> None:
    theirs("llama", rope_scaling=LLAMA3, rope_theta=500.0).save_pretrained(tmp_path)
    newer = open_folder(tmp_path).config
    config = json.loads((tmp_path / "config.json").read_text())
    told = config.pop("rope_parameters")
    config["rope_theta"] = told.pop("rope_theta")
    config["rope_scaling"] = {"type": told.pop("rope_type"), **told}
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
    save_folder(tmp_path / "m", opened.network, opened.config, opened.family)
    torch.testing.assert_close(open_folder(tmp_path / "m").network(ids).logits, expected, rtol=0, atol=0)


def _refused(folder: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        open_folder(folder)
    assert caught.value.mend
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
        save_folder(tmp_path / "mine", opened.network, opened.config, opened.family)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
