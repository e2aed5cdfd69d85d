"""Answers on the card: labels beside the commonest one, and answers that were cut, from whole runs of a tiny model."""

from __future__ import annotations

import io
from collections import Counter

from rich.console import Console
from tiny_model import save_questions, save_tiny, settings

import lmworks
from lmworks.base.journal import RunFolder
from lmworks.evaluate.metrics import macro_f1
from lmworks.reports import page, terminal


def _tune(folder, rows, **more):
    values = settings() | more
    values["data"]["source"] = str(save_questions(folder / "rows.jsonl", rows))
    values["train"]["steps"] = 2
    return lmworks.tune(str(save_tiny(folder / "tiny")), values.pop("data"), out=folder / "run", **values)


def _printed(built: dict) -> str:
    out = io.StringIO()
    terminal.show(built, Console(file=out, width=160))
    return out.getvalue()


def test_accuracy_is_compared_with_the_most_frequent_label(tmp_path):
    rows = [{"text": f"Sentence number {n}.", "label": "rare" if n % 4 == 0 else "common"} for n in range(40)]
    run = _tune(tmp_path, rows, task="labels")
    side = next(event for event in RunFolder(run.folder).events("evaluation") if event["when"] == "after")["task"]
    assert set(side["references"]) <= {"rare", "common"}
    assert [
        float(answer == reference) for answer, reference in zip(side["answers"], side["references"], strict=True)
    ] == (side["values"])
    measures = {measure["key"]: measure for measure in run.card["measures"]}
    label, times = Counter(side["references"]).most_common(1)[0]
    assert measures["task"]["baseline"] == {"label": label, "value": times / len(side["references"])}
    labels = sorted(set(side["references"]))
    assert measures["macro_f1"]["after"]["value"] == macro_f1(side["answers"], side["references"], labels)
    assert f"the commonest label alone, {label}" in run.card["summary"]
    assert "Macro-F1" in page.render(run.card)
    assert "the commonest label alone" in _printed(run.card)


def test_answers_that_were_cut_are_marked_and_counted(tmp_path):
    run = _tune(
        tmp_path, [{"prompt": f"What is {n}?", "completion": f"It is {n}, as it was before."} for n in range(40)]
    )
    events = RunFolder(run.folder).events()
    counted = [event["task"]["cut"] for event in events if event["event"] == "evaluation" and "task" in event]
    assert counted[0] > 0
    answer = run.card["measures"][0]
    assert answer["cut"] == {"before": counted[0], "after": counted[-1]}
    assert "answers cut" not in answer["detail"]  # which stands in the table
    note = f"answers cut at the most tokens (evaluate.max_tokens): {counted[0]} before, {counted[-1]} after"
    assert note in run.card["run"]["notes"]
    samples = [sample["before"] for sample in run.card["samples"]]
    marked = [text for text in samples if text.endswith("… (cut at 6 tokens)")]
    assert marked
    assert "(cut at 6 tokens)" in page.render(run.card)
    assert note in _printed(run.card)


def test_a_notebook_shows_the_card_of_a_run(tmp_path):
    run = _tune(tmp_path, [{"prompt": f"What is {n}?", "completion": "<b>It</b>"} for n in range(40)])
    shown = run._repr_html_()
    assert shown.startswith("<iframe")
    assert "&lt;!doctype html&gt;" in shown
    assert "<b>" not in shown
    assert lmworks.report(run.folder) == run.card


def test_plan_is_that_of_the_command(tmp_path):
    values = settings()
    values["data"]["source"] = str(save_questions(tmp_path / "rows.jsonl"))
    plan = lmworks.plan(str(save_tiny(tmp_path / "tiny")), values.pop("data"), method="full", **values)
    assert plan.trainable == plan.parameters
    assert plan.steps > 0
    assert any(line.startswith("memory") for line in plan.lines())
    assert not (tmp_path / "runs").exists()
