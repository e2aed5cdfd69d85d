"""Runs over a base in NF4 or int8: asked for by either name, opened as they were trained, merged, quantized again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_model import save_questions, save_tiny, settings

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.commands.main import main
from lmworks.language_model.opening import open_saved_model
from lmworks.model.blockwise import BlockwiseStorage
from lmworks.model.quantization import quantization_of, quantize
from lmworks.model.stored_layers import stored_layers
from lmworks.run import requantization
from lmworks.run.evaluation import general_pieces

IDS = torch.arange(1, 15).reshape(2, 7)


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    return save_questions(tmp_path / "questions.jsonl")


def run(model: Path, data: Path, out: Path, method: str = "qlora", **changes: dict) -> Path:
    values = settings()
    values["train"] |= {"steps": 6, "learning_rate": 1e-2, **changes.pop("train", {})}
    given = {"source": str(data), **values.pop("data")}
    return lmworks.tune(str(model), given, method=method, out=out, **values, **changes).folder


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in RunFolder(folder).events("step")]


def logits(model: lmworks.LanguageModel | Path | str) -> torch.Tensor:
    network = (model if hasattr(model, "network") else lmworks.load(model)).network
    with torch.no_grad():
        return network(IDS).logits


@pytest.mark.parametrize("quant_type", ["nf4", "int8"])
def test_both_names_are_the_same_run(model: Path, data: Path, tmp_path: Path, quant_type: str) -> None:
    by_method = run(model, data, tmp_path / "method", qlora={"quant_type": quant_type})
    by_setting = run(model, data, tmp_path / "setting", "lora", train={"base_precision": quant_type})
    assert losses(by_method) == losses(by_setting)
    assert losses(by_method) != losses(run(model, data, tmp_path / "plain", "lora"))
    for folder in (by_method, by_setting):
        started = RunFolder(folder).events("start")[0]
        assert started["plan"]["base_precision"] == quant_type
        record = json.loads((folder / "final" / "lmworks_base.json").read_text())
        assert record["base_quant_type"] == quant_type
        assert "adapter_model.safetensors" in {path.name for path in (folder / "final").iterdir()}


def test_losses_are_near_those_of_lora(model: Path, data: Path, tmp_path: Path) -> None:
    plain = losses(run(model, data, tmp_path / "plain", "lora"))
    assert losses(run(model, data, tmp_path / "nf4")) == pytest.approx(plain, rel=0.02)
    int8 = run(model, data, tmp_path / "int8", qlora={"quant_type": "int8"})
    assert losses(int8) == pytest.approx(plain, rel=0.005)


def test_a_run_opens_as_it_was_trained(model: Path, data: Path, tmp_path: Path) -> None:
    trained = lmworks.tune(
        str(model), {"source": str(data), "held_out": 8}, method="qlora", out=tmp_path / "run",
        train={"steps": 4, "learning_rate": 1e-2, "precision": "float32"}, evaluate={"task_rows": 2, "max_tokens": 2},
    )  # fmt: skip
    opened = lmworks.load(trained.folder)
    torch.testing.assert_close(logits(opened), logits(trained.model), rtol=0, atol=1e-6)
    assert [note for note in opened.notes if "quantized" in note]
    assert not [note for note in opened.notes if "another" in note]
    assert quantization_of(opened.network) == "nf4"
    assert not list(stored_layers(opened.network))
    stored = open_saved_model(trained.folder, storage="stored")
    assert any(isinstance(layer.storage, BlockwiseStorage) for _, layer in stored_layers(stored.network))
    torch.testing.assert_close(logits(stored), logits(opened), rtol=0, atol=1e-6)
    half = open_saved_model(trained.folder, dtype="bfloat16")
    assert {weight.dtype for name, weight in half.network.named_parameters() if "lora" not in name} == {torch.bfloat16}
    saved = lmworks.load(trained.folder).save(tmp_path / "merged")
    torch.testing.assert_close(logits(saved), logits(opened), rtol=0, atol=1e-5)


def test_peft_opens_the_adapter_on_the_base(model: Path, data: Path, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    folder = run(model, data, tmp_path / "run") / "final"
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(model), folder).eval()
    ours = open_saved_model(model)
    lmworks.adapt.registry.load_adapter(ours.network, folder, ours.family)
    with torch.no_grad():
        torch.testing.assert_close(logits(ours), theirs(IDS).logits, rtol=0, atol=1e-4)


def test_a_killed_run_goes_on_bit_for_bit(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(model, data, tmp_path / "whole", train={"checkpoint_every": 2})
    write = RunFolder.write

    def stop(self: RunFolder, event: str, **fields: object) -> object:
        if event == "step" and fields["step"] == 5:
            raise RuntimeError("killed")
        return write(self, event, **fields)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write", stop)
        with pytest.raises(RuntimeError, match="killed"):
            run(model, data, tmp_path / "killed", train={"checkpoint_every": 2})
    unfinished = lmworks.load(tmp_path / "killed")
    assert quantization_of(unfinished.network) == "nf4"
    lmworks.resume(tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(whole)


def test_what_does_not_fit_together_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="qlora holds the model's own weights in nf4") as refused:
        run(model, data, tmp_path / "run", train={"base_precision": "bfloat16"})
    assert "--method lora" in refused.value.hint
    assert losses(run(model, data, tmp_path / "lora", "lora", train={"base_precision": "bfloat16", "steps": 1}))
    with pytest.raises(InputError, match="trains the model's own weights"):
        run(model, data, tmp_path / "run", "full", train={"base_precision": "nf4"})
    with pytest.raises(InputError) as refused:
        run(model, data, tmp_path / "run", qlora={"target_modules": "nothing"})
    assert refused.value.place == "qlora.target_modules"
    with pytest.raises(InputError) as refused:
        run(model, data, tmp_path / "run", qlora={"bits": 4})
    assert "--qlora.quant_type" in refused.value.hint
    assert not (tmp_path / "run").exists()


def test_an_unknown_quantization_of_the_base_is_an_error(model: Path, data: Path, tmp_path: Path) -> None:
    record = run(model, data, tmp_path / "run") / "final" / "lmworks_base.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"base_quant_type": "fp3"}))
    with pytest.raises(InputError, match="base_quant_type is 'fp3'"):
        lmworks.load(tmp_path / "run")


def test_merged_and_quantized_again_it_says_what_that_costs(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requantization, "GENERAL_BYTES", 2000)
    folder = run(model, data, tmp_path / "run")
    capsys.readouterr()
    assert main(["save", str(folder), str(tmp_path / "plain")]) == 0
    assert main(["save", str(folder), str(tmp_path / "nf4"), "--quantize", "nf4"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "bits per byte" in line)
    merged = lmworks.load(tmp_path / "plain")
    quantize(merged.network, "nf4")
    torch.testing.assert_close(logits(tmp_path / "nf4"), logits(merged), rtol=0, atol=1e-5)
    name, texts = general_pieces(None, 2000)
    figures = []
    for place in ("plain", "nf4"):
        scores = lmworks.load(tmp_path / place).score(texts)
        nats, size = sum(score.nats for score in scores), sum(score.bytes for score in scores)
        figures.append(f"{nats / size / torch.log(torch.tensor(2.0)).item():.4g}")
    assert f"bits per byte of {name} {figures[0]} -> {figures[1]}" in line
