"""The card's part about a model that tags words says what the journal's part ``entities`` says."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from lmworks.data.word_pieces import Words
from lmworks.evaluate.entities import entity_figures, with_sentences
from lmworks.reports import card, page, terminal

TOKENS = ["In", "<Rome>", "with", "Mary", "Ann"]
RIGHT = ["O", "B-place", "O", "B-person", "I-person"]
HALF = ["O", "B-place", "O", "B-person", "O"]
NOTHING = ["O"] * 5


def figures_of(predicted: list[list[str]]) -> dict:
    starts = [0, 3, 10, 15, 20]
    words = [Words(" ".join(TOKENS), starts, TOKENS)] * len(predicted)
    figures = entity_figures([RIGHT] * len(predicted), predicted)
    sure, places = [np.full(5, 0.75)] * len(predicted), [f"f.conll:{n}" for n in range(len(predicted))]
    return with_sentences(figures, [RIGHT] * len(predicted), predicted, sure, words, places)


def built(make_run, before: list[list[str]], after: list[list[str]]) -> dict:
    start = {"event": "start", "time": 1.0, "model": "m", "data": "f.conll", "task": {"name": "tag"}}
    first = {
        "event": "evaluation",
        "when": "before",
        "name": "commonest tag of each word",
        "entities": figures_of(before),
    }
    return card.build(make_run([start, first, {"event": "evaluation", "when": "after", "entities": figures_of(after)}]))


def test_f1_has_an_interval_though_its_denominators_change(make_run) -> None:
    report = built(make_run, [NOTHING] * 20, [RIGHT] * 12 + [HALF] * 8)
    measure = report["measures"][0]
    assert (measure["key"], measure["before"]["value"], measure["verdict"]) == ("entity_f1", 0.0, "better")
    assert measure["after"]["value"] == pytest.approx((12 * 4 + 8 * 2) / 80)
    low, high = measure["change"]["interval"]
    assert low < measure["change"]["value"] == measure["after"]["value"] < high
    assert "of the commonest tag of each word 0" in report["summary"]


def test_types_and_mistakes_are_shown(make_run) -> None:
    report = built(make_run, [NOTHING] * 8, [RIGHT] * 6 + [HALF, NOTHING])
    assert report["entities"]["types"]["person"] == pytest.approx(
        {"precision": 6 / 7, "recall": 6 / 8, "f1": 12 / 15, "expected": 8, "predicted": 7, "right": 6}
    )
    console = Console(width=140, highlight=False)
    with console.capture() as capture:
        terminal.show(report, console)
    shown, html = capture.get(), page.render(report)
    assert "In [<Rome> place] with [Mary person] Ann" in shown
    assert "f.conll:6: Mary: person (0.750)" in shown
    assert "<Rome>" not in html
    assert "In [&lt;Rome&gt; place] with [Mary Ann person]" in html
    for text in (shown, html):
        assert "Types of entities" in text
        assert "no entity" in text  # the last sentence has none


def test_other_runs_have_no_such_part(make_run) -> None:
    report = card.build(make_run([{"event": "start", "time": 1.0, "task": {"name": "causal"}}]))
    assert report["entities"] is None
    assert "Types of entities" not in page.render(report)
