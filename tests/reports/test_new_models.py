"""The card of a model from scratch: perplexity, accuracy, and how its answers changed. Cards of tune lack all three."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from lmworks.reports import card, page, terminal

ANSWERS = {0: "zqzq", 30: "the the", 60: "the cat", 120: "the cat sat"}


@pytest.fixture(name="events")
def _events(run_events):
    events = run_events()
    start = events[0]
    start |= {"method": "full", "new": True, "task": {"name": "masked", "next_sentence": True}}
    start["tokenizer"] = {"source": "trained on the training rows", "kind": "wordpiece", "vocab_size": 8000}
    events = [event for event in events if event["event"] != "samples"]
    for event in events:
        if event["event"] == "evaluation":
            event.pop("general", None)
            event.pop("task", None)
            held_out = event.get("held_out")
            if held_out:
                right = 0.1 if event["when"] == "before" else 0.6
                held_out["row_correct"] = [round(right * tokens) for tokens in held_out["row_tokens"]]
                held_out["accuracy"] = sum(held_out["row_correct"]) / held_out["tokens"]
                held_out["next_sentence_accuracy"] = 0.5 if event["when"] == "before" else 0.8
    for step, answer in ANSWERS.items():
        when = {0: "before", 120: "after"}.get(step, "step")
        item = {"prompt": "the <b>cat</b> [MASK]", "reference": "the cat ran", "answer": answer}
        events.insert(-1, {"event": "samples", "when": when, "step": step, "items": [item]})
    return events


@pytest.fixture(name="run")
def _run(make_run, events):
    return make_run(events)


def test_perplexity_is_the_exponential_of_the_loss(run):
    measures = {measure["key"]: measure for measure in card.build(run)["measures"]}
    loss, perplexity = measures["held_out_loss"], measures["held_out_perplexity"]
    for side in ("before", "after"):
        assert perplexity[side]["value"] == math.exp(loss[side]["value"])
        assert perplexity[side]["interval"] == [math.exp(end) for end in loss[side]["interval"]]
    assert perplexity["verdict"] == loss["verdict"] == "better"


def test_accuracy_is_better_when_it_is_higher(run):
    measures = {measure["key"]: measure for measure in card.build(run)["measures"]}
    accuracy = measures["held_out_accuracy"]
    assert accuracy["verdict"] == "better"
    assert accuracy["change"]["interval"][0] > 0
    assert measures["next_sentence_accuracy"]["after"]["value"] == 0.8
    assert "general_bits" not in measures


def test_the_answers_stand_in_the_order_of_the_steps(run):
    (progress,) = card.build(run)["progress"]
    assert progress["answers"] == [[step, answer] for step, answer in ANSWERS.items()]
    assert progress["reference"] == "the cat ran"


def test_terminal_and_page_show_them(run):
    built = card.build(run)
    written = io.StringIO()
    terminal.show(built, Console(file=written, width=120))
    shown = page.render(built)
    for text in (
        "step 30",
        "the cat sat",
        "the cat ran",
        "hidden tokens, and next sentences",
        "wordpiece, vocabulary of 8,000",
    ):
        assert text in written.getvalue()
        assert text in shown
    assert "the &lt;b&gt;cat&lt;/b&gt; [MASK]" in shown


def test_a_step_that_was_asked_twice_counts_once(events, make_run):
    again = next(event for event in events if event["event"] == "samples" and event["step"] == 30)
    events.insert(-1, {**again, "items": [{**again["items"][0], "answer": "again"}]})
    (progress,) = card.build(make_run(events))["progress"]
    assert [step for step, _ in progress["answers"]] == list(ANSWERS)
    assert dict(progress["answers"])[30] == "again"


def test_cards_of_tune_have_none_of_it(make_run):
    built = card.build(make_run())
    keys = {measure["key"] for measure in built["measures"]}
    assert keys == {"task", "held_out_loss", "held_out_bits", "general_bits"}
    assert built["progress"] == []
    assert built["samples"]
