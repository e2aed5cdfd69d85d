"""Adapters on whole networks: the base within, merging, and folders that peft and we open alike."""

import inspect
import json

import pytest
import torch
from torch import nn

from lmworks.adapt import adapters
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.adapt.registry import load_adapter
from lmworks.base.errors import InputError
from lmworks.families.mapping import to_ours
from lmworks.families.registry import family_of
from lmworks.model.initialization import draw
from lmworks.model.transformer import Transformer

IDS = torch.arange(1, 15).reshape(2, 7)


def make_pair(kind: str):
    """A tiny model of transformers, and ours with the same weights; its family."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "gpt2":
        theirs = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=61, n_embd=24, n_layer=2, n_head=4, n_positions=32, initializer_range=0.2
            )
        )
    else:
        theirs = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.2,
            )
        )  # fmt: skip
    config = theirs.config.to_dict()
    family = family_of(config)
    ours = Transformer(family.read_config(config))
    rows = family.table(ours.config)
    wanted = {row.theirs for row in rows}
    state = {name: tensor for name, tensor in theirs.state_dict().items() if name in wanted}
    ours.load_state_dict(to_ours(rows, state))
    return theirs.eval(), ours.eval(), family


def logits(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network(IDS).logits


def shake(network: nn.Module, seed: int = 1) -> None:
    """Factors as training might leave them."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter.data, std=0.3, generator=generator)
        if "lora_magnitude_vector" in name:
            parameter.data *= 1 + 0.3 * torch.rand(parameter.shape, generator=generator)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("targets", ["q_proj,v_proj", "q_proj,k_proj,v_proj,o_proj", "all-linear", "layers.1.mlp.*"])
@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_ours_loads_in_peft_to_the_same_logits(kind, targets, use_dora, tmp_path):
    peft = pytest.importorskip("peft")
    theirs, ours, family = make_pair(kind)
    base = logits(ours)
    LoRA(LoRASettings(rank=3, alpha=9, target_modules=targets, use_dora=use_dora)).apply(ours, seed=4)
    shake(ours)
    LoRA.write(ours, tmp_path, family, "some/base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    assert not torch.allclose(logits(ours), base, atol=1e-2)
    same(logits(theirs), logits(ours))
    again = make_pair(kind)[1]
    notes = load_adapter(again, tmp_path, family)
    same(logits(again), logits(ours))
    assert notes == []
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "some/base"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"target_modules": ["q_proj", "v_proj"]}),
        ("llama", {"target_modules": "all-linear", "use_rslora": True}),
        ("llama", {"target_modules": r".*1\.mlp\.(up|down)_proj", "init_lora_weights": "gaussian"}),
        (
            "llama",
            {"target_modules": ["q_proj", "o_proj"], "rank_pattern": {"o_proj": 2}, "alpha_pattern": {"o_proj": 7}},
        ),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
        ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
        ("llama", {"target_modules": "all-linear", "use_dora": True}),
        ("gpt2", {"target_modules": ["c_proj", "c_attn"], "fan_in_fan_out": True, "use_dora": True}),
        ("gpt2", {"target_modules": ["attn.c_proj", "c_fc", "c_attn"], "fan_in_fan_out": True}),
    ],
)  # fmt: skip
def test_theirs_loads_here_to_the_same_logits_and_goes_back(kind, options, tmp_path):
    peft = pytest.importorskip("peft")
    theirs, ours, family = make_pair(kind)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **options)).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    load_adapter(ours, tmp_path / "theirs", family)
    same(logits(ours), logits(theirs))
    LoRA.write(ours, tmp_path / "ours", family)
    back = peft.PeftModel.from_pretrained(make_pair(kind)[0], tmp_path / "ours").eval()
    same(logits(back), logits(theirs))


def test_fused_factors_come_back_as_they_went(tmp_path):
    _, ours, family = make_pair("gpt2")
    LoRA(LoRASettings(rank=3, target_modules="q_proj,k_proj,v_proj")).apply(ours)
    shake(ours)
    LoRA.write(ours, tmp_path, family)
    again = make_pair("gpt2")[1]
    load_adapter(again, tmp_path, family)
    for (name, item), (_, other) in zip(adapters.adapters(ours), adapters.adapters(again), strict=True):
        assert torch.equal(item.lora_A, other.lora_A), name
        assert torch.equal(item.lora_B, other.lora_B), name
        assert item.scale == other.scale


