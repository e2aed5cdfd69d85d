"""Prompt tuning and prefix tuning: the logits of peft both ways, starts and refusals, whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_heads import logits as head_logits
from tiny_heads import make as make_with_head
from tiny_heads import texts, their_logits
from tiny_model import save_questions, save_tiny, settings

import lmworks
from lmworks.adapt.prefix_tuning import PrefixTuningSettings
from lmworks.adapt.prompt_tuning import PromptTuningSettings
from lmworks.adapt.registry import METHODS, load_adapter, make
from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.families.folder import open_folder
from lmworks.families.opened import Opened
from lmworks.generate.stepper import RowStart
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.model.config import ModelConfig
from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS
from lmworks.model.heads import HeadConfig
from lmworks.model.transformer import Transformer

peft = pytest.importorskip("peft")
COUNT = 3
IDS = torch.arange(3, 17).reshape(2, 7)
SETTINGS = {
    "prompt_tuning": PromptTuningSettings(num_virtual_tokens=COUNT),
    "prefix_tuning": PrefixTuningSettings(num_virtual_tokens=COUNT),
}
methods = pytest.mark.parametrize("name", SETTINGS)
CONFIGS = {"prompt_tuning": peft.PromptTuningConfig, "prefix_tuning": peft.PrefixTuningConfig}
TASKS = {SEQUENCE: "SEQ_CLS", TOKENS: "TOKEN_CLS", SPANS: "QUESTION_ANS"}


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def opened(model: Any, folder: Path) -> Opened:
    model.save_pretrained(folder)
    return open_folder(folder)


def shake(module: torch.nn.Module) -> None:
    """Change what is trained, as training might: no virtual token is like another."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def of_real_tokens(wrapped: Any, ids: torch.Tensor) -> torch.Tensor:
    """The logits of a model of peft, without those of virtual tokens."""
    return wrapped(ids).logits[:, -ids.shape[1] :]


@torch.no_grad()
def logits(network: Transformer, ids: torch.Tensor = IDS) -> torch.Tensor:
    return network(ids).logits


@methods
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("trained_by_peft", [True, False])
def test_decoders_give_the_logits_of_peft_both_ways(name, family, trained_by_peft, theirs, tmp_path):
    base = theirs(family)
    ours = opened(base, tmp_path / "base")
    plain = logits(ours.network)
    if trained_by_peft:
        wrapped = peft.get_peft_model(base, CONFIGS[name](task_type="CAUSAL_LM", num_virtual_tokens=COUNT)).eval()
        shake(wrapped)
        wrapped.save_pretrained(tmp_path / "adapter")
        assert load_adapter(ours.network, tmp_path / "adapter", ours.family) == []
    else:
        make(name, SETTINGS[name]).apply(ours.network)
        shake(ours.network)
        METHODS[name].write(ours.network, tmp_path / "adapter", ours.family, "some/base")
        wrapped = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert not torch.allclose(logits(ours.network), plain, atol=1e-2)
    same(logits(ours.network), of_real_tokens(wrapped, IDS))
    same(logits(ours.network, IDS[:1]), of_real_tokens(wrapped, IDS[:1]))


