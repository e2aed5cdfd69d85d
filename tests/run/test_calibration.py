"""A model calibrated by rows of a user: what is read, what is reported, what is refused; the real model in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_model import save_questions, save_tiny
from tiny_tokenizers import CHATML, byte_level

import lmworks
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.base.errors import InputError
from lmworks.calibrate.gptq import quantize_matrix
from lmworks.calibrate.inputs import record_inputs
from lmworks.calibrate.network import block_calls
from lmworks.calibrate.scaling import output_error
from lmworks.data.packing import pack
from lmworks.families.folder import save_folder
from lmworks.families.registry import FAMILIES
from lmworks.language_model.model import LanguageModel
from lmworks.model.config import ModelConfig
from lmworks.model.four_bit_blocks import four_bit_blocks
from lmworks.model.initialization import draw
from lmworks.model.rounding_rules import RULES, q4_0
from lmworks.model.sizes import linears
from lmworks.model.stored_layers import store, stored_layers
from lmworks.model.surgery import named_linears
from lmworks.model.transformer import Transformer
from lmworks.run import calibration, requantization
from lmworks.run.calibration import calibration_examples, quantize_model
from lmworks.text.rows import DataSettings

TEXT = "The model reads these rows, and what its linears read is added up. " * 8
IDS = torch.arange(1, 41).view(2, 20)


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_level(CHATML, end_ids=[4])
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    network = Transformer(config)
    draw(network, torch.Generator().manual_seed(0))
    return save_folder(tmp_path_factory.mktemp("model") / "tiny", network, config, FAMILIES["llama"], tokenizer)


@pytest.fixture(name="model")
def _model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setattr(requantization, "GENERAL_BYTES", 2000)
    return lmworks.load(folder)


def save_lines(path: Path, text: str = TEXT) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("block_kind", ["Q4_0", "Q4_1"])
def test_a_report_says_what_was_read_and_what_it_cost(model: LanguageModel, tmp_path: Path, block_kind: str) -> None:
    done: list[tuple[int, int]] = []
    before = requantization.measure_loss(model, lambda: None)
    report = quantize_model(
        model, "q4-calibrated", save_lines(tmp_path / "text.txt"), block_kind=block_kind,
        progress=lambda *counts: done.append(counts),
    )  # fmt: skip
    assert done == [(1, 2), (2, 2)]
    assert report.matrices == len(linears(model.config)) == len(list(stored_layers(model.network)))
    assert report.tokens == sum(example.size for example in calibration_examples(model, tmp_path / "text.txt"))
    assert report.rows == -(-report.tokens // model.config.max_position_embeddings)  # chunks of the model's context
    assert report.bytes_after < 0.6 * report.bytes_before
    assert report.loss is not None
    assert before is not None
    assert report.loss.before == before.before
    assert report.loss.after == pytest.approx(report.loss.before, rel=0.1)
    assert report.loss.after != report.loss.before
    with torch.no_grad():
        logits = model.network(IDS).logits
        saved = lmworks.load(model.save(tmp_path / "saved")).network(IDS).logits
    torch.testing.assert_close(saved, logits, rtol=1e-4, atol=1e-4)


def test_an_adapter_is_merged_first(model: LanguageModel, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        base = model.network.eval()(IDS).logits
        LoRA(LoRASettings(rank=2)).apply(model.network)
        for name, parameter in model.network.named_parameters():
            if "lora_B" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        exact = model.network.eval()(IDS).logits
        quantize_model(model, "q4-calibrated", save_lines(tmp_path / "text.txt"))
        found = model.network(IDS).logits
    assert len(list(stored_layers(model.network))) == len(linears(model.config))
    assert (found - exact).square().sum() < 0.3 * (found - base).square().sum()


def test_rows_are_read_as_in_training(model: LanguageModel, tmp_path: Path) -> None:
    rows = save_questions(tmp_path / "faq.jsonl")
    examples = calibration_examples(model, rows)
    assert len(examples) == 60
    text = model.tokenizer.decode(examples[3].ids.tolist(), skip_special=False)
    assert "What is" in text
    assert "<|im_start|>" in text
    few = calibration_examples(model, rows, tokens=sum(example.size for example in examples) // 4)
    assert 12 <= len(few) <= 15
    assert {example.place for example in few} < {example.place for example in examples}
    given = calibration_examples(model, [{"text": TEXT}], DataSettings(max_tokens=50))
    assert max(len(example.ids) for example in given) == 50
    conversations = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes, hello to you."}]
    conversations.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(6)))
    assert len(calibration_examples(model, conversations)) == 6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", "", "no usable row|empty"),
        ("blank.txt", " \n\n \n", "no usable row|empty|no text"),
        ("short.txt", "Only a few words.", "tokens of text"),
        ("tags.jsonl", json.dumps({"tokens": ["A", "b"], "tags": ["O", "O"]}) + "\n", "without a head"),
    ],
)
def test_rows_without_text_are_refused(
    model: LanguageModel, tmp_path: Path, name: str, content: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        quantize_model(model, "q4-calibrated", save_lines(tmp_path / name, content))
    assert name in caught.value.place
    assert caught.value.hint
    assert not list(stored_layers(model.network))


def test_models_and_kinds_that_cannot_be_calibrated_are_refused(model: LanguageModel, tmp_path: Path) -> None:
    data = save_lines(tmp_path / "text.txt")
    with pytest.raises(InputError, match="one of: q4-calibrated"):
        quantize_model(model, "q3", data)  # type: ignore[arg-type]
    odd = lmworks.load(save_tiny(tmp_path / "odd"))
    with pytest.raises(InputError, match="48 columns") as caught:
        quantize_model(odd, "q4-calibrated", data)
    assert caught.value.place == "layers.0.mlp.down_proj"


def examples_of(model: LanguageModel, tokens: int):
    return calibration_examples(model, "python-help", DataSettings(max_tokens=256), tokens)


def test_a_real_layer_is_nearer_than_with_the_nearest_levels(smollm2: Path) -> None:
    """On the inputs of the calibration; Q4_0, since the model comes in Q4_1, which would hold it exactly."""
    model = lmworks.load(smollm2)
    batches = pack(examples_of(model, 2000), 1024)
    with torch.no_grad():
        calls = block_calls(model.network, batches)
        block = model.network.layers[0]
        with record_inputs(dict(named_linears(block))) as recorded:
            for x, shared in calls:
                block(x, shared)
    for inputs in recorded:
        weight = torch.cat([block.get_submodule(name).weight.detach() for name in inputs.names])
        nearest = output_error(q4_0(weight).dequantized() - weight, inputs.products)
        found = quantize_matrix(weight, inputs.products, "Q4_0").dequantized()
        assert output_error(found - weight, inputs.products) < 0.8 * nearest, inputs.names


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_real_model_loses_less_than_with_the_nearest_levels(smollm2: Path) -> None:
    """Calibrated on documentation of modules, measured on documentation topics, of which the calibration has none."""
    nearest = lmworks.load(smollm2)

    def round_to_nearest() -> None:
        for linear in linears(nearest.config):
            rounded = RULES["Q4_0"](nearest.network.get_submodule(linear.name).weight)
            store(nearest.network, linear.name, four_bit_blocks(rounded.levels.flatten(1), rounded.scales[..., 0]))

    plain = requantization.measure_loss(nearest, round_to_nearest)
    assert plain is not None
    for scaling in (False, True):
        model = lmworks.load(smollm2)
        report = quantize_model(
            model, "q4-calibrated", "python-help", block_kind="Q4_0", scaling=scaling, tokens=16_384
        )
        assert report.loss is not None
        assert report.loss.before == pytest.approx(plain.before, rel=1e-4)
        added = report.loss.after - report.loss.before
        print(f"nearest {plain.after - plain.before:+.4f}, GPTQ {added:+.4f}, scaling {scaling}")
        assert added < 0.9 * (plain.after - plain.before)


def test_the_kinds_are_those_of_the_command() -> None:
    assert calibration.CALIBRATED_KINDS == ("q4-calibrated",)
