"""Classifiers are compared on the same rows, by the same recipe, and judged by what was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import arms
import classifier_arms
import classifier_work as work
import classifiers
import pytest
from tiny_presets import save_text, small

import lmworks
from lmworks.base.settings import merge

ROWS = [(f"a cat number {n} sat", "animal") if n % 2 else (f"the moon of night {n}", "sky") for n in range(40)]


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> str:
    path = tmp_path / "messages.tsv"
    path.write_text("".join(f"{label}\t{text}\n" for text, label in ROWS), encoding="utf-8")
    return str(path)


def arm(seconds: float, peak: float, right: list[float]) -> dict[str, Any]:
    shares = {"right": right, "of": [1.0] * len(right)}
    return {"train_s": seconds, "whole_s": seconds, "peak_gb": peak, "score": sum(right) / len(right), **shares}


def test_rows_are_divided_once_for_all_arms(file: str, tmp_path: Path) -> None:
    recipe = work.prepare("sms-spam", file, tmp_path / "work")
    train, held_out = work.training_rows(tmp_path / "work"), work.held_out_rows(tmp_path / "work")
    assert work.recipe_of(tmp_path / "work") == recipe
    assert (len(train), len(held_out), recipe.rows, recipe.steps) == (32, 8, 32, 2)
    assert sorted((row["text"], row["label"]) for row in train + held_out) == sorted(ROWS)
    fewer = work.prepare("sms-spam", file, tmp_path / "fewer", rows=10, epochs=3)
    assert (fewer.rows, fewer.steps, fewer.labels) == (8, 3, ["animal", "sky"])


def test_scores_of_rows() -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert work.scored(rows, ["x", "x"]) == {"right": [1.0, 0.0], "of": [1.0, 1.0]}
    tagged = [{"tokens": ["In", "Rome"], "tags": ["O", "B-place"]}, {"tokens": ["no"], "tags": ["O"]}]
    assert work.scored(tagged, [["O", "B-place"], ["B-place"]]) == {"right": [2.0, 0.0], "of": [2.0, 1.0]}


def test_judged_beside_the_fastest_peer_and_the_smallest() -> None:
    rounds = {
        "lmworks": [arm(10.0, 0.6, [1.0, 0.0] * 20)],
        "Trainer float32": [arm(30.0, 1.0, [1.0] * 40)],
        "Trainer bf16": [arm(14.0, 1.3, [0.0] * 40)],
    }
    score, speed, memory = classifiers.judged("x full", rounds, is_tagging=False)
    assert score.reached is False  # half of the rows wrong beside none
    assert (speed.measured, speed.reached) == (1.4, False)
    assert (memory.measured, memory.reached) == (0.6, False)
    rounds["lmworks"] = [arm(7.0, 0.5, [1.0] * 39 + [0.0])]
    score, speed, memory = classifiers.judged("x full", rounds, is_tagging=False)
    assert all(line.reached for line in (score, speed, memory))
    assert "right" not in classifiers.kept(rounds)["lmworks"][0]


def test_files_are_given_by_name(file: str) -> None:
    assert classifiers.given_files([f"sms-spam={file}"]) == {"sms-spam": file}
    for wrong in (f"sms={file}", "snli=nowhere.csv", "snli"):
        with pytest.raises(SystemExit, match="NAME=FILE"):
            classifiers.given_files([wrong])


def test_a_data_set_without_a_file_is_left_out(capsys: Any) -> None:
    assert classifiers.compare("model", {}, 1, ["snli"]) == ({}, [])
    assert "left out, no --data snli=FILE" in capsys.readouterr().out


def test_bfloat16_peer_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "bfloat16_is_faster", lambda: False)
    assert list(classifiers.arms_of("full")) == ["lmworks", "Trainer float32"]
    monkeypatch.setattr(arms, "bfloat16_is_faster", lambda: True)
    assert list(classifiers.arms_of("lora")) == ["lmworks", "Trainer + PEFT float32", "Trainer + PEFT bf16"]


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    data = {"source": str(save_text(folder / "text.txt")), "document": "paragraph", "held_out": 2}
    few = {"train": {"steps": 2, "evaluate_every": 2}}
    return str(lmworks.pretrain("tinybert", data, out=folder / "run", **merge(small("tinybert"), few)).folder / "final")


@pytest.mark.parametrize(("method", "is_tagging"), [("full", False), ("lora", False), ("lora", True)])
def test_both_arms_train_the_same_weights_on_the_same_rows(
    model: str, file: str, tmp_path: Path, method: str, is_tagging: bool
) -> None:
    pytest.importorskip("peft")
    if is_tagging:
        tagged = [
            "\n".join(f"{word} {tag}" for word, tag in zip(t.split(), ["O", "B-x"] * 9, strict=False)) for t, _ in ROWS
        ]
        Path(file).with_suffix(".conll").write_text("\n\n".join(tagged) + "\n", encoding="utf-8")
    name, source = ("wnut-17", str(Path(file).with_suffix(".conll"))) if is_tagging else ("sms-spam", file)
    recipe = work.prepare(name, source, tmp_path / "work", epochs=1)
    ours = classifier_arms.lmworks_arm(model, method, "float32", tmp_path / "work", 0)
    theirs = classifier_arms.trainer_arm(model, method, "float32", tmp_path / "work", 0)
    assert ours.keys() == theirs.keys()
    for key in ("steps", "tokens", "trained"):
        assert ours[key] == theirs[key] > 0
    assert recipe.steps == ours["steps"]
    assert len(ours["right"]) == len(theirs["right"]) == 8
