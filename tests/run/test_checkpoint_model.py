"""A run that has not finished opens as its best checkpoint: the weights that its result would have."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import save_questions, save_tiny, settings
from tiny_presets import save_text, small

import lmworks
from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.run.source import config_of, tokenizer_of

FIELDS = {"architecture", "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"}


def tuned(folder: Path, method: str) -> Path:
    values: dict[str, Any] = settings()
    data = {"source": str(save_questions(folder / "faq.jsonl")), **values.pop("data")}
    values["train"] |= {"steps": 6, "checkpoint_every": 2, "evaluate_every": 2, "learning_rate": 0.05}
    model = str(save_tiny(folder / "tiny"))
    return lmworks.tune(model, data, method=method, out=folder / "run", **values).folder


def check(run: Path, expected: Any) -> None:
    """What remains of the run when it is stopped just before its end gives the result's logits."""
    ids = torch.tensor([[5, 9, 30, 7]])
    with torch.no_grad():
        wanted = expected.network(ids).logits
        shutil.move(run / "final", run.parent / "final")
        opened = lmworks.load(run)
        torch.testing.assert_close(opened.network(ids).logits, wanted, rtol=0, atol=0)
    assert any(f"lmworks resume {run}" in note for note in opened.notes)
    assert opened.input_format == expected.input_format
    assert not any(weight.requires_grad for weight in opened.network.parameters())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_tuned_model_before_its_end(tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = tuned(tmp_path, method)
    check(run, lmworks.load(run))
    assert main(["generate", str(run), "What is 2 and 2?", "--max-tokens", "3"]) == 0
    assert "has not finished; this is step" in capsys.readouterr().err
    opened = lmworks.load(run)
    saved = opened.save(tmp_path / "saved")
    question = {"max_tokens": 3, "temperature": 0}
    assert lmworks.load(saved).generate("What is", **question) == opened.generate("What is", **question)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match="no checkpoint yet") as caught:
        lmworks.load(run)
    assert f"lmworks resume {run}" in caught.value.hint


def test_a_new_model_before_its_end(tmp_path: Path) -> None:
    values = small("tinygpt")
    values["train"] |= {"steps": 6, "checkpoint_every": 2}
    run = lmworks.pretrain("tinygpt", str(save_text(tmp_path / "text.txt")), out=tmp_path / "run", **values).folder
    check(run, lmworks.load(run))


@pytest.mark.parametrize("method", ["lora", "full", "new"])
def test_every_command_opens_a_run_before_its_end(tmp_path: Path, method: str) -> None:
    if method == "new":
        values = small("tinygpt")
        values["train"] |= {"steps": 3, "checkpoint_every": 2}
        text = str(save_text(tmp_path / "text.txt"))
        run = lmworks.pretrain("tinygpt", text, out=tmp_path / "run", **values).folder
    else:
        run, text = tuned(tmp_path, method), str(tmp_path / "faq.jsonl")
    config, tokenizer = config_of(run), tokenizer_of(run)
    shutil.rmtree(run / "final")
    assert config_of(run).model_dump(include=FIELDS) == config.model_dump(include=FIELDS)
    assert tokenizer_of(run).core.to_str() == tokenizer.core.to_str()
    for words in (["data", "show", str(run), text], ["tokenizer", "show", str(run), "What"], ["next", "W", "--model"]):
        assert main([*words, str(run)] if words[-1] == "--model" else words) == 0
    with pytest.raises(InputError, match="base cannot be chosen"):
        tokenizer_of(run, base="elsewhere")
    with pytest.raises(InputError, match="has not finished") as caught:
        lmworks.plan(str(run), text)
    assert f"lmworks save {run} FOLDER" in caught.value.hint
    assert main(["save", str(run), str(tmp_path / "saved")]) == 0
    assert lmworks.plan(str(tmp_path / "saved"), text, train={"steps": 1}).seconds["total"] > 0


def test_a_new_head_before_its_end_is_refused(tmp_path: Path) -> None:
    """Its labels are the rows', not the recipe's: it would be left out without a word."""
    rows = [{"text": f"a line {n}", "label": "even" if n % 2 == 0 else "odd"} for n in range(30)]
    values: dict[str, Any] = settings()
    values["train"] |= {"steps": 4, "checkpoint_every": 2, "evaluate_every": 2}
    data = {"source": rows, **values.pop("data")}
    model = str(save_tiny(tmp_path / "tiny"))
    run = lmworks.tune(model, data, task={"name": "classify"}, out=tmp_path / "run", **values).folder
    shutil.rmtree(run / "final")
    with pytest.raises(InputError, match="new head cannot be opened") as caught:
        lmworks.load(run)
    assert f"lmworks resume {run}" in caught.value.hint


@pytest.mark.parametrize("source", [None, 5, b"folder"])
def test_what_names_no_model_is_refused(source):
    with pytest.raises(InputError, match="names no model"):
        lmworks.load(source)
