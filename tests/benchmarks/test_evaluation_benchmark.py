"""The benchmark of multiple-choice questions: its questions, its scores of a tiny model, what it concludes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import arms
import evaluation
import numpy as np
import pytest
from tiny_model import save_tiny

pytest.importorskip("lm_eval", reason="needs lm-eval (pip install 'lmworks[lm-eval]')")


def test_questions_are_made_or_read(tmp_path: Path) -> None:
    made = evaluation.from_documentation(50)
    assert made == evaluation.from_documentation(50)
    assert len({question.text for question in made}) == 50
    assert {question.answer for question in made} == set(range(evaluation.CHOICES))
    rows = [{"query": question.text, "choices": list(question.choices), "gold": question.answer} for question in made]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert evaluation.from_file(file) == made


def test_the_arms_score_the_same_requests_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "tiny", context=512)
    monkeypatch.setattr(arms, "reference_folder", lambda: folder)
    questions = evaluation.from_documentation(6)
    names = {"lm-eval hf float32, batch 4": "hf,float32,4", "lmworks float32 native": "native,float32"}
    names |= {"lmworks float32 torch": "torch,float32"}
    figures = {name: evaluation.run(arm, questions, tmp_path / f"{name}.npy") for name, arm in names.items()}
    assert len({own["accuracy"] for own in figures.values()}) == 1
    differences = evaluation.differences_of(list(names), tmp_path)
    assert all(difference < 1e-3 for difference in differences.values())
    assert max(np.abs(np.load(tmp_path / f"{name}.npy")).max() for name in names) > 1


def rounds(**seconds: float) -> dict[str, list[dict[str, float]]]:
    return {name: [{"tokens_per_second": 100 / own}] for name, own in seconds.items()}


def test_the_best_of_each_side_is_compared() -> None:
    measured = rounds(
        **{"lmworks float32 native": 2, "lmworks float32 torch": 4, "lmworks bfloat16 native": 1},
        **{"lm-eval hf float32, batch 8": 10, "lm-eval hf float32, batch 16": 7, "lm-eval hf bfloat16, batch 8": 2},
    )
    in_float32, in_all, apart = evaluation.verdicts_of(measured, {"lmworks float32 native": 5e-4, "lmworks x": 1.0})
    assert (in_float32.measured, in_float32.reached) == (3.5, True)
    assert (in_all.measured, in_all.reached) == (2.0, False)
    assert apart.reached
    missing = evaluation.verdicts_of(rounds(**{"lmworks float32 native": 2}), {})
    assert [line.reached for line in missing] == [None, None]


def test_batch_sizes_far_behind_the_best_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"hf,float32,8": 100.0, "hf,float32,16": 95.0, "hf,float32,32": 50.0}
    monkeypatch.setattr(arms, "worth_running", lambda precision: precision == "float32")

    def take_turns(script: str, parts: dict[str, list[str]], rounds: int) -> dict[str, list[dict[str, float]]]:
        return {name: [{"tokens_per_second": speeds.get(words[1], 300.0)}] for name, words in parts.items()}

    monkeypatch.setattr(arms, "take_turns", take_turns)
    options = SimpleNamespace(batch_sizes=(8, 16, 32), questions=4, data=None, rounds=3)
    counts = {name: len(own) for name, own in evaluation.measured(options, tmp_path).items()}
    assert counts == {
        "lmworks float32 native": 3,
        "lmworks float32 torch": 3,
        "lm-eval hf float32, batch 8": 3,
        "lm-eval hf float32, batch 16": 3,
        "lm-eval hf float32, batch 32": 1,
    }
