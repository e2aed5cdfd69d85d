"""What the card says of a run is what its journal holds, and no more."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lmworks.base.errors import InputError
from lmworks.reports import card, facts


def _measure(built: dict, key: str) -> dict:
    return next(m for m in built["measures"] if m["key"] == key)


def test_what_was_done_once_before_the_run_has_lines_of_its_own(make_run, run_events) -> None:
    events = run_events()
    events[0]["preparation"] = {"fetching the model": 31.0, "measuring this machine": 15.0}
    events.append({"event": "resume", "preparation": {"measuring this machine": 5.0}})
    built = card.build(make_run(events))
    assert built["costs"]["preparation"] == {"fetching the model": 31.0, "measuring this machine": 20.0}
    lines = dict(facts.cost_lines(built))
    assert lines["before: fetching the model"].startswith("31.0 s")
    assert lines["before: measuring this machine"].startswith("20.0 s")
    built["costs"]["preparation"] = {}
    assert set(lines) - set(dict(facts.cost_lines(built))) == {
        "before: fetching the model",
        "before: measuring this machine",
    }


def test_a_finished_run(make_run, run_events) -> None:
    events = run_events()
    built = card.build(make_run(events))
    steps = [e for e in events if e["event"] == "step"]
    before, after = (next(e for e in events if e.get("when") == w and "held_out" in e) for w in ("before", "after"))
    assert built["run"]["state"] == "finished"
    loss = _measure(built, "held_out_loss")
    assert loss["before"]["value"] == before["held_out"]["loss"]
    assert loss["after"]["value"] == after["held_out"]["loss"]
    assert loss["change"]["value"] == pytest.approx(after["held_out"]["loss"] - before["held_out"]["loss"])
    low, high = loss["change"]["interval"]
    assert low < loss["change"]["value"] < high < 0
    assert loss["verdict"] == "better"
    assert _measure(built, "task")["verdict"] == "better"
    assert built["training"]["tokens"] == sum(e["tokens"] for e in steps)
    assert built["training"]["tokens_per_second"] == pytest.approx(
        sum(e["tokens"] for e in steps) / sum(e["seconds"] for e in steps)
    )
    assert [s["prompt"] for s in built["samples"]] == [i["prompt"] for i in events[3]["items"]]
    assert built["samples"][0]["before"] != built["samples"][0]["after"] == built["samples"][0]["reference"]
    assert built["curves"]["training"] == [[e["step"], e["loss"]] for e in steps]
    assert [step for step, _ in built["curves"]["held_out"]] == [0, 30, 60, 90, 120]
    memory = next(row for row in built["planned"] if row["what"] == "peak memory")
    assert memory["ratio"] == memory["happened"] / memory["planned"]
    json.dumps(built, allow_nan=False)


def test_the_interval_of_a_loss_belongs_to_that_loss(make_run) -> None:
    for measure in card.build(make_run())["measures"]:
        for side in ("before", "after"):
            low, high = measure[side]["interval"]
            assert low < measure[side]["value"] < high
        low, high = measure["change"]["interval"]
        assert low <= measure["change"]["value"] <= high


def test_bits_follow_from_nats(make_run, run_events) -> None:
    events = run_events()
    before = next(e for e in events if e["event"] == "evaluation")["held_out"]
    built = _measure(card.build(make_run(events)), "held_out_bits")
    assert built["before"]["value"] == pytest.approx(sum(before["row_nats"]) / math.log(2) / sum(before["row_bytes"]))
    low, high = built["before"]["interval"]
    assert low < built["before"]["value"] < high


def test_no_effect_gets_no_verdict_of_one(make_run) -> None:
    built = card.build(make_run(effect=0.0))
    assert {m["verdict"] for m in built["measures"]} <= {"no difference measured"}


def test_an_effect_for_the_worse_is_called_worse(make_run) -> None:
    built = card.build(make_run(effect=0.5))
    assert _measure(built, "held_out_loss")["verdict"] == "worse"
    assert _measure(built, "task")["verdict"] == "worse"


@pytest.mark.parametrize("rows", [1, 5])
def test_few_rows_give_no_verdict(make_run, rows: int) -> None:
    loss = _measure(card.build(make_run(rows=rows)), "held_out_loss")
    assert loss["verdict"] == f"not tested: too few rows ({rows})"
    assert loss["change"]["interval"] is None


def test_figures_without_rows_give_no_verdict(make_run, run_events) -> None:
    events = run_events()
    for event in events:
        if "held_out" in event and event["event"] == "evaluation":
            event["held_out"] = {k: v for k, v in event["held_out"].items() if not k.startswith("row_")}
    loss = _measure(card.build(make_run(events)), "held_out_loss")
    assert loss["verdict"] == "not tested: no figures by row"
    assert loss["change"]["value"] < 0


def test_other_rows_are_no_pairs(make_run, run_events) -> None:
    events = run_events()
    after = next(e for e in events if e.get("when") == "after" and "held_out" in e)
    after["held_out"]["row_tokens"][0] += 1
    assert _measure(card.build(make_run(events)), "held_out_loss")["verdict"].startswith("not tested")


def test_metrics_measured_in_two_ways_are_not_compared(make_run, run_events) -> None:
    events = run_events()
    after = next(e for e in events if e.get("when") == "after" and "task" in e)
    after["task"]["signature"] = "chrF2|nrefs:2"
    task = _measure(card.build(make_run(events)), "task")
    assert task["change"] is None
    assert task["verdict"] == "measured in two ways: no comparison"


def test_a_killed_run_has_a_card_that_says_so(make_run, run_events) -> None:
    whole = run_events()
    for cut in range(1, len(whole), 7):
        folder = make_run(whole[:cut], name=f"cut{cut}")
        with (folder / "journal.jsonl").open("a") as journal:
            journal.write('{"event": "step", "st')
        built = card.build(folder)
        assert built["run"]["state"] == "unfinished"
        assert "not finished" in built["run"]["warnings"][0]
        assert built["curves"]["training"] == [[e["step"], e["loss"]] for e in whole[:cut] if e["event"] == "step"]
    assert built["compared"]["after"] in ("step", "after")


def test_a_resumed_run_adds_its_times(make_run, run_events) -> None:
    """Killed after step 60 and resumed: the second process says what it took, of the first only times are known."""
    events = run_events()
    cut = next(n for n, e in enumerate(events) if e.get("step") == 60 and e["event"] == "step") + 1
    for place, event in enumerate(events[:cut]):
        event["time"] = 1000.0 + place
    next(e for e in events if e["event"] == "session_end").update(flops=6e12, tokens=24_000)
    again = [{"event": "resume", "time": 9000.0}, {"event": "session", "from_step": 60, "time": 9001.0}]
    built = card.build(make_run([*events[:cut], *again, *events[cut:]]))
    assert built["run"]["state"] == "finished"
    assert built["run"]["resumed"] == 1
    assert built["costs"]["training_seconds"] == pytest.approx(120 * 0.9)
    assert built["costs"]["seconds"] == pytest.approx((cut - 1) + 131.0)
    assert built["costs"]["energy"]["joules"] == 4800.0
    assert built["costs"]["flops"] == pytest.approx(6e12 / 24_000 * built["training"]["tokens"])
    assert "killed" in built["costs"]["energy"]["note"]
    unfinished = card.build(make_run([*events, *again], name="again"))
    assert unfinished["run"]["state"] == "unfinished"


def test_two_whole_sessions_are_added(make_run, run_events) -> None:
    events = run_events()
    end = next(e for e in events if e["event"] == "session_end")
    cut = next(n for n, e in enumerate(events) if e.get("step") == 60 and e["event"] == "step") + 1
    first = [*events[:cut], {**end, "flops": 5e12, "energy_joules": 100.0, "reason": "interrupted"}]
    built = card.build(make_run([*first, {"event": "session", "from_step": 60}, *events[cut:]]))
    assert built["costs"]["flops"] == 5e12 + 14.9e12
    assert built["costs"]["energy"]["joules"] == 4900.0
    assert card.build(make_run(first, name="first"))["run"]["stopped"] == "interrupted"


def test_a_failed_run_says_what_failed(make_run, run_events) -> None:
    events = [*run_events()[:20], {"event": "failure", "step": 15, "quantity": "loss", "value": "nan"}]
    notes = card.build(make_run(events))["run"]["warnings"]
    assert "Training stopped at step 15: its loss was not a number." in notes


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no journal\.jsonl"):
        card.build(tmp_path)
    (tmp_path / "journal.jsonl").write_text('{"event": "start"}\nbroken\n{"event": "finish"}\n')
    with pytest.raises(InputError, match=r"journal\.jsonl:2"):
        card.build(tmp_path)


def test_an_empty_journal_is_a_card(make_run) -> None:
    built = card.build(make_run([]))
    assert built["run"]["state"] == "unfinished"
    assert built["measures"] == built["samples"] == []


def test_a_loss_that_is_no_number_is_left_out(make_run, run_events) -> None:
    events = run_events()
    next(e for e in events if e.get("step") == 7)["loss"] = math.nan
    built = card.build(make_run(events))
    assert 7 not in [step for step, _ in built["curves"]["training"]]
    json.dumps(built, allow_nan=False)


@pytest.mark.parametrize(
    ("rows", "examples", "text"),
    [
        (80, 80, "80"),
        (80, None, "80"),  # of an older run
        (200, 80, "200, of which 80 are evaluated"),
        (1, 2915, "1 in 2,915 examples; the table's rows are 80 groups of these"),
        (3, 12, "3 in 12 examples"),
    ],
)
def test_held_out_rows_and_what_is_measured_of_them(make_run, run_events, rows, examples, text) -> None:
    events = run_events()
    data = next(event for event in events if event["event"] == "data")
    data |= {"held_out": rows, "examples": 990} | ({} if examples is None else {"held_out_examples": examples})
    lines = dict(facts.run_lines(card.build(make_run(events))))
    assert lines["rows held out"] == text
    assert lines["rows trained on"] == "960 in 990 examples, 49,100 tokens (21,000 with loss)"


def test_a_text_whose_end_is_held_out_is_no_second_row(make_run, run_events) -> None:
    events = run_events()
    data = next(event for event in events if event["event"] == "data")
    data |= {"held_out": 1, "held_out_examples": 12, "divided_inside": True}
    assert dict(facts.run_lines(card.build(make_run(events))))["rows held out"] == "the end of 1 text in 12 examples"


def test_the_comparison_that_chose_the_settings_is_cited_with_what_it_measured(make_run, run_events) -> None:
    events = run_events()
    start = next(event for event in events if event["event"] == "start")
    start["comparison"] = {
        "folder": "comparisons/reviews", "contender": "LoRA", "figure": "accuracy", "value": 0.862,
        "interval": [0.83, 0.89], "rows": 400,
    }  # fmt: skip
    lines = dict(facts.run_lines(card.build(make_run(events))))
    assert lines["settings from"] == "comparison comparisons/reviews: LoRA"
    assert lines["expected of new rows"] == (
        "accuracy 0.862 (95 % interval 0.830 … 0.890), as on 400 test rows of the comparison"
    )


def test_a_loss_that_is_not_a_number_has_no_figures_by_row(make_run, run_events) -> None:
    """The journal holds null for what JSON cannot hold."""
    events = run_events()
    for event in events:
        if event["event"] == "evaluation" and event.get("when") == "after":
            part = event["held_out"]
            part["row_nats"] = [None] * len(part["row_nats"])
            part["loss"] = None
    built = card.build(make_run(events))
    assert built["measures"]