@methods
def test_what_peft_generates_is_what_is_generated_here(name, theirs, tmp_path):
    base = theirs("llama")
    ours = opened(base, tmp_path / "base")
    wrapped = peft.get_peft_model(base, CONFIGS[name](task_type="CAUSAL_LM", num_virtual_tokens=COUNT)).eval()
    shake(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    load_adapter(ours.network, tmp_path / "adapter", ours.family)
    expected = wrapped.generate(
        input_ids=IDS[:1], attention_mask=torch.ones_like(IDS[:1]), max_new_tokens=6, do_sample=False, eos_token_id=-1
    )[0, -6:]
    stepper, received = TorchStepper(ours.network.eval()), []
    stepper.prefill([RowStart(IDS[0].tolist())])
    for _ in range(6):
        received.append(int(stepper.logits[0].argmax()))
        stepper.step(received[-1:])
    assert received == expected.tolist()


HEADS = [(family, head) for family in ("bert", "roberta", "gpt2", "llama") for head in (SEQUENCE, TOKENS)]
HEADS += [
    ("gemma2", SEQUENCE),
    ("gemma3_text", SEQUENCE),
    ("bert", SPANS),
    ("distilbert", SEQUENCE),
    ("albert", SEQUENCE),
]
NO_PREFIX_IN_PEFT = ("distilbert", "albert")  # their classes take no past_key_values


def peft_logits(wrapped: Any, head: str, ids: torch.Tensor) -> torch.Tensor:
    received = their_logits(wrapped(input_ids=ids), head)
    return received if head == SEQUENCE else received[-ids.shape[1] :]


@methods
@pytest.mark.parametrize(("family", "head"), HEADS, ids=["-".join(case) for case in HEADS])
@pytest.mark.parametrize("trained_by_peft", [True, False])
@torch.no_grad()
def test_models_with_a_head_give_the_logits_of_peft_both_ways(name, family, head, trained_by_peft, tmp_path):
    if name == "prefix_tuning" and family in NO_PREFIX_IN_PEFT:
        pytest.skip(f"peft has no prefix for {family}")
    base = make_with_head(family, head)
    ours = opened(base, tmp_path / "base")
    sizes = {"token_dim": ours.config.embedding_width, "num_attention_heads": ours.config.num_attention_heads}
    sizes = {} if name == "prefix_tuning" else sizes  # which peft does not know of ALBERT and DistilBERT
    config = CONFIGS[name](task_type=TASKS[head], num_virtual_tokens=COUNT, **sizes)
    if trained_by_peft:
        wrapped = peft.get_peft_model(base, config).eval()
        shake(wrapped)
        wrapped.save_pretrained(tmp_path / "adapter")
        load_adapter(ours.network, tmp_path / "adapter", ours.family)
    else:
        make(name, SETTINGS[name]).apply(ours.network)
        shake(ours.network)
        METHODS[name].write(ours.network, tmp_path / "adapter", ours.family)
        wrapped = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    for ids in texts():
        same(head_logits(ours, head, ids), peft_logits(wrapped, head, torch.from_numpy(ids).long()[None]))


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@methods
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_virtual_tokens": 4}, "shape"),
        ({"num_transformer_submodules": 2}, "num_transformer_submodules"),
        ({"num_virtual_tokens": "many"}, "num_virtual_tokens"),
        ({"a_key_of_tomorrow": 3}, "a_key_of_tomorrow"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(name, change, named, folder, tmp_path):
    model = lmworks.load(str(folder))
    make(name, SETTINGS[name]).apply(model.network)
    METHODS[name].write(model.network, tmp_path, model.family)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=named):
        load_adapter(lmworks.load(str(folder)).network, tmp_path, model.family)


@methods
def test_missing_and_unexpected_tensors_are_refused(name, folder, tmp_path):
    model = lmworks.load(str(folder))
    make(name, SETTINGS[name]).apply(model.network)
    METHODS[name].write(model.network, tmp_path, model.family)
    path = tmp_path / "adapter_model.safetensors"
    tensor = load_file(path)["prompt_embeddings"]
    for tensors, named in (
        ({"other": tensor}, "unexpected tensor other"),
        ({}, "prompt_embeddings is missing"),
        ({"prompt_embeddings": tensor[:, 1:].contiguous()}, "shape"),
    ):
        save_file(tensors, path)
        with pytest.raises(InputError, match=named):
            load_adapter(lmworks.load(str(folder)).network, tmp_path, model.family)


def test_a_prefix_that_peft_projects_is_read_as_it_is_saved(theirs, tmp_path):
    base = theirs("llama")
    ours = opened(base, tmp_path / "base")
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=COUNT, prefix_projection=True, encoder_hidden_size=10
    )
    wrapped = peft.get_peft_model(base, config).eval()
    shake(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    load_adapter(ours.network, tmp_path / "adapter", ours.family)
    same(logits(ours.network), of_real_tokens(wrapped, IDS))


SMALL = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "max_position_embeddings": 32}
ATTENTION = SMALL | {"intermediate_size": 40, "num_attention_heads": 4}
CONVOLUTION = {"layer": "convolution", "architecture": "encoder", "kernel_sizes": (2, 3, 5), "language_head": False}
MODELS = {
    "rnn": SMALL | {"layer": "rnn"},
    "convolution": SMALL | CONVOLUTION,
    "encoder-decoder": ATTENTION | {"architecture": "encoder-decoder", "num_decoder_layers": 2},
}


@methods
@pytest.mark.parametrize("kind", MODELS)
def test_models_that_it_does_not_fit_are_refused_with_a_method_that_fits(name, kind):
    config = ModelConfig(**MODELS[kind])
    with pytest.raises(InputError, match=name) as caught:
        make(name, SETTINGS[name]).trained_parameters(config)
    other = caught.value.hint.split("--method ")[1].split()[0]
    assert make(other).trained_parameters(config).count


