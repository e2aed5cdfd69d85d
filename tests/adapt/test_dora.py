"""DoRA: the formula, gradients beside peft's, the start, the off-switch, merging, stored bases, bfloat16, resuming."""

from __future__ import annotations

import copy
import signal
from contextlib import nullcontext

import pytest
import torch
from test_adapter_folder import IDS, logits, make_pair, same, shake
from tiny_model import save_questions, save_tiny, settings
from torch import nn

import lmworks
from lmworks.adapt import adapters
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.adapt.low_rank import DoRALinear
from lmworks.adapt.peft_files import PREFIX, PeftFiles, written_module
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.families.mapping import their_place
from lmworks.model.accumulation import accumulate_in_place
from lmworks.model.storage import DenseStorage
from lmworks.model.stored_layers import StoredLinear
from lmworks.train import checkpoint


def make(bias: bool = True, dropout: float = 0.0, base: nn.Module | None = None) -> DoRALinear:
    torch.manual_seed(0)
    base = base or nn.Linear(24, 10, bias=bias)
    adapter = DoRALinear(base, 4, 2.0, dropout, torch.Generator().manual_seed(1))
    nn.init.normal_(adapter.lora_B)
    adapter.lora_magnitude_vector.data *= 1 + torch.rand(10)
    return adapter


def updated(adapter: DoRALinear) -> torch.Tensor:
    """Equation 5 of the paper."""
    weight = adapter.base.weight + 2.0 * adapter.lora_B @ adapter.lora_A
    return adapter.lora_magnitude_vector[:, None] * weight / weight.norm(dim=1, keepdim=True)


def test_it_is_the_papers_formula():
    adapter, x = make(), torch.randn(2, 5, 24)
    expected = x @ updated(adapter).T + adapter.base.bias
    torch.testing.assert_close(adapter(x), expected, rtol=1e-5, atol=1e-5)
    adapter.register_forward_hook(lambda *_: None)  # which no single function computes
    torch.testing.assert_close(adapter(x), expected, rtol=1e-5, atol=1e-5)


def test_it_starts_as_its_base():
    base, x = nn.Linear(24, 10), torch.randn(3, 24)
    adapter = DoRALinear(base, 4, 2.0)
    torch.testing.assert_close(adapter.lora_magnitude_vector.data, base.weight.data.norm(dim=1))
    torch.testing.assert_close(adapter(x), base(x), rtol=1e-6, atol=1e-6)


def test_merged_is_unmerged_and_unmerging_gives_the_base_back_bit_for_bit():
    adapter, x = make(), torch.randn(7, 24)
    before, weight = adapter(x), adapter.base.weight.clone()
    adapter.merge()
    torch.testing.assert_close(adapter(x), before, rtol=1e-5, atol=1e-5)
    adapter.unmerge()
    assert torch.equal(adapter.base.weight, weight)
    assert torch.equal(adapter(x), before)
    adapter.enabled = False
    assert torch.equal(adapter(x), adapter.base(x))


def test_the_base_may_be_in_a_storage():
    plain, x = make(), torch.randn(7, 24)
    plain.base.weight.data = plain.base.weight.data.bfloat16().float()
    plain.base.requires_grad_(False)
    stored = make(base=StoredLinear(DenseStorage(plain.base.weight.data.bfloat16()), plain.base.bias))
    stored.load_state_dict({name: own for name, own in plain.state_dict().items() if name != "base.weight"})
    torch.testing.assert_close(stored(x), plain(x), rtol=1e-5, atol=1e-5)
    before = stored(x)
    stored.merge()
    torch.testing.assert_close(stored(x), before, rtol=1e-5, atol=1e-5)
    stored.unmerge()
    assert isinstance(stored.base, StoredLinear)


def test_a_row_of_zeros_gives_zeros_and_no_nan():
    base = nn.Linear(24, 10, bias=False)
    base.weight.data[3] = 0
    adapter = DoRALinear(base, 4, 2.0)
    nn.init.normal_(adapter.lora_B)
    y = adapter(torch.randn(7, 24))
    y.square().sum().backward()
    assert torch.equal(y[:, 3], torch.zeros(7))
    assert all(bool(own.grad.isfinite().all()) for own in adapter.parameters() if own.requires_grad)


