"""lmworks export and lmworks quantize, as they are typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import QUESTIONS, save_questions, save_tiny, settings

import lmworks
from lmworks.commands import quantize
from lmworks.commands.export import PRECISIONS
from lmworks.commands.main import main
from lmworks.families.gguf_file import GGUFFile
from lmworks.language_model import export
from lmworks.language_model.opening import open_saved_model
from lmworks.run import requantization


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def _short_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requantization, "GENERAL_BYTES", 1000)


def test_the_commands_offer_what_can_be_written() -> None:
    assert set(PRECISIONS) == set(export.PRECISIONS)
    assert set(quantize.FORMATS) == {*export.QUANTIZED, quantize.CALIBRATED}


def test_export_and_what_is_printed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.gguf"
    assert main(["export", str(model), str(path), "--dtype", "float32"]) == 0
    printed = capsys.readouterr().out
    figures = printed.partition("bits per byte of Python's documentation topics ")[2].split()
    assert figures[0] == figures[2]  # float32 loses nothing
    assert "F32 (15)" in printed
    assert "decode speed" in printed
    assert f"{path}  " in printed
    assert main(["score", str(path), "The sky is blue."]) == 0
    assert "signature: backend:" in capsys.readouterr().out


def test_quantize_a_run_and_what_is_printed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = settings()
    values["train"] |= {"steps": 4}
    data = {"source": str(save_questions(tmp_path / "questions.jsonl")), **values.pop("data")}
    run = lmworks.tune(str(model), data, method="lora", out=tmp_path / "run", **values).folder
    path = tmp_path / "m.gguf"
    assert main(["quantize", str(run), str(path), "--to", "q8"]) == 0
    out, error = capsys.readouterr()
    assert "bits per byte of Python's documentation topics" in out
    assert "rows of 48 are not whole blocks of 32" in error
    assert "prompts" in error  # the run's form of prompts is not in the file
    assert GGUFFile(path).tensors["blk.0.attn_q.weight"].kind == "Q8_0"
    assert main(["chat", str(path), "--ask", "What is 1 and 1?", "--max-tokens", "3"]) == 0


def test_errors_name_the_place_and_a_hint(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.gguf"
    for words, fault in (
        (["export", str(model), str(tmp_path / "folder")], "ends in .gguf"),
        (["quantize", str(model), str(path), "--to", "tq1"], "whole blocks of 256"),
        (["quantize", str(model), str(path)], "--to"),
        (["quantize", str(model), str(path), "--to", "q3"], "q3"),
        (["export", str(tmp_path / "none"), str(path)], "none"),
        (["export", "eliza", str(path)], "no model"),
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert fault in error
        assert "hint:" in error
    assert not path.exists()
    assert main(["export", str(model), str(path)]) == 0
    capsys.readouterr()
    assert main(["export", str(model), str(path)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", str(model), str(path), "--overwrite"]) == 0


def test_models_without_a_network_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = tmp_path / "book.txt"
    book.write_text("the sky is blue and the sea is blue\n" * 200, encoding="utf-8")
    assert main(["pretrain", "ngram-3", str(book), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "m.gguf")]) == 2
    assert "n-gram" in capsys.readouterr().err


def test_more_bits_than_the_model_has_gain_nothing_which_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "model", intermediate_size=64)
    files = [str(tmp_path / f"{to}.gguf") for to in ("q4", "q8")]
    for source, file, to in ((str(model), files[0], "q4"), (files[0], files[1], "q8")):
        assert main(["quantize", source, file, "--to", to]) == 0
        assert ("nothing is gained" in capsys.readouterr().err) == (to == "q8")
    values = settings()
    values["train"] |= {"steps": 2}
    data = {"source": str(save_questions(tmp_path / "questions.jsonl")), **values.pop("data")}
    small = {"rank": 1, "target_modules": "q_proj"}
    run = lmworks.tune(files[0], data, method="lora", lora=small, out=tmp_path / "run", **values).folder
    capsys.readouterr()
    assert main(["quantize", str(run), str(tmp_path / "merged.gguf"), "--to", "q8"]) == 0
    assert "nothing is gained" not in capsys.readouterr().err  # more bits hold what the adapter has learned


def test_a_calibrated_file_is_nearer_to_the_model_than_a_rounded_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "model", intermediate_size=64)  # whole blocks
    rows = save_questions(tmp_path / "rows.jsonl")
    for to, data in (("q4_1", ()), ("q4-calibrated", ("--data", str(rows)))):
        assert main(["quantize", str(model), str(tmp_path / f"{to}.gguf"), "--to", to, *data]) == 0
        assert "Q4_1" in capsys.readouterr().out
    texts = [f"{row['prompt']} {row['completion']}" for row in QUESTIONS]
    scored = [
        open_saved_model(source).score(texts)
        for source in (model, tmp_path / "q4_1.gguf", tmp_path / "q4-calibrated.gguf")
    ]
    exact, rounded, calibrated = (np.array([score.nats for score in scores]) for scores in scored)
    assert np.abs(calibrated - exact).mean() < np.abs(rounded - exact).mean()


@pytest.mark.parametrize("options", [["--to", "q4-calibrated"], ["--to", "q4", "--data", "rows.jsonl"]])
def test_rows_and_a_calibration_belong_together(
    options: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", str(model), str(tmp_path / "out.gguf"), *options]) != 0
    assert "--to q4-calibrated --data FILE" in capsys.readouterr().err
