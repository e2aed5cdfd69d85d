"""What a run's bits depend on is chosen once, kept in its folder, and the same when it is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmworks.adapt.registry import make
from lmworks.base.journal import RunFolder
from lmworks.kernels.matmul import available
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer
from lmworks.train import arithmetic
from lmworks.train.arithmetic import evaluation_shapes, product_shapes
from lmworks.train.hooks import Hooks
from lmworks.train.loop import train
from lmworks.train.settings import TrainSettings


def network(hidden_size: int) -> Transformer:
    return Transformer(
        ModelConfig(
            vocab_size=300,
            hidden_size=hidden_size,
            intermediate_size=3 * hidden_size,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
    )


def test_shapes_are_those_of_linears_low_rank_terms_and_the_head() -> None:
    model = network(640)
    make("lora").apply(model)
    shapes = {str(shape) for shape in product_shapes(model, "float32", 512)}
    assert "float32 forward 640 640 512" in shapes
    assert "float32 input_gradient 640 1920 512" in shapes
    assert "float32 weight_gradient 640 16 512" in shapes  # A of LoRA terms; ranks up to 16 are one class
    assert "float32 weight_gradient 640 64 512" in shapes  # A of q, k and v together
    assert not any("weight_gradient 640 640" in shape for shape in shapes)  # frozen
    assert any(" 640 300 " in shape for shape in shapes)
    assert not any(shape.endswith("1024") for shape in shapes if " 300 " not in shape)  # longer than a row
    assert product_shapes(network(16), "float32", 512) == set()
    wider = {str(shape) for shape in product_shapes(network(640), "float32", 768)}
    assert "float32 forward 640 1920 1024" in wider  # of rows of 513 to 768 tokens


def test_evaluation_has_shapes_of_whole_rows_and_of_generated_tokens() -> None:
    shapes = {str(shape) for shape in evaluation_shapes(network(640))}
    assert evaluation_shapes(network(160)) == set()
    assert {f"float32 forward 640 1920 {tokens}" for tokens in (16, 128, 512, 1024)} <= shapes
    assert {shape.split()[4] for shape in shapes if " 640 300 " in shape} == {"128", "512"}  # 256 logits at a time
    assert all(" forward " in shape for shape in shapes)


def test_a_resumed_run_multiplies_as_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_network, make_examples
) -> None:
    chosen = {"float32 forward 64 64 128": available("float32")[-1]}
    monkeypatch.setattr(arithmetic, "training_providers", lambda *_: chosen)
    settings = TrainSettings(steps=6, batch_size=4, learning_rate=1e-2, checkpoint_every=2, precision="float32")
    examples = make_examples()
    whole, first, second = make_network(), make_network(), make_network()
    train(whole, examples, settings, RunFolder.create(tmp_path / "whole", ""), Hooks(quiet=True))
    run = RunFolder.create(tmp_path / "run", "")
    monkeypatch.setattr("lmworks.train.loop._Training._report_step", _stopping_after(4))
    with pytest.raises(KeyboardInterrupt):
        train(first, examples, settings, run, Hooks(quiet=True))
    monkeypatch.undo()
    monkeypatch.setattr(arithmetic, "training_providers", lambda *_: pytest.fail("measured again"))
    train(second, examples, settings, run, Hooks(quiet=True))
    assert [event["providers"] for event in run.events("session")] == [chosen, chosen]
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_another_machine_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_network, make_examples, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrainSettings(steps=4, batch_size=4, learning_rate=1e-2, checkpoint_every=2, precision="float32")
    run = RunFolder.create(tmp_path / "run", "")
    monkeypatch.setattr("lmworks.train.loop._Training._report_step", _stopping_after(3))
    with pytest.raises(KeyboardInterrupt):
        train(make_network(), make_examples(), settings, run)
    monkeypatch.undo()
    monkeypatch.setattr("lmworks.train.loop.processor.identity", lambda: "another processor")
    capsys.readouterr()
    train(make_network(), make_examples(), settings, run)
    output = "".join(capsys.readouterr())
    assert "other machine than before (another processor; before: " in output.replace("\n", " ")
    assert "kernels than before" not in output


def _stopping_after(step: int):
    from lmworks.train.loop import _Training

    original = _Training._report_step

    def report(self, *values) -> None:
        original(self, *values)
        if self.step == step:
            raise KeyboardInterrupt

    return report