def test_dropout_is_of_the_updates_input_alone():
    adapter, x = make(dropout=0.5), torch.randn(7, 24)
    adapter.lora_B.data.zero_()
    torch.testing.assert_close(adapter.train()(x), adapter.eval()(x))
    nn.init.normal_(adapter.lora_B)
    assert not torch.equal(adapter.train()(x), adapter(x))
    assert torch.equal(adapter.eval()(x), adapter(x))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_gradients_are_pefts(kind):
    peft = pytest.importorskip("peft")
    theirs, ours, family = make_pair(kind)
    targets = {"llama": ["q_proj", "v_proj", "up_proj", "down_proj"], "gpt2": ["c_proj", "c_fc"]}[kind]
    options = {"r": 4, "lora_alpha": 6, "target_modules": targets, "use_dora": True, "fan_in_fan_out": kind == "gpt2"}
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(task_type="CAUSAL_LM", **options))
    shake(theirs)
    LoRA.from_files(ours.requires_grad_(False), PeftFiles(options, peft.get_peft_model_state_dict(theirs)), family)
    for module in (theirs, ours):
        module.train(kind == "llama")  # whose config has no dropout
        module(IDS).logits.square().mean().backward()
    of_theirs = {
        name.replace(".default", "").removesuffix(".weight"): own.grad for name, own in theirs.named_parameters()
    }
    gradients = {name: own.grad for name, own in ours.named_parameters() if own.grad is not None}
    written = {part: [] for part in ("lora_A", "lora_B", "lora_magnitude_vector")}
    for name, gradient in gradients.items():
        module, _, part = name.rpartition(".")
        place = their_place(family.table(ours.config), module).module
        expected = of_theirs[f"{PREFIX}{written_module(place, family, ours.config)}.{part}"]
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5, msg=name)
        written[part].append(name)
    assert all(len(names) == len(targets) * 2 + 2 * (kind == "gpt2") for names in written.values())


def test_switched_off_detached_and_merged_in_a_network():
    _, ours, _ = make_pair("llama")
    base, state = logits(ours), copy.deepcopy(ours.state_dict())
    LoRA(LoRASettings(rank=4, target_modules="all-linear", use_dora=True)).apply(ours)
    same(logits(ours), base)
    shake(ours)
    adapted = logits(ours)
    assert not torch.allclose(adapted, base, atol=1e-2)
    with adapters.disabled(ours):
        assert torch.equal(logits(ours), base)
    assert torch.equal(logits(ours), adapted)
    merged = copy.deepcopy(ours)
    adapters.merge(merged)
    same(logits(merged), adapted)
    adapters.detach(ours)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


def test_only_factors_and_magnitudes_are_trained():
    _, ours, _ = make_pair("llama")
    LoRA(LoRASettings(rank=4, target_modules="q_proj", use_dora=True)).apply(ours)
    names = {name.rpartition(".")[2] for name, own in ours.named_parameters() if own.requires_grad}
    assert names == {"lora_A", "lora_B", "lora_magnitude_vector"}
    assert ours.layers[0].self_attn.q_proj.lora_magnitude_vector.shape == (24,)


