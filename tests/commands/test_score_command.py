"""lmworks score: perplexity and bits of texts, windows in the signature; two models are compared by lmworks metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from damaged_texts import sentences
from tiny_model import save_tiny

from lmworks.commands.main import main

TEXTS = sentences(12)


@pytest.fixture(scope="module", name="models")
def _models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [save_tiny(folder / f"model{seed}", seed=seed, context=64) for seed in (0, 1)]


def scored(capsys, model: Path, *words: str) -> list[dict]:
    assert main(["score", str(model), "--backend", "torch", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_figures_follow_from_nats(models: list[Path], capsys) -> None:
    (row,) = scored(capsys, models[0], TEXTS[0])
    assert row["perplexity"] == pytest.approx(math.exp(row["nats"] / row["tokens"]))
    assert row["bits_per_byte"] == pytest.approx(row["nats"] / math.log(2) / row["bytes"])
    assert row["bits_per_character"] == pytest.approx(row["nats"] / math.log(2) / row["characters"])
    assert main(["score", str(models[0]), "--backend", "torch", *TEXTS[:2]]) == 0
    out = capsys.readouterr().out
    assert f"{row['perplexity']:.5g}" in out
    assert f"{row['bits_per_character']:.4f}" in out
    assert "(all)" in out


def test_windows_stand_in_the_signature_of_long_texts(models: list[Path], capsys) -> None:
    text = " ".join(TEXTS[:3])
    signatures = [
        scored(capsys, models[0], text, *words)[0]["signature"]
        for words in ((), ("--stride", "8"), ("--context", "32", "--stride", "8"))
    ]
    windows = [signature.partition("|context:")[2] for signature in signatures]
    assert windows == ["64|stride:32", "64|stride:8", "32|stride:8"]
    assert "context" not in scored(capsys, models[0], "short")[0]["signature"]
    assert main(["score", str(models[0]), "--backend", "torch", "--stride", "64", text]) == 2
    assert "--stride: windows of 64 tokens that advance by 64" in capsys.readouterr().err


def test_two_models_are_compared_on_the_same_texts(models: list[Path], tmp_path: Path, capsys) -> None:
    for number, model in enumerate(models):
        (tmp_path / f"{number}.json").write_text(json.dumps(scored(capsys, model, *TEXTS)))
    words = ["metrics", str(tmp_path / "0.json"), "--baseline", str(tmp_path / "1.json"), "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert [each["metric"] for each in result["scores"]] == ["perplexity", "bits_per_byte", "bits_per_character"]
    for each in result["scores"]:
        assert each["interval"][0] < each["value"] < each["interval"][1]
        assert "scored:backend:torch" in each["signature"]
        assert each["difference"]["test"] == "bootstrap"
    rows = json.loads((tmp_path / "0.json").read_text())
    sums = [sum(row[name] for row in rows) for name in ("nats", "tokens")]
    assert result["scores"][0]["value"] == pytest.approx(math.exp(sums[0] / sums[1]))
