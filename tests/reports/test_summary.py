"""The card's first sentence and its advice say what the figures of the journal allow, and no more."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lmworks.base.settings import parse_overrides
from lmworks.reports import card, page, terminal
from lmworks.run import recipe as recipes


def _advice(built: dict, words: str) -> str:
    return next((line for line in built["advice"] if words in line), "")


def test_the_sentence_gives_headline_verdict_forgetting_and_time(make_run) -> None:
    built = card.build(make_run())
    headline = built["measures"][0]
    assert built["summary"].startswith("Answers, chrF: ")
    assert f"over {headline['rows']} rows" in built["summary"]
    assert "better by" in built["summary"]
    assert "forgetting" in built["summary"]
    assert built["summary"].endswith("the run took 2 min 11 s.")
    assert built["summary"].count(". ") == 0


def test_a_certain_improvement_is_shown_with_indistinguishable_answers(make_run, run_events) -> None:
    events = run_events()
    before, after = (next(e for e in events if e.get("when") == when and "task" in e) for when in ("before", "after"))
    after["task"]["values"] = [value + (1 if row % 2 else -1) for row, value in enumerate(before["task"]["values"])]
    summary = card.build(make_run(_moved(events, 0.8)))["summary"]
    loss, answers = summary.split("; ")[:2]
    assert loss.startswith("Loss on held-out rows: ")
    assert "better by" in loss
    assert answers.startswith("answers, chrF: ")
    assert "no difference measured" in answers
    alike = card.build(make_run(_moved(run_events(), 0.8), name="alike"))["summary"]
    assert alike.startswith("Answers, chrF: ")
    assert "Loss on held-out" not in alike
    worse = card.build(make_run(_moved(run_events(), 1.2), name="worse"))["summary"]
    assert "worse by" in worse.split("; ")[1]


def test_it_stands_first(make_run) -> None:
    folder = make_run()
    built = card.build(folder)
    out = io.StringIO()
    terminal.show(built, Console(file=out, width=2000))
    assert out.getvalue().startswith(built["summary"])
    html = page.render(built)
    assert html.index('class="summary"') < html.index('class="tiles"')
    page.write(folder, built)
    assert list(json.loads((folder / "report.json").read_text(encoding="utf-8")))[:2] == ["format", "summary"]


@pytest.mark.parametrize("cut", [0, 1, 4, 20])
def test_an_unfinished_run_says_so(make_run, run_events, cut: int) -> None:
    assert "not finished" in card.build(make_run(run_events()[:cut]))["summary"]


def test_a_forgetting_that_was_measured_is_named(make_run, run_events) -> None:
    events = run_events()
    after = next(e for e in events if e.get("when") == "after" and "general" in e)
    after["general"]["row_nats"] = [1.1 * nats for nats in after["general"]["row_nats"]]
    after["general"]["bits_per_byte"] *= 1.1
    assert "another text is predicted" in card.build(make_run(events))["summary"]
    for event in events:
        event.pop("general", None)
    assert "forgetting was not measured" in card.build(make_run(events, name="without"))["summary"]


def _moved(events: list[dict], factor: float) -> list[dict]:
    """The same run, in which every row's loss after training is that before times a factor."""
    before, after = (
        next(e for e in events if e.get("when") == when and "held_out" in e) for when in ("before", "after")
    )
    held_out = before["held_out"]
    after["held_out"] = held_out | {
        "loss": held_out["loss"] * factor,
        "bits_per_byte": held_out["bits_per_byte"] * factor,
        "row_nats": [nats * factor for nats in held_out["row_nats"]],
    }
    return events


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.9999, "negligible"), (1.001, "negligible"), (0.98, "better"), (1.02, "worse")]
)
def test_a_small_change_is_negligible_however_sure(make_run, run_events, factor: float, verdict: str) -> None:
    built = card.build(make_run(_moved(run_events(), factor)))
    loss = next(m for m in built["measures"] if m["key"] == "held_out_loss")
    low, high = loss["change"]["interval"]
    assert low * high > 0
    assert loss["verdict"] == verdict
    assert "negligible" in built["how"]


