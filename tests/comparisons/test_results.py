"""What is read from the runs of a comparison: several seeds, figures that are no numbers, scores of a search."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_comparisons import comparison
from tiny_model import save_tiny

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.comparisons import comparison_table, results, search_tables
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import Result, State, Trial
from lmworks.comparisons.contender_runs import ContenderRuns, _rank

ROWS = {"kind": "tags", "training": 100, "validation": 10, "test": 2, "digest": "abc"}


def contender(folder: Path, name: str, seeds: list[dict[str, Any]], task: str, part: str) -> Result:
    """A contender whose final runs have these figures on the test part."""
    own = Result(name, name, "trained")
    for seed, figures in enumerate(seeds):
        trial = Trial(f"{name}/seed-{seed}", seed, state="done")
        with RunFolder.create(folder / trial.folder, "") as run:
            run.write("start", task={"name": task})
            run.write("evaluation", when="after", step=1, **{part: figures})
        own.trials.append(trial)
    return own


def entities(right: list[int], entities_: list[int]) -> dict[str, Any]:
    return {"rows": len(right), "f1": sum(right) / sum(entities_), "row_right": right, "row_entities": entities_}


def test_the_table_orders_several_seeds_as_the_tests_do(tmp_path) -> None:
    seeds = {
        "steady": [entities([2, 2], [4, 6]), entities([2, 2], [4, 6])],
        "varied": [entities([2, 0], [2, 0]), entities([2, 2], [8, 10])],  # which marks more words with another seed
    }
    state = State(CompareSettings(model="m", source="d", seeds=2), [], row_counts=ROWS)
    for name, figures in seeds.items():
        own = contender(tmp_path, name, figures, "tag", "entities")
        results.read(state, own, tmp_path)
        own.state = "done"
        state.results.append(own)
    steady, varied = state.results
    assert steady.by_seed == [0.4, 0.4]
    assert varied.by_seed == pytest.approx([1.0, 2 / 9])
    assert (steady.value, varied.value) == pytest.approx((0.4, 3 / 10))
    results.settle(state)
    assert comparison_table.ordered(state)[0].name == state.best == "steady"
    assert varied.difference["value"] == pytest.approx(varied.value - steady.value)


def test_a_figure_that_is_no_number_is_a_reason(tmp_path) -> None:
    figures = {"loss": math.nan, "row_nats": [1.0, math.inf], "row_tokens": [2, 3]}
    state = State(CompareSettings(model="m", source="d"), [], row_counts={**ROWS, "kind": "text"})
    with pytest.raises(InputError, match="NaN or infinite on 1 of 2 rows"):
        results.read(state, contender(tmp_path, "lora", [figures], "causal", "held_out"), tmp_path)
    assert state.measure == {}


@pytest.mark.parametrize(
    ("data", "settings", "note"),
    [
        ({"truncated": 0, "held_out_truncated": 0}, {}, None),
        ({"truncated": 0}, {}, None),  # of a run of an earlier version
        ({"truncated": 12, "held_out_truncated": 1}, {},
         "12 rows to train on and 1 row of the test part cut at the end, being longer than the model's context"),
        ({"truncated": 3}, {"max_tokens": 64},
         "3 rows to train on cut at the end, being longer than data.max_tokens (64)"),
    ],
)  # fmt: skip
def test_rows_that_were_cut_are_said_once_for_all_contenders(data, settings, note, tmp_path) -> None:
    state = State(CompareSettings(model="m", source="d", data=settings), [], row_counts=ROWS)
    for name in ("lora", "full"):
        own = contender(tmp_path, name, [entities([2, 1], [4, 6])], "tag", "entities")
        with RunFolder(tmp_path / name / "seed-0") as run:
            run.write("data", **data)
        results.read(state, own, tmp_path)
        own.state = "done"
        state.results.append(own)
    said = [line for line in comparison_table.remarks(state) if "cut" in line]
    assert said == ([] if note is None else [f"lora, full: {note}"])


def test_forgetting_that_is_no_number_is_left_out() -> None:
    before = {"general": {"bits_per_byte": 1.5, "row_nats": [1.0, 2.0], "row_bytes": [1, 1]}}
    after = {"general": {"bits_per_byte": None, "row_nats": [1.0, None], "row_bytes": [1, 1]}}
    assert results._forgetting(before, after) == {}
    assert results._forgetting(before, before)["general_bits"]["after"] == 1.5


class TestSearch:
    def test_the_figure_is_shown_without_what_decides_ties(self) -> None:
        state = comparison(["lora"])
        for trial in state.results[0].search:
            trial.score, trial.loss = 0.0, 0.7
        page = search_tables.render(state)
        assert "higher is better" in page
        assert page.count(">0</td>") == len(state.results[0].search)

    def test_losses_are_shown_as_they_are(self) -> None:
        state = comparison(["lora"])
        for number, trial in enumerate(state.results[0].search):
            trial.score, trial.better = 1.5 + number / 8, "lower"
        page = search_tables.render(state)
        assert "lower is better" in page
        assert ">1.50</td>" in page
        best, *others = sorted(state.results[0].search, key=_rank)
        assert best.score == 1.5
        shades = {
            trial.score: float(page.split(f">{trial.score:.2f}</td>")[0].rpartition("--depth: ")[2].split("%")[0])
            for trial in (best, *others)
            if f">{trial.score:.2f}</td>" in page
        }
        assert max(shades, key=shades.__getitem__) == 1.5

    def test_the_best_score_then_the_lowest_loss_then_the_shortest(self) -> None:
        trials = [
            Trial("diverged", score=None, epochs=1.0),
            Trial("longer", score=0.8, loss=0.4, epochs=2.0),
            Trial("surer", score=0.8, loss=0.4, epochs=1.0),
            Trial("unsure", score=0.8, loss=0.5, epochs=0.5),
            Trial("worse", score=0.7, loss=0.1, epochs=0.5),
        ]
        ranked = [trial.folder for trial in sorted(trials, key=_rank)]
        assert ranked == ["surer", "longer", "unsure", "worse", "diverged"]

    def test_a_run_that_diverges_costs_its_time_and_no_room(self, tmp_path) -> None:
        dice, data = random.Random(0), tmp_path / "rows.csv"
        rows = [f"a {dice.choice('abc')} film {n},{['good', 'bad'][n % 2]}\n" for n in range(120)]
        data.write_text("text,label\n" + "".join(rows))
        model = save_tiny(tmp_path / "tiny")
        settings = CompareSettings(model=str(model), source=str(data))
        own = Result("full", "full", "trained", settings={"method": "full", "task": {"name": "classify"}})
        trial = Trial("full/search-1", learning_rate=1e38, epochs=2.0, share=0.25)
        written: list[str] = []
        runs = ContenderRuns(tmp_path, State(settings, [own], row_counts=ROWS))
        own.settings["train"] = {"checkpoint_every": 1, "precision": "float32"}
        runs._run_trial(own, trial, lambda: written.append(trial.state))
        assert (trial.score, trial.state, written) == (None, "done", ["open", "done"])
        assert trial.seconds > 0
        folder = tmp_path / trial.folder
        assert RunFolder(folder).events("failure")
        assert not (folder / "checkpoints").exists()
