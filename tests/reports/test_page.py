"""The page is one well-formed file that needs nothing else, and runs nothing that came from data."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from lmworks.reports import card, curves, page

VOID = {"meta", "link", "br", "img", "input", "hr"}


class _Reader(HTMLParser):
    """Collects tags and text; checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_needs_nothing(make_run) -> None:
    html = page.render(card.build(make_run()))
    reader = _read(html)
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("script") == tags.count("style") == 1
    assert tags.count("svg") == 2
    linked = [attrs.get(name) for _, attrs in reader.tags for name in ("src", "href") if attrs.get(name)]
    assert linked == ["data:,"]
    assert not re.search(r"https?://|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html


def test_what_came_from_outside_is_text(make_run, run_events) -> None:
    events = run_events()
    poison = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    events[0] |= {"model": poison, "data": poison, "method": poison}
    events[0]["machine"]["name"] = poison
    events[1]["notes"] = [poison]
    events[2]["task"]["signature"] = poison
    events[3]["items"][0] |= {"answer": poison, "reference": poison, "prompt": poison}
    folder = make_run(events)
    (folder / "recipe.yaml").write_text(poison)
    reader = _read(page.render(card.build(folder)))
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)
    assert sum(poison in text for text in reader.text) >= 7


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4, 6, 40])
def test_unfinished_runs_have_a_page(make_run, run_events, cut: int) -> None:
    reader = _read(page.render(card.build(make_run(run_events()[:cut]))))
    assert any("not finished" in text for text in reader.text)


def test_both_files_are_written(make_run) -> None:
    folder: Path = make_run()
    built = card.build(folder)
    path = page.write(folder, built)
    assert path == folder / "report.html"
    assert path.read_text(encoding="utf-8") == page.render(built)
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == built


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (1.93, 2.02), (0.001, 0.0011), (-5, 5), (3, 3), (0, 0), (1e6, 3e6), (2.0, 2.0000001)]
)
def test_ticks_are_few_round_and_span_all(low: float, high: float) -> None:
    result = curves.ticks(low, high)
    assert 2 <= len(result) <= 8
    assert result[0] <= low + 1e-12
    assert result[-1] >= high - 1e-12
    widths = [after - before for before, after in pairwise(result)]
    assert widths == pytest.approx([widths[0]] * len(widths))
    assert any(f"{widths[0]:e}".startswith(round_one) for round_one in ("1.000", "2.000", "2.500", "5.000"))


def test_long_curves_stay_small() -> None:
    points = [[n, 3 - n / 20_000] for n in range(20_001)]
    drawn = curves.draw([curves.Line("loss", "smooth", points)], "t", "x", "y")
    assert len(drawn) < 120_000


@pytest.mark.parametrize("points", [[[1, 2.0]], [[1, 2.0], [2, 1.5]]])
def test_few_points_are_drawn_as_points(points: list[list[float]]) -> None:
    reader = _read(curves.draw([curves.Line("loss", "raw", points)], "t", "x", "y"))
    circles = [attrs for tag, attrs in reader.tags if tag == "circle"]
    assert len(circles) == len(points) * len(curves.CANVASES)
    assert all(attrs["class"] == "raw" and float(attrs["r"] or 0) > 2 for attrs in circles)
    assert "loss, step 1: 2.000" in {attrs["data-say"] for attrs in circles}
    assert curves.draw([curves.Line("loss", "raw", [])], "t", "x", "y") == ""


def test_the_mean_of_a_constant_is_the_constant() -> None:
    smoothed, width = curves.smooth([[n, 2.0] for n in range(100)])
    assert width % 2 == 1
    assert smoothed == [[n, 2.0] for n in range(100)]


def test_the_curves_have_the_unit_of_the_held_out_loss(make_run) -> None:
    built = card.build(make_run())
    assert "nats per token" in page.render({**built, "measures": built["measures"]})
    own = [{**measure, "unit": "nats per label"} for measure in built["measures"] if measure["key"] == "held_out_loss"]
    assert "nats per token" not in page.render({**built, "measures": own})
