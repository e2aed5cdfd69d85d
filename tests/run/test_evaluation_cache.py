"""An evaluation before training is taken from an earlier run where everything that it depends on is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import QUESTIONS, save_questions, save_tiny, settings

import lmworks
from lmworks.base.journal import RunFolder
from lmworks.reports import card
from lmworks.run import evaluation_cache
from lmworks.run.evaluation import Evaluation


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lmworks.run.setup.is_small", lambda config: False)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each evaluation that is measured."""
    calls: list[str] = []
    original = Evaluation.run

    def measure(evaluation: Evaluation):
        calls.append("measured")
        return original(evaluation)

    monkeypatch.setattr(Evaluation, "run", measure)
    return calls


def run(model: Path, data: Path, out: Path, **evaluate: object) -> list[dict]:
    """The events of a run, without what differs in every run."""
    values = settings()
    given = {"source": str(data), **values.pop("data")}
    values["evaluate"] = {**values.get("evaluate", {}), **evaluate}
    values["train"]["steps"] = 2
    folder = lmworks.tune(str(model), given, out=out, **values).folder
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    kinds = ("samples", "evaluation", "step")
    return [
        {name: value for name, value in event.items() if name not in ("time", "seconds")}
        for event in events
        if event["event"] in kinds
    ]


def test_a_second_run_measures_only_after_training_and_has_the_same_figures(
    model: Path, tmp_path: Path, measured: list[str]
) -> None:
    data = save_questions(tmp_path / "faq.jsonl")
    first = run(model, data, tmp_path / "first")
    assert len(measured) == 2
    moved = data.rename(tmp_path / "moved.jsonl")  # the rows count, not their place
    second = run(model, moved, tmp_path / "second")
    assert len(measured) == 3
    before = next(event for event in second if event["event"] == "evaluation")
    assert before.pop("is_cached")  # recorded with the run, and said on its card
    assert second == first
    assert any("an earlier run" in note for note in card.build(tmp_path / "second")["run"]["notes"])
    assert not any("an earlier run" in note for note in card.build(tmp_path / "first")["run"]["notes"])
    assert RunFolder(tmp_path / "second").events("start")[0]["plan"]["seconds"]["before"] == 0


def test_what_differs_is_measured(model: Path, tmp_path: Path, measured: list[str], monkeypatch) -> None:
    data = save_questions(tmp_path / "faq.jsonl")
    run(model, data, tmp_path / "first")
    changes = [
        (model, data, {"max_tokens": 3}),
        (model, data, {"reuse": False}),
        (save_tiny(tmp_path / "other", seed=1), data, {}),
        (model, save_questions(tmp_path / "fewer.jsonl", QUESTIONS[:40]), {}),
    ]
    for number, (other, rows, evaluate) in enumerate(changes):
        measured.clear()
        run(other, rows, tmp_path / str(number), **evaluate)
        assert len(measured) == 2, number
    measured.clear()
    with monkeypatch.context() as patch:
        patch.setattr("lmworks.kernels.native_module.describe", lambda: "none: LMWORKS_KERNELS is off")
        run(model, data, tmp_path / "pytorch")
    assert len(measured) == 2
    measured.clear()
    monkeypatch.setattr(evaluation_cache, "_package_files", lambda: [("model/block.py", 1, 2)])
    run(model, data, tmp_path / "code")
    assert len(measured) == 2


def test_a_damaged_file_and_a_cache_that_cannot_be_written_are_measured(
    model: Path, tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save_questions(tmp_path / "faq.jsonl")
    run(model, data, tmp_path / "first")
    (kept,) = (tmp_path / "cache" / "evaluations").iterdir()
    kept.write_text(kept.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    run(model, data, tmp_path / "second")
    assert len(measured) == 4
    (tmp_path / "file").touch()
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "file"))
    run(model, data, tmp_path / "third")
    assert len(measured) == 6


def test_the_oldest_go(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_cache, "MAX_FILES", 2)
    data = save_questions(tmp_path / "faq.jsonl")
    for tokens in (2, 3, 4):
        run(model, data, tmp_path / str(tokens), max_tokens=tokens)
    assert len(list((tmp_path / "cache" / "evaluations").iterdir())) == 2
