"""(IA)3: scaled linears, and folders that peft and we open alike."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_families import ask_ours, ask_theirs, make, open_case, question
from torch import nn

from lmworks.adapt.ia3 import IA3, IA3Settings
from lmworks.adapt.registry import load_adapter
from lmworks.adapt.scaled_linear import ScaledLinear
from lmworks.base.errors import InputError
from lmworks.families.folder import open_folder
from lmworks.model.config import ModelConfig
from lmworks.model.storage import DenseStorage
from lmworks.model.stored_layers import StoredLinear
from lmworks.model.transformer import Transformer

FAMILIES = ["llama", "gpt2", "phi3", "phi3-window", "qwen3", "bert-masked", "distilbert", "albert-groups", "bart", "t5"]


def shake(network: nn.Module) -> None:
    """Scales as training might leave them."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "ia3_l" in name:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)


def same(ours: nn.Module, theirs: nn.Module) -> torch.Tensor:
    """Their logits are ours; returns them."""
    with torch.no_grad():
        asked = question(ours.config)
        expected, answer = ask_theirs(theirs, asked)["logits"], ask_ours(ours, asked)["logits"]
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-4)
    return answer


class TestScaledLinear:
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("of_input", [False, True])
    def test_it_scales_and_merges_rows_or_columns_and_the_bias(self, of_input, bias):
        base = nn.Linear(5, 3, bias=bias)
        weight = base.weight.detach().clone()
        adapter, x = ScaledLinear(base, of_input), torch.randn(4, 5)
        assert torch.equal(adapter(x), base(x))
        shake(adapter)
        factors = adapter.ia3_l.detach()
        expected = base(x * factors) if of_input else base(x) * factors
        torch.testing.assert_close(adapter(x), expected)
        adapter.merge()
        torch.testing.assert_close(base.weight, weight * (factors if of_input else factors[:, None]))
        torch.testing.assert_close(adapter(x), expected)
        adapter.unmerge()
        assert torch.equal(base.weight, weight)
        torch.testing.assert_close(adapter(x), expected, rtol=0, atol=0)

    def test_a_weight_in_a_storage_is_merged_and_comes_back(self):
        weight, bias = torch.randn(3, 5).bfloat16(), nn.Parameter(torch.randn(3))
        adapter, x = ScaledLinear(StoredLinear(DenseStorage(weight), bias), of_input=False), torch.randn(4, 5)
        shake(adapter)
        expected = adapter(x).detach()
        adapter.merge()
        torch.testing.assert_close(adapter(x), expected)
        adapter.unmerge()
        assert isinstance(adapter.base, StoredLinear)
        assert torch.equal(adapter(x), expected)

    def test_small_factors_change_float32_factors_of_bfloat16_inputs(self):
        adapter = ScaledLinear(nn.Linear(5, 3).bfloat16(), of_input=True)
        assert adapter.ia3_l.dtype == torch.float32
        assert adapter(torch.randn(4, 5).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", FAMILIES)
def test_ours_opens_in_peft_to_the_same_logits(name, tmp_path):
    peft = pytest.importorskip("peft")
    theirs, ours = open_case(name, tmp_path / "base")
    base = same(ours.network.eval(), theirs)
    IA3().apply(ours.network)
    shake(ours.network)
    IA3.write(ours.network, tmp_path / "adapter", ours.family, "some/base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    adapted = same(ours.network, theirs)
    assert not torch.allclose(adapted, base, atol=1e-2)
    again = open_folder(tmp_path / "base")
    assert load_adapter(again.network, tmp_path / "adapter", again.family) == []
    same(again.network.eval(), theirs)
    with torch.no_grad():
        assert torch.equal(ask_ours(again.network, question(again.config))["logits"], adapted)


@pytest.mark.parametrize("name", FAMILIES)
def test_theirs_with_their_defaults_opens_here_and_goes_back(name, tmp_path):
    peft = pytest.importorskip("peft")
    theirs, ours = open_case(name, tmp_path / "base")
    known = peft.utils.constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    defaults = {} if theirs.config.model_type in known else OTHERS[theirs.config.model_type]
    theirs = peft.get_peft_model(theirs, peft.IA3Config(**defaults)).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    load_adapter(ours.network, tmp_path / "theirs", ours.family)
    same(ours.network.eval(), theirs)
    IA3.write(ours.network, tmp_path / "ours", ours.family)
    same(ours.network, peft.PeftModel.from_pretrained(make(name), tmp_path / "ours").eval())


# PEFT has no defaults for these families.
OTHERS = {
    "phi3": {"target_modules": ["qkv_proj", "gate_up_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "distilbert": {"target_modules": ["k_lin", "v_lin", "lin2"], "feedforward_modules": ["lin2"]},
    "albert": {"target_modules": ["key", "value", "ffn_output"], "feedforward_modules": ["ffn_output"]},
}


def test_of_a_fused_linear_only_what_is_adapted_comes_back(tmp_path):
    _, ours = open_case("gpt2", tmp_path / "base")
    IA3().apply(ours.network)
    shake(ours.network)
    trained = {name: scale.clone() for name, scale in ours.network.named_parameters() if "ia3_l" in name}
    assert {name.split(".")[-2] for name in trained} == {"k_proj", "v_proj", "down_proj"}
    IA3.write(ours.network, tmp_path / "adapter", ours.family)
    again = open_folder(tmp_path / "base")
    load_adapter(again.network, tmp_path / "adapter", again.family, trainable=True)
    back = {name: scale for name, scale in again.network.named_parameters() if scale.requires_grad}
    assert back.keys() == trained.keys()
    assert all(torch.equal(scale, trained[name]) for name, scale in back.items())


def test_a_classifiers_head_is_kept_as_peft_keeps_it(tmp_path):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    import tiny_heads

    from lmworks.model.head_requests import SEQUENCE

    theirs = tiny_heads.make("bert", SEQUENCE)
    theirs.save_pretrained(tmp_path / "base")
    ours, ids = open_folder(tmp_path / "base"), torch.arange(3, 12)[None]
    IA3().apply(ours.network)
    trained = {name for name, own in ours.network.named_parameters() if own.requires_grad and "ia3_l" not in name}
    assert {name.split(".")[0] for name in trained} == {"heads", "pooler"}
    for own in ours.network.parameters():
        if own.requires_grad:
            own.data.add_(torch.randn(own.shape), alpha=0.2)
    IA3.write(ours.network, tmp_path / "adapter", ours.family)

    def answer(network: Transformer) -> torch.Tensor:
        return network.head_logits(network.config.heads[0].name, network.hidden_states(ids)[:, 0])

    plain = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base")
    opened = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    with torch.no_grad():
        expected = answer(ours.network.eval())
        torch.testing.assert_close(opened(ids).logits, expected, atol=1e-4, rtol=1e-4)
        again = open_folder(tmp_path / "base")
        load_adapter(again.network, tmp_path / "adapter", again.family)
        torch.testing.assert_close(answer(again.network.eval()), expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target_modules": ["c_attn"]}, "c_attn.*matches no linear"),
        ({"target_modules": ["k_proj"]}, "down_proj is not among ia3.target_modules"),
        ({"target_modules": ["k_proj"], "feedforward_modules": ["k_proj"]}, "k_proj reads the same input"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_hint_that_works(given, words):
    sizes = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    network = Transformer(ModelConfig(**sizes, num_attention_heads=4, max_position_embeddings=32))
    with pytest.raises(InputError, match=words) as caught:
        IA3(IA3Settings(**given)).apply(network)
    assert caught.value.place.startswith("ia3.")


def test_recurrent_layers_are_refused():
    network = Transformer(
        ModelConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, max_position_embeddings=32, layer="gru")
    )
    with pytest.raises(InputError, match=r"\(IA\)3 updates linears"):
        IA3().apply(network)


@pytest.fixture
def saved(tmp_path):
    _, ours = open_case("llama", tmp_path / "base")
    IA3().apply(ours.network)
    IA3.write(ours.network, tmp_path / "adapter", ours.family)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"a_key_of_tomorrow": 3}, "a_key_of_tomorrow"),
        ({"target_modules": ["k_proj", "v_proj", "down_proj", "up_proj"]}, "mlp.up_proj"),
    ],
)
def test_a_config_that_would_change_the_result_is_refused_by_name(saved, change, named):
    path = saved / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    opened = open_folder(saved / "base")
    with pytest.raises(InputError, match=named):
        load_adapter(opened.network, saved / "adapter", opened.family)


def test_tensors_that_do_not_fit_are_refused(saved):
    from safetensors.torch import load_file, save_file

    path = saved / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    first = sorted(tensors)[0]
    for changed, named in (
        ({name: tensor for name, tensor in tensors.items() if name != first}, "no tensors for"),
        (tensors | {"base_model.model.model.norm.weight": torch.ones(3)}, "unexpected tensor .*norm"),
        (tensors | {first: torch.ones(3, 2)}, "neither"),
        (tensors | {first: torch.ones(7, 1)}, "7 factors"),
        (tensors | {first.replace("_proj", "_x"): torch.ones(7, 1)}, "no linear of a llama"),
        ({}, "no tensors"),
    ):
        save_file(changed, path)
        opened = open_folder(saved / "base")
        with pytest.raises(InputError, match=named):
            load_adapter(opened.network, saved / "adapter", opened.family)
        assert not any("ia3_l" in name for name in opened.network.state_dict())


def test_in_bfloat16_a_small_factor_changes_the_weight_before_it_is_rounded():
    torch.manual_seed(0)
    base, x = nn.Linear(64, 32, bias=False), torch.randn(200, 64).bfloat16()
    for of_input in (False, True):
        adapter = ScaledLinear(base, of_input)
        with torch.autocast("cpu", torch.bfloat16):
            before = adapter(x).float()
            adapter.ia3_l.data.fill_(1.001)  # less than half of the distance of two numbers near 1
            after = adapter(x)
        assert after.dtype == torch.bfloat16
        grown = float((after.detach().float() * before.detach()).sum() / before.detach().square().sum())
        assert 1.0005 < grown < 1.0015