def _with_losses(events: list[dict], losses: dict[int, float]) -> list[dict]:
    """The same run, evaluated at these steps with these losses; the last one is that after training."""
    last = max(losses)
    for event in events:
        if event["event"] == "evaluation":
            part = event.get("held_out") or event["metrics"]
            part["loss"] = losses[event["step"]]
    assert last == 120
    return events


def test_a_loss_that_still_falls_asks_for_more(make_run, run_events) -> None:
    events = _with_losses(run_events(), {0: 3.0, 30: 2.8, 60: 2.6, 90: 2.4, 120: 2.2})
    folder = make_run(events)
    line = _advice(card.build(folder), "still falling")
    assert "--train.steps 480" in line
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8").replace("steps: 120", "epochs: 3")
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    line = _advice(card.build(folder), "still falling")
    assert "--train.epochs 12" in line
    _, verb, read, option, value, out, place = line.partition("(")[2].rstrip(").").split()
    assert (verb, read, out) == ("tune", f"{folder}/recipe.yaml", "--out")
    recipe = recipes.read(Path(read), parse_overrides([f"{option}={value}", f"{out}={place}"]))
    assert (recipe.train.epochs, recipe.out) == (12, place)
    assert not Path(place).exists()


def test_a_flat_loss_asks_for_nothing(make_run, run_events) -> None:
    events = _with_losses(run_events(), {0: 3.0, 30: 2.5, 60: 2.301, 90: 2.3, 120: 2.299})
    assert card.build(make_run(events))["advice"] == []


def test_a_loss_that_rose_names_the_step_and_what_was_kept(make_run, run_events) -> None:
    losses = {0: 3.0, 30: 2.5, 60: 2.3, 90: 2.6, 120: 2.9}
    line = _advice(card.build(make_run(_with_losses(run_events(), losses))), "rose after step 60")
    assert "train less, in a new run" in line
    assert "--train.steps 60 --out" in line
    events = _with_losses(run_events(), losses | {120: 2.3})
    events[-1]["best_step"] = 60  # the weights of that step are what was measured after training
    next(e for e in events if e.get("step") == 90 and e["event"] == "evaluation")["metrics"]["loss"] = 2.6
    built = card.build(make_run(events, name="kept"))
    assert built["curves"]["held_out"][-1] == [90, 2.6]
    assert "the weights of that step were kept" in _advice(built, "rose after step 60")


def test_a_budget_that_was_passed_is_said(make_run) -> None:
    folder = make_run()
    assert _advice(card.build(folder), "Memory") == ""
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8") + "  memory: 2GB\n", encoding="utf-8")
    assert _advice(card.build(folder), "Memory") == (
        "Memory passed its budget: 2.21 GB held at the peak, 2.00 GB allowed."
    )


@pytest.mark.parametrize(("planned", "passed"), [(2_100_000_000, False), (1_900_000_000, True)])
def test_a_plan_that_was_passed_by_a_tenth_is_said(make_run, run_events, planned: int, passed: bool) -> None:
    events = run_events()
    events[0]["plan"]["memory"]["total"] = planned
    assert ("passed its plan" in _advice(card.build(make_run(events)), "Memory")) == passed


def test_the_parts_of_the_peak_add_up_to_it(make_run, run_events) -> None:
    events = run_events()
    events[-1] |= {"peak_memory": 500, "peak_parts": {"library": 300, "weights": 120, "stage": "evaluation after"}}
    for event in events[:-1]:
        event.pop("peak_memory", None)
    costs = card.build(make_run(events))["costs"]
    assert sum(size for size in costs["peak_parts"].values() if isinstance(size, int)) == costs["peak_memory"] == 500
