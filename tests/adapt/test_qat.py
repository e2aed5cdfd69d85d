"""Quantization-aware training: gradients pass through rounding, and what is saved is what a format holds."""

from __future__ import annotations

import gguf
import pytest
import torch
from tiny_model import save_questions, settings
from tiny_presets import save_text, small
from tiny_tokenizers import CHATML, byte_level
from torch import nn
from torch.nn import functional

import lmworks
from lmworks.adapt.qat import QAT, QATSettings
from lmworks.adapt.rounded_linear import RoundedLinear
from lmworks.base.errors import InputError
from lmworks.families.folder import save_folder
from lmworks.families.registry import FAMILIES
from lmworks.kernels.native_module import native_module
from lmworks.model.activation_memory import saved_activation_bytes
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.linear import Linear
from lmworks.model.rounding_rules import q4_0, ternary
from lmworks.model.sizes import linears
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer
from lmworks.run import recipe as recipes

SIZES = {"vocab_size": 90, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
IDS = torch.arange(1, 41).view(2, 20)
RULES = {"int4": q4_0, "ternary": ternary}
all_weights = pytest.mark.parametrize("weights", list(RULES))


def network(**changes: object) -> Transformer:
    result = Transformer(ModelConfig(**(SIZES | changes)))
    draw(result, torch.Generator().manual_seed(0))
    return result


def rounded_linear(weights: str, rounds_inputs: bool = False, bias: bool = True) -> RoundedLinear:
    base = Linear(64, 48, bias=bias)
    generator = torch.Generator().manual_seed(3)
    for parameter in base.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return RoundedLinear(base, weights, rounds_inputs)


@all_weights
@pytest.mark.parametrize("rounds_inputs", [False, True])
def test_outputs_are_those_of_rounded_weights_and_gradients_those_of_exact_ones(
    weights: str, rounds_inputs: bool
) -> None:
    linear = rounded_linear(weights, rounds_inputs)
    x = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    grad_y = torch.randn(2, 7, 48, generator=torch.Generator().manual_seed(2))
    y = linear(x)
    y.backward(grad_y)
    matrix = RULES[weights](linear.base.weight).dequantized().requires_grad_()
    read = x.detach()
    if rounds_inputs:
        scale = 127 / read.abs().amax(-1, keepdim=True)
        read = (read * scale).round() / scale
        assert not torch.equal(read, x.detach())
    read.requires_grad_()
    expected = functional.linear(read, matrix, linear.base.bias.detach())
    expected.backward(grad_y)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(linear.base.weight.grad, matrix.grad)
    torch.testing.assert_close(linear.base.bias.grad, grad_y.sum((0, 1)))
    torch.testing.assert_close(x.grad, read.grad)


def test_switched_off_it_multiplies_exactly() -> None:
    linear = rounded_linear("ternary", rounds_inputs=True)
    x = torch.randn(3, 64)
    exact = functional.linear(x, linear.base.weight, linear.base.bias)
    assert not torch.allclose(linear(x), exact, rtol=1e-2)
    linear.enabled = False
    torch.testing.assert_close(linear(x), exact)


@all_weights
def test_a_weight_that_is_kept_without_gradients_follows_every_change(weights: str) -> None:
    linear, x = rounded_linear(weights), torch.randn(3, 64)

    def check() -> torch.Tensor:
        expected = functional.linear(x, RULES[weights](linear.base.weight).dequantized(), linear.base.bias)
        with torch.no_grad():
            torch.testing.assert_close(linear(x), expected)
        return linear._kept.rounded

    assert check() is check()
    before = check()
    linear.base.weight.data.copy_(torch.randn(48, 64))  # as a checkpoint is restored
    assert check() is not before
    linear(x).sum().backward()
    assert linear._kept is None  # no copy of the weights stays beside training
    linear.base.weight.data -= 0.1
    assert check().dtype == torch.float32
    linear.base.weight.data = torch.randn(48, 64)
    check()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert linear(x).dtype == torch.bfloat16
    check()


@all_weights
def test_in_bfloat16_gradients_are_float32_and_near_those_of_float32(weights: str) -> None:
    gradients = []
    for enabled in (False, True):
        linear, x = rounded_linear(weights), torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = linear(x)
        assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
        y.float().square().sum().backward()
        gradients.append(linear.base.weight.grad)
    assert gradients[1].dtype == torch.float32
    assert (gradients[0] - gradients[1]).norm() < 0.03 * gradients[0].norm()


@all_weights
def test_merged_weights_are_rounded_and_are_not_changed_again(weights: str) -> None:
    own = network()
    method = QAT(QATSettings(weights=weights, inputs="exact"))
    method.apply(own, keep_base=True)
    expected = own.eval()(IDS).logits
    method.merge(own)
    torch.testing.assert_close(own(IDS).logits, expected, rtol=1e-5, atol=1e-5)
    merged = {linear.name: own.get_parameter(linear.weight_name).detach().clone() for linear in linears(own.config)}
    assert all(_is_held(weight, weights) for weight in merged.values())
    again = QAT(QATSettings(weights=weights, inputs="exact"))
    again.apply(own, keep_base=True)
    torch.testing.assert_close(own(IDS).logits, expected, rtol=1e-5, atol=1e-5)
    again.detach(own)
    assert all(torch.equal(own.get_parameter(f"{name}.weight"), weight) for name, weight in merged.items())


def _is_held(weight: torch.Tensor, weights: str) -> bool:
    """Whether the format holds a weight exactly: llama.cpp's own rounding gives it back."""
    if weights == "int4":
        return torch.equal(q4_0(weight).dequantized(), weight)
    kind = gguf.GGMLQuantizationType.TQ2_0
    padded = functional.pad(weight, (0, -weight.shape[1] % 256)).numpy()
    back = gguf.quants.dequantize(gguf.quants.quantize(padded, kind), kind)[:, : weight.shape[1]]
    return len(weight.abs().unique()) <= 2 and torch.equal(torch.from_numpy(back.copy()), weight)


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory):
    tokenizer = byte_level(CHATML, end_ids=[4])
    own = network(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    place = tmp_path_factory.mktemp("model") / "tiny"
    return save_folder(place, own, own.config, FAMILIES["llama"], tokenizer)


@all_weights
def test_a_run_learns_and_saves_rounded_weights(weights: str, folder, tmp_path) -> None:
    values = settings()
    values["train"] |= {"steps": 30, "learning_rate": 3e-3, "warmup": 0}
    data = {"source": str(save_questions(tmp_path / "faq.jsonl")), **values.pop("data")}
    run = lmworks.tune(str(folder), data, method="qat", out=tmp_path / "run", qat={"weights": weights}, **values)
    measures = {measure["key"]: measure for measure in run.card["measures"]}
    assert measures["held_out_loss"]["change"]["value"] < -0.5
    opened = lmworks.load(tmp_path / "run" / "final").network
    matrices = [opened.get_parameter(linear.weight_name).detach() for linear in linears(opened.config)]
    assert all(_is_held(weight, weights) for weight in matrices)
    loss = measures["held_out_loss"]["after"]["value"]
    assert not any(isinstance(module, RoundedLinear) for module in run.model.network.modules())
    again = lmworks.tune(
        str(tmp_path / "run"), data, method="qat", out=tmp_path / "again", qat={"weights": weights}, **values
    )
    before = {measure["key"]: measure for measure in again.card["measures"]}["held_out_loss"]["before"]["value"]
    assert before == pytest.approx(loss, rel=1e-5 if weights == "int4" else 0.02)  # with inputs that are exact


def test_ternary_weights_with_exact_inputs_are_near_those_with_rounded_ones() -> None:
    own = network().eval()
    method = QAT(QATSettings(weights="ternary"))
    method.apply(own, keep_base=True)
    with torch.no_grad():
        expected = own(IDS).logits
        method.merge(own)
        assert 0 < (own(IDS).logits - expected).square().sum() < 0.01 * expected.square().sum()


def test_a_network_in_training_is_prepared_with_rounded_weights(folder) -> None:
    model = lmworks.load(folder)
    QAT().apply(model.network)
    reply = model.generate("What is 3 and 3?", max_tokens=8)
    assert model.prepare("float32").generate("What is 3 and 3?", max_tokens=8) == reply


def test_linears_whose_columns_do_not_divide_are_refused_with_a_hint_that_works() -> None:
    own = network(intermediate_size=80)
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.down_proj has 80 columns") as caught:
        QAT().apply(own)
    assert not any(isinstance(module, RoundedLinear) for module in own.modules())
    option, names = caught.value.hint.split()
    assert (option, caught.value.place) == ("--qat.target_modules", "qat.target_modules")
    QAT(QATSettings(target_modules=names)).apply(own)
    rounded = {name.rpartition(".")[2] for name, module in own.named_modules() if isinstance(module, RoundedLinear)}
    assert rounded == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"}
    narrow = network(hidden_size=40, intermediate_size=40, head_dim=10)
    with pytest.raises(InputError, match="40 columns") as caught:
        QAT().apply(narrow)
    assert "--method full" in caught.value.hint


def test_what_cannot_be_rounded_is_refused() -> None:
    adapted = network()
    QAT().apply(adapted)
    with pytest.raises(InputError, match="an adapter already"):
        QAT().apply(adapted)
    recurrent = {"layer": "lstm", "intermediate_size": 64, "norm_position": "post", "positions": "none"}
    with pytest.raises(InputError, match="lstm layers have none"):
        QAT().apply(network(**recurrent, num_attention_heads=1, num_key_value_heads=None))


def test_inputs_follow_the_weights_unless_they_are_named() -> None:
    for weights, inputs, expected in (
        ("int4", "auto", False),
        ("ternary", "auto", True),
        ("int4", "int8", True),
        ("ternary", "exact", False),
    ):
        own = network()
        QAT(QATSettings(weights=weights, inputs=inputs)).apply(own)
        rounded = [module for module in own.modules() if isinstance(module, RoundedLinear)]
        assert {module.rounds_inputs for module in rounded} == {expected}
        assert len(rounded) == len(linears(own.config))


@pytest.mark.parametrize("inputs", ["exact", "int8"])
def test_memory_is_planned_for_blocks_that_run_module_by_module(inputs: str) -> None:
    if native_module() is None:
        pytest.skip("without the native kernels no block is fused")
    measured, planned = [], []
    for layers in (1, 3):
        own, method = network(num_hidden_layers=layers), QAT(QATSettings(inputs=inputs))
        trained = method.trained_parameters(own.config)
        method.apply(own)
        measured.append(saved_bytes(own))
        planned.append(saved_activation_bytes(own.config, (20, 20), (), None, trained.saved, native=True))
    ratio = (planned[1] - planned[0]) / (measured[1] - measured[0])
    assert 1.0 <= ratio < 1.4  # an exact input that several linears share is counted for each


def saved_bytes(own: Transformer) -> int:
    """Bytes that autograd holds after a forward pass, besides parameters."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in own.parameters()}
    sizes: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            kept.append(tensor)
        return tensor

    kept: list[torch.Tensor] = []  # so that no address is used twice
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        hidden = own.hidden_states(IDS)
    assert hidden.requires_grad
    return sum(sizes.values())


def test_a_note_names_linears_that_tq2_0_cannot_hold() -> None:
    config = ModelConfig(**(SIZES | {"hidden_size": 256}))
    (note,) = QAT(QATSettings(weights="ternary")).notes(config)
    assert note.startswith("columns of 2 linears are no multiple of 256 (first: layers.0.mlp.down_proj)")
    assert QAT(QATSettings(weights="int4")).notes(config) == []
    assert QAT(QATSettings(weights="ternary")).notes(config.model_copy(update={"intermediate_size": 512})) == []


def test_the_preset_of_bitnet_trains_ternary_weights(tmp_path) -> None:
    recipe = recipes.from_preset("bitnet-4m", {"data": "-"})
    assert (recipe.method, recipe.qat.weights) == ("qat", "ternary")
    assert all(linear.inputs % 256 == 0 for linear in linears(recipe.model.config(2048)))
    assert recipe.adaptation.notes(recipe.model.config(2048)) == []
    values = small("llama-1m")
    values["train"] |= {"steps": 12}
    run = lmworks.pretrain("bitnet-4m", str(save_text(tmp_path / "text.txt")), out=tmp_path / "run", **values)
    opened = lmworks.load(run.folder).network
    names = [name for name, _ in named_linears(opened) if name.startswith("layers.")]
    assert len(names) == 7
    for name in names:
        weight = opened.get_parameter(f"{name}.weight")
        assert len(weight.abs().unique()) == 2, name
        assert isinstance(opened.get_submodule(name), nn.Linear)


def test_options_of_the_command_line_are_read() -> None:
    recipe = recipes.resolve({"model": "m", "data": "d", "method": "qat", "qat": {"target_modules": "q_proj,v_proj"}})
    assert recipe.qat.target_modules == ["q_proj", "v_proj"]
    assert recipe.adaptation.base_precision == "auto"
    with pytest.raises(InputError, match=r"qat\.weights"):
        recipes.resolve({"model": "m", "data": "d", "method": "qat", "qat": {"bits": 4}})
