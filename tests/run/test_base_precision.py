"""Runs over frozen weights that are not float32: in bfloat16, and in a GGUF's own blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import save_questions, save_tiny, settings

from lmworks.adapt.adapters import adapters
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.language_model.opening import open_saved_model
from lmworks.model.stored_layers import StoredLinear, stored_bytes
from lmworks.run.api import tune
from lmworks.run.pipeline import resume


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_questions(tmp_path / "questions.jsonl")


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in RunFolder(folder).events("step")]


def run(model: Path, data: Path, out: Path, **train: object) -> Path:
    values = settings()
    values["train"] |= {"steps": 6, **train}
    return tune(str(model), {"source": str(data), **values.pop("data")}, out=out, **values).folder


def test_stored_weights_of_a_folder_train_as_they_are_bit_for_bit(model: Path, data: Path, tmp_path: Path) -> None:
    """They are float32 there."""
    plain = run(model, data, tmp_path / "plain")
    stored = run(model, data, tmp_path / "stored", base_precision="stored")
    assert losses(stored) == losses(plain)
    assert "base_precision: stored" in RunFolder(stored).recipe.read_text(encoding="utf-8")


def test_a_base_in_bfloat16_is_that_of_the_rounded_weights(model: Path, data: Path, tmp_path: Path) -> None:
    rounded = open_saved_model(model)
    for weight in rounded.network.parameters():
        weight.data = weight.data.bfloat16().float()
    rounded.save(tmp_path / "rounded")
    expected = run(tmp_path / "rounded", data, tmp_path / "plain")
    half = run(model, data, tmp_path / "half", base_precision="bfloat16")
    assert losses(half) == pytest.approx(losses(expected), abs=1e-6)
    assert losses(half) != losses(run(model, data, tmp_path / "exact"))


def test_a_run_over_bfloat16_that_was_killed_goes_on_bit_for_bit(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(model, data, tmp_path / "whole", base_precision="bfloat16", checkpoint_every=2)
    write = RunFolder.write

    def stop(self: RunFolder, event: str, **fields: object) -> object:
        if event == "step" and fields["step"] == 5:
            raise RuntimeError("killed")
        return write(self, event, **fields)

    monkeypatch.setattr(RunFolder, "write", stop)
    with pytest.raises(RuntimeError, match="killed"):
        run(model, data, tmp_path / "killed", base_precision="bfloat16", checkpoint_every=2)
    monkeypatch.setattr(RunFolder, "write", write)
    resume(tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(whole)


def test_an_adapter_opens_over_a_base_in_any_storage(model: Path, data: Path, tmp_path: Path) -> None:
    folder = run(model, data, tmp_path / "run", base_precision="bfloat16")
    stored = open_saved_model(folder, storage="bfloat16")
    assert not any("fingerprint" in note or "another" in note for note in stored.notes)
    assert all(isinstance(adapter.base, StoredLinear) for _, adapter in adapters(stored.network))
    plain = sum(
        weight.nbytes for name, weight in open_saved_model(model).network.named_parameters() if weight.dim() == 2
    )
    assert stored_bytes(stored.network) == plain / 2
    answers = [
        open_saved_model(folder, storage=storage).generate("What is 3 and 3?", max_tokens=4)
        for storage in (None, "stored")
    ]
    assert answers[0] == answers[1]


def test_only_frozen_weights_are_held_otherwise(model: Path, data: Path, tmp_path: Path) -> None:
    values = settings()
    values["train"] |= {"base_precision": "bfloat16"}
    with pytest.raises(InputError, match="trains the model's own weights") as refused:
        tune(str(model), {"source": str(data), **values.pop("data")}, method="full", out=tmp_path / "run", **values)
    assert "--method lora" in refused.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_gguf_keeps_its_blocks_where_memory_asks_for_it(smollm2: Path, data: Path, tmp_path: Path) -> None:
    values = settings()
    folders = []
    for budget in ("1GB", None):
        train = values["train"] | {"steps": 1, "memory": budget, "batch_size": 2}
        out = tmp_path / str(budget)
        folders.append(
            tune(
                str(smollm2),
                str(data),
                out=out,
                train=train,
                evaluate={"task_rows": 1, "max_tokens": 4, "general_bytes": 300, "samples": 0},
            ).folder
        )
    plans = [RunFolder(folder).events("start")[0]["plan"] for folder in folders]
    assert [plan["base_precision"] for plan in plans] == ["stored", "float32"]
    assert plans[0]["memory"]["weights"] < 0.3 * plans[1]["memory"]["weights"]
    assert losses(folders[0]) == pytest.approx(losses(folders[1]), abs=1e-5)
