"""The card on a terminal says what the card holds, in colours or plain."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lmworks.base import figures
from lmworks.reports import card, terminal


def _printed(built: dict, width: int = 130, colours: bool = False) -> str:
    out = io.StringIO()
    terminal.show(built, Console(file=out, width=width, force_terminal=colours, highlight=False))
    return out.getvalue()


def test_all_of_it_is_said(make_run) -> None:
    built = card.build(make_run())
    text = _printed(built)
    assert "\x1b" not in text
    assert "smollm2-135m-instruct on python-help" in text
    for measure in built["measures"]:
        for side in ("before", "after"):
            assert figures.number(measure[side]["value"]) in text
        assert figures.signed(measure["change"]["value"]) in text
        assert measure["verdict"] in text
    for sample in built["samples"]:
        assert sample["prompt"] in text
    assert figures.byte_size(built["costs"]["peak_memory"]) in text
    assert "3 rows were cut at 512 tokens." in text


def test_colours_only_on_a_terminal(make_run) -> None:
    assert "\x1b[" in _printed(card.build(make_run()), colours=True)


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 20])
@pytest.mark.parametrize("width", [40, 100])
def test_unfinished_runs_have_a_card(make_run, run_events, cut: int, width: int) -> None:
    text = _printed(card.build(make_run(run_events()[:cut])), width)
    assert "unfinished" in " ".join(text.split())
    assert "better" not in text.replace("Better", "")


@pytest.mark.parametrize("effect", [-0.9, -0.001])
def test_eighty_columns_hold_all_of_it(make_run, effect: float) -> None:
    built = card.build(make_run(effect=effect))
    text = _printed(built, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…\n" not in text
    for measure in built["measures"]:
        ends = measure["change"]["interval"]
        assert figures.interval(ends[0], ends[1], True) in text
        assert all(word in text for word in measure["verdict"].split())
        assert all(word in text for word in measure["title"].split())
    (curve,) = [line for line in text.splitlines() if line.startswith("training loss")]
    assert " → " in curve


def test_brackets_are_no_markup(make_run, run_events) -> None:
    events = run_events()
    events[3]["items"][0]["answer"] = "[red]a[/red] [/]"
    assert "[red]a[/red] [/]" in _printed(card.build(make_run(events)))


def test_sparkline() -> None:
    assert terminal.sparkline([0.0, 7.0, 3.5]) == "▁█▅"
    assert terminal.sparkline([2.0, 2.0]) == "▁▁"
    assert len(terminal.sparkline(list(range(1000)), 60)) == 60