def test_in_bfloat16_a_small_change_of_a_magnitude_is_not_rounded_away():
    """Factors that bfloat16 rounds to 1 change the weight before it is rounded, not the rounded output."""
    torch.manual_seed(0)
    adapter, x = DoRALinear(nn.Linear(512, 64, bias=False), 4, 2.0), torch.randn(400, 512)
    with torch.no_grad():
        before = adapter(x)
        adapter.lora_magnitude_vector *= 1.001
        exact = adapter(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = adapter(x)
    assert rounded.dtype == torch.bfloat16
    change = ((rounded.float() - before) * before).sum() / before.square().sum()
    assert float(change) == pytest.approx(float(((exact - before) * before).sum() / before.square().sum()), rel=0.3)


@pytest.mark.parametrize("bias", [False, True])
def test_bfloat16_gives_the_gradients_of_float32(bias):
    adapter, x, grad_y = make(bias=bias), torch.randn(200, 24), torch.randn(200, 10)
    results = []
    for enabled in (False, True):
        adapter.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = adapter(x)
        y.backward(grad_y.to(y.dtype))
        results.append({name: own.grad.clone() for name, own in adapter.named_parameters() if own.grad is not None})
    assert results[0].keys() == results[1].keys() >= {"lora_A", "lora_B", "lora_magnitude_vector"}
    for name, exact in results[0].items():
        torch.testing.assert_close(results[1][name], exact, atol=0.03 * float(exact.abs().max()), rtol=0.03, msg=name)


def test_rows_of_one_step_share_the_norms_and_the_next_step_computes_them_again():
    _, ours, _ = make_pair("llama")
    LoRA(LoRASettings(rank=4, target_modules="all-linear", use_dora=True)).apply(ours.train())

    def gradients(context) -> dict[str, torch.Tensor]:
        ours.zero_grad()
        with context:
            for ids in (IDS[:1], IDS[1:]):
                ours(ids).logits.square().mean().backward()
        return {name: own.grad.clone() for name, own in ours.named_parameters() if own.requires_grad}

    for step in (1, 2):
        shake(ours, step)
        expected = gradients(nullcontext())
        for name, gradient in gradients(accumulate_in_place()).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_magnitudes_are_not_summed(tmp_path):
    lm = lmworks.load(str(save_tiny(tmp_path / "tiny")))
    LoRA(LoRASettings(rank=2, use_dora=True)).apply(lm.network)
    shake(lm.network)
    adapted = logits(lm.network)
    LoRA.write(lm.network, tmp_path / "adapter", lm.family, str(tmp_path / "tiny"))
    adapters.detach(lm.network)
    lm.add_adapter("dora", tmp_path / "adapter")
    with lm.adapter("dora"):
        same(logits(lm.network), adapted)
    with pytest.raises(InputError, match="more than low-rank") as caught:
        lm.combine_adapters({"dora": 0.5}, "half")
    assert "without magnitudes" in caught.value.hint


def test_a_run_is_saved_opened_and_resumed(tmp_path, monkeypatch):
    model, data = save_tiny(tmp_path / "tiny"), save_questions(tmp_path / "faq.jsonl")
    values = settings()
    given = {"source": str(data), **values.pop("data")}
    values["train"] |= {"steps": 5, "checkpoint_every": 3, "learning_rate": 1e-2}
    lora = {"rank": 2, "use_dora": True, "loraplus_lr_ratio": 4}
    whole = lmworks.tune(str(model), given, lora=lora, out=tmp_path / "whole", **values)
    tuned = whole.model.network
    changed = [module for _, module in adapters.adapters(tuned) if isinstance(module, DoRALinear)]
    assert any(not torch.equal(own.lora_magnitude_vector, own.base.weight.norm(dim=1)) for own in changed)
    torch.testing.assert_close(logits(lmworks.load(str(whole.folder)).network), logits(tuned), atol=1e-5, rtol=1e-5)
    (session,) = RunFolder(whole.folder).events("session")
    assert [rate["learning_rate"] for rate in session["learning_rates"]] == pytest.approx([1e-2, 4e-2])
    assert sum(rate["trainable"] for rate in session["learning_rates"]) == session["trainable"]
    save = checkpoint.save

    def save_and_interrupt(run, step, state):
        if not checkpoint.steps(run):
            signal.raise_signal(signal.SIGINT)
        return save(run, step, state)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_and_interrupt)
        stopped = lmworks.tune(str(model), given, lora=lora, out=tmp_path / "stopped", **values)
        assert stopped.stopped == "interrupted"
    resumed = lmworks.resume(tmp_path / "stopped")
    losses = [[event["loss"] for event in RunFolder(run.folder).events("step")] for run in (resumed, whole)]
    assert losses[0] == losses[1]