def test_switched_off_detached_and_merged():
    _, ours, _ = make_pair("llama")
    base, state = logits(ours), {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    LoRA(LoRASettings(rank=4, target_modules="all-linear")).apply(ours)
    assert torch.equal(logits(ours), base)  # B starts at zero
    shake(ours)
    adapted = logits(ours)
    with adapters.disabled(ours):
        assert torch.equal(logits(ours), base)
    assert torch.equal(logits(ours), adapted)
    assert len(list(adapters.adapters(ours))) == 14
    adapters.merge(ours)
    assert not list(adapters.adapters(ours))
    same(logits(ours), adapted)
    _, ours, _ = make_pair("llama")
    LoRA(LoRASettings(rank=4)).apply(ours)
    shake(ours)
    adapters.detach(ours)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


def test_only_the_factors_are_trainable_and_the_start_follows_the_name():
    _, ours, _ = make_pair("llama")
    LoRA(LoRASettings(rank=4, target_modules="q_proj,v_proj")).apply(ours, seed=7)
    names = [name for name, _ in adapters.adapters(ours)]
    assert len(names) == 4
    assert {name for name, own in ours.named_parameters() if own.requires_grad} == {
        f"{name}.{factor}" for name in names for factor in ("lora_A", "lora_B")
    }
    _, other, _ = make_pair("llama")
    LoRA(LoRASettings(rank=4, target_modules="v_proj")).apply(other, seed=7)
    mine, its = dict(adapters.adapters(ours)), dict(adapters.adapters(other))
    assert all(torch.equal(mine[name].lora_A, its[name].lora_A) for name in its)


def test_loraplus_gives_b_the_learning_rate_that_peft_gives_it():
    peft = pytest.importorskip("peft")
    from peft.optimizers import create_loraplus_optimizer

    theirs, ours, _ = make_pair("llama")
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    optimizer = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)
    of_theirs = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    expected = {name: of_theirs[id(own)] for name, own in theirs.named_parameters() if own.requires_grad}
    method = LoRA(LoRASettings(rank=4, target_modules="q_proj", loraplus_lr_ratio=16))
    method.apply(ours)
    factors = method.learning_rate_factors(ours)
    trained = [name for name, own in ours.named_parameters() if own.requires_grad]
    assert {
        f"base_model.model.model.{name}.default.weight": 1e-3 * factors.get(name, 1) for name in trained
    } == expected
    assert "16 times" in method.notes(ours.config)[0]
    assert LoRA(LoRASettings()).notes(ours.config) == []


def test_the_fingerprint_is_the_bases():
    _, ours, _ = make_pair("llama")
    before = adapters.fingerprint(ours)
    LoRA(LoRASettings(rank=4, target_modules="all-linear")).apply(ours)
    assert adapters.fingerprint(ours) == before
    adapters.detach(ours)
    assert adapters.fingerprint(ours.to(torch.bfloat16)) == before
    ours.layers[0].mlp.up_proj.weight.data.mul_(2)
    assert adapters.fingerprint(ours) != before


def test_another_base_gives_a_note(tmp_path):
    _, ours, family = make_pair("llama")
    LoRA(LoRASettings(rank=4)).apply(ours)
    LoRA.write(ours, tmp_path, family, "the/base")
    _, other, _ = make_pair("llama")
    other.layers[0].mlp.up_proj.weight.data.mul_(2)
    assert "the/base" in load_adapter(other, tmp_path, family)[0]


def test_an_adapter_of_another_model_is_refused_and_changes_nothing(tmp_path):
    _, ours, family = make_pair("llama")
    LoRA(LoRASettings(rank=4)).apply(ours)
    LoRA.write(ours, tmp_path, family, "the/base")
    _, other, _ = make_pair("llama")
    draw(other, torch.Generator().manual_seed(9))
    before = logits(other)
    with pytest.raises(InputError, match="made for another model") as caught:
        load_adapter(other, tmp_path, family)
    assert "the/base" in caught.value.fault
    assert "--base" in caught.value.hint
    assert torch.equal(logits(other), before)
    record = tmp_path / "lmworks_base.json"
    written = json.loads(record.read_text())
    record.write_text(json.dumps(written | {"base_sample": ["a", {}]}))
    with pytest.raises(InputError, match="base_sample is no list of numbers"):
        load_adapter(other, tmp_path, family)
    del written["base_sample"]  # as other software and earlier versions write it
    record.write_text(json.dumps(written))
    assert "the/base" in load_adapter(other, tmp_path, family)[0]