def test_a_prefix_does_not_fit_rotations_that_change_and_a_soft_prompt_does():
    scaling = {"kind": "dynamic", "factor": 2.0}
    config = ModelConfig(**(ATTENTION | {"rope_scaling": scaling}))
    with pytest.raises(InputError, match="dynamic") as caught:
        make("prefix_tuning", SETTINGS["prefix_tuning"]).trained_parameters(config)
    assert caught.value.hint == "--method prompt_tuning"
    assert make("prompt_tuning", SETTINGS["prompt_tuning"]).trained_parameters(config).count


@methods
def test_more_virtual_tokens_than_the_context_are_refused(name):
    config = ModelConfig(**(ATTENTION | {"max_position_embeddings": 16}))
    settings_class = METHODS[name].settings_class
    with pytest.raises(InputError, match="context of 16 tokens") as caught:
        make(name, build(settings_class, {"num_virtual_tokens": 16})).trained_parameters(config)
    count = int(caught.value.hint.split()[-1])
    assert make(name, build(settings_class, {"num_virtual_tokens": count})).trained_parameters(config).count


def test_heads_that_read_different_tokens_are_not_trained_together_after_a_soft_prompt():
    heads = (HeadConfig(name="a", kind="first", size=2), HeadConfig(name="b", kind="tokens", size=2))
    config = ModelConfig(**(ATTENTION | {"heads": heads, "language_head": False}))
    with pytest.raises(InputError, match="heads that read a text's first token"):
        make("prompt_tuning", SETTINGS["prompt_tuning"]).trained_parameters(config)
    assert make("prefix_tuning", SETTINGS["prefix_tuning"]).trained_parameters(config).count


@methods
def test_the_start_is_a_text_that_fits_or_is_refused(name, folder):
    model = lmworks.load(str(folder))
    settings_class = METHODS[name].settings_class
    text, ids = f"{name}_init_text", model.tokenizer.encode("Sum up:")
    method = make(name, build(settings_class, {text: "Sum up:", "num_virtual_tokens": len(ids) - 1}))
    with pytest.raises(InputError, match=f"{len(ids)} tokens, more than the {len(ids) - 1}") as caught:
        method.use_tokenizer(model.tokenizer)
    count = int(caught.value.hint.split(",")[0].split()[-1])
    method = make(name, build(settings_class, {text: "Sum up:", "num_virtual_tokens": count}))
    with pytest.raises(InputError, match="use_tokenizer"):
        method.apply(model.network)
    method.use_tokenizer(model.tokenizer)
    method.apply(model.network)
    as_text = lmworks.load(str(folder)).network(torch.tensor([ids + IDS[0].tolist()])).logits[:, len(ids) :]
    same(logits(model.network, IDS[:1]), as_text)
    for given, said in (
        ({f"{name}_init": "TEXT"}, f"{name}_init_text"),
        ({f"{name}_init": "RANDOM", text: "Sum up:"}, "not used"),
    ):
        with pytest.raises(InputError, match=said):
            build(settings_class, given)


@methods
@pytest.mark.parametrize("start", ["SAMPLE_VOCAB", "RANDOM"])
def test_the_start_follows_the_seed(name, start, folder):
    networks = [lmworks.load(str(folder)).network for _ in range(3)]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        make(name, build(METHODS[name].settings_class, {f"{name}_init": start})).apply(network, seed)
    first, again, other = (logits(network) for network in networks)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-4)


@methods
def test_a_run_leaves_an_adapter_that_is_used_and_cannot_be_merged(name, folder, tmp_path):
    values = settings()
    values["train"] |= {"steps": 3}
    values[name] = {"num_virtual_tokens": COUNT, f"{name}_init_text": "Sum"}
    data = {"source": str(save_questions(tmp_path / "faq.jsonl")), **values.pop("data")}
    run = lmworks.tune(str(folder), data, method=name, out=tmp_path / "run", **values)
    opened_run = lmworks.load(tmp_path / "run")
    assert opened_run.context == 256 - COUNT
    answer = run.model.generate("What is 3 and 3?", max_tokens=4, temperature=0)
    assert opened_run.generate("What is 3 and 3?", max_tokens=4, temperature=0) == answer
    beams = opened_run.generate("What is 3 and 3?", max_tokens=4, num_beams=2)
    with pytest.raises(InputError, match="cannot be merged") as caught:
        opened_run.save(tmp_path / "whole")
    assert "its folder final" in caught.value.hint
    kept = lmworks.load(tmp_path / "run" / "final").prepare("float32")
    assert kept.generate("What is 3 and 3?", max_tokens=4, num_beams=2) == beams
    assert kept.network.virtual_tokens is not None
    wrapped = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / "final").eval()
    same(logits(opened_run.network), of_real_tokens(wrapped, IDS))
