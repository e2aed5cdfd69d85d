"""Comparisons of rows with written answers: a job of each kind in a process of its own, planted secrets, replay."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_model import save_tiny

import lmworks
from lmworks.comparisons import processes
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import Result, State
from lmworks.comparisons.contender_recipes import checked, recipe_groups
from lmworks.comparisons.contender_runs import CANARIES, ContenderRuns
from lmworks.comparisons.contenders import choose
from lmworks.run import recipe as recipes


@pytest.fixture
def sums(tmp_path) -> Path:
    path, dice = tmp_path / "rows.jsonl", random.Random(2)
    rows = [
        {"prompt": f"What is {n} plus {n}?", "completion": f"It is {dice.choice('abc')} {n + n}."} for n in range(150)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_and_planted_secrets(sums, tmp_path) -> None:
    model, out = save_tiny(tmp_path / "tiny"), tmp_path / "out"
    names = ["nearest-answer", "lora"]
    state = lmworks.compare(
        model,
        sums,
        methods=names,
        budget="10m",
        rates=1,
        out=out,
        train={"epochs": 2, "threads": 1},
        evaluate={"task_rows": 20, "max_tokens": 8},
    ).state
    assert [(result.name, result.state) for result in state.results] == [(name, "done") for name in names]
    assert state.measure["key"] == "final_number"
    lora = state.results[1]
    assert lora.memorisation["exposure"]["most"] > lora.memorisation["exposure"]["planted"] > 0
    assert lora.forgetting["text"]["title"] == "bits per byte (Python's documentation topics)"
    assert "choices" in lora.forgetting
    assert lora.in_use["merged"]["tokens_per_second"] > 0
    assert lora.cost["peak_memory"] > 0
    trained_on = recipes.read(out / "lora" / "seed-0" / "recipe.yaml").data.additional
    assert [Path(source).name for source in trained_on] == [CANARIES]


def test_additional_rows_are_those_of_one_contender_alone(sums, tmp_path, monkeypatch) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"prompt": f"Say {n}.", "completion": f"{n}"}) + "\n" for n in range(20)))
    (tmp_path / CANARIES).write_text("")
    replay = {"method": "lora", "data": {"additional": str(more)}}
    settings = checked(CompareSettings(model="m", source=str(sums), contender={"replay": replay}))
    jobs: list[dict[str, Any]] = []
    monkeypatch.setattr(processes, "run_job", lambda work, **job: jobs.append(job) or {})
    results = [
        Result(own.name, own.title, own.kind, recipe_groups(own, settings, "completion", 30))
        for own in choose(["lora", "replay"], settings.contender, "completion")
    ]
    row_counts = {"kind": "completion", "training": 120, "validation": 12, "test": 30, "digest": ""}
    runs = ContenderRuns(tmp_path, State(settings, results, row_counts=row_counts))
    for own in results:
        own.epochs, own.plan = 1.0, {"learning_rate": 1e-3}
        own.chosen = {"learning_rate": 1e-3, "epochs": 1.0}
        runs._start(own, runs._next_final(own))
    trained_on = [[Path(source).name for source in job["data"]["additional"]] for job in jobs]
    assert trained_on == [[CANARIES], [CANARIES, "more.jsonl"]]
    assert all("data" not in job["groups"] for job in jobs)