CHANGES = {
    "rounded to 4 bits": lambda weight: (weight / (step := weight.abs().amax(1, keepdim=True) / 7)).round() * step,
    "made ternary": lambda weight: (weight / (step := weight.abs().mean())).round().clamp(-1, 1) * step,
    "trained further": lambda weight: (
        weight + 0.3 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    ),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_the_same_model_with_other_weights_is_no_other_model(change, tmp_path):
    _, ours, family = make_pair("llama")
    LoRA(LoRASettings(rank=4)).apply(ours)
    LoRA.write(ours, tmp_path, family, "the/base")
    _, other, _ = make_pair("llama")
    for weight in other.parameters():
        if weight.ndim == 2:
            weight.data = CHANGES[change](weight.data)
    assert "the/base" in load_adapter(other, tmp_path, family)[0]


def test_a_target_that_means_nothing_names_what_there_is():
    _, ours, _ = make_pair("gpt2")
    with pytest.raises(InputError, match=r"c_attn.*\n.*q_proj"):
        LoRA(LoRASettings(target_modules="c_attn")).apply(ours)
    LoRA(LoRASettings()).apply(ours)
    with pytest.raises(InputError, match="already"):
        LoRA(LoRASettings()).apply(ours)


@pytest.fixture
def saved(tmp_path):
    _, ours, family = make_pair("llama")
    LoRA(LoRASettings(rank=2)).apply(ours)
    LoRA.write(ours, tmp_path, family)
    return tmp_path, family


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"bias": "lora_only"}, "bias"),
        ({"peft_type": "P_TUNING"}, "P_TUNING"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"a_key_of_tomorrow": 3}, "a_key_of_tomorrow"),
        ({"r": 5}, "rank 2"),
        ({"target_modules": ["q_proj", "up_proj"]}, "mlp.up_proj"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(saved, change, named):
    folder, family = saved
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=named):
        load_adapter(make_pair("llama")[1], folder, family)


def test_missing_unexpected_and_damaged_tensors_are_refused(saved):
    from safetensors.torch import load_file, save_file

    folder, family = saved
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    first = sorted(tensors)[0]
    for changed, named in (
        ({name: tensor for name, tensor in tensors.items() if name != first}, "alone"),
        ({name: tensor for name, tensor in tensors.items() if first[:40] not in name}, "no tensors for"),
        (tensors | {"base_model.model.model.norm.weight": torch.ones(3)}, "unexpected tensor .*norm"),
        (
            tensors | {first.replace("q_proj", "x_proj").replace("k_proj", "x_proj"): tensors[first].clone()},
            "alone|no linear",
        ),
    ):
        save_file(changed, path)
        with pytest.raises(InputError, match=named):
            load_adapter(make_pair("llama")[1], folder, family)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        load_adapter(make_pair("llama")[1], folder, family)
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        load_adapter(make_pair("llama")[1], folder, family)


def test_the_hints_on_adapters_can_be_followed(saved):
    from lmworks.adapt import lora_files, peft_files

    folder, family = saved
    network = make_pair("llama")[1]
    path = folder / "adapter_config.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"peft_type": "NEW_TUNING"}))
    with pytest.raises(InputError, match="NEW_TUNING") as caught:
        load_adapter(network, folder, family)
    assert "LORA" in caught.value.hint
    path.write_text(kept)
    files = peft_files.PeftFiles(peft_files.read_config(folder), peft_files.read_tensors(folder), folder)
    factors = lora_files.read(files, family, network.config)
    update = next(iter(factors.values()))
    unknown = factors | {"layers.0.self_attn.extra_proj": update}
    with pytest.raises(InputError, match="no place for an adapter") as caught:
        lora_files.to_files(unknown, dict.fromkeys(unknown, 24), family, network.config, 0.0)
    assert caught.value.hint == "leave extra_proj out of target_modules"
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match="missing") as caught:
        load_adapter(network, folder, family)
    name = caught.value.hint.partition("with ")[2].partition("=")[0]
    peft = pytest.importorskip("peft")
    assert name in inspect.signature(peft.PeftModel.save_pretrained).parameters
    assert hasattr(peft.tuners.lora.LoraModel, peft_files.MERGE.partition("(")[2].partition(")")[0])


def test_another_models_adapter_is_refused(saved):
    folder, _ = saved
    (folder / "lmworks_base.json").unlink()  # as PEFT writes it
    _, ours, family = make_pair("gpt2")
    with pytest.raises(InputError, match="no linear of a gpt2"):
        load_adapter(ours, folder, family)
