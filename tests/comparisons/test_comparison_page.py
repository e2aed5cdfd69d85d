"""The page of a comparison: what the state says is on it, whatever is missing; one file that runs nothing from data."""

from __future__ import annotations

import copy
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browsers import MARKS, browser_fixture  # noqa: F401
from rich.console import Console
from tiny_comparisons import ROWS, comparison

from lmworks.base.figures import byte_size, count, duration, interval, number, percent, signed
from lmworks.commands import compare, show
from lmworks.comparisons import comparison_page, comparison_table
from lmworks.comparisons.comparison_rows import Balance, balance
from lmworks.comparisons.comparison_state import Result, State
from lmworks.comparisons.finite_figures import finite_state
from lmworks.comparisons.label_places import Box, place
from lmworks.comparisons.terminal_chart import terminal_chart
from lmworks.comparisons.trade_offs import is_on_front, trade_offs

POISON = "<script>alert(1)</script>\"'&"
VOID = {"meta", "link", "br", "img", "input", "hr"}
HOLES = (
    "interval",
    "by_seed",
    "numerators",
    "denominators",
    "difference",
    "cost",
    "forgetting",
    "memorisation",
    "in_use",
    "answers",
    "trials",
    "chosen",
)


class Outline(HTMLParser):
    """The elements of a page; complains of ends that do not fit, and keeps the text of sections by their headings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.sections: dict[str, str] = {}
        self._heading, self._text = "", ""
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.handle_startendtag(tag, []) if tag in VOID else self.open.append(tag)
        if tag == "section":
            self._heading, self._text = "", ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")
        if tag == "section":
            self.sections[self._heading] = self.sections.get(self._heading, "") + self._text

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self._heading = data
        self._text += f"{data} "


def outline(state: State) -> Outline:
    """The page's outline, which is well-formed and refers to nothing outside."""
    html = comparison_page.render(state)
    parsed = Outline(html)
    assert parsed.faults == []
    assert not re.search(r"https?://|@import|url\(|<iframe|<script src", html)
    links = {(name, value) for _, name, value in parsed.attributes if name in ("href", "src", "srcset")}
    assert links == {("href", "data:,")}
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]
    assert html.count("<script>") == html.count("<style>") == 1
    assert not re.search(r"\bnan\b|\bNone\b|∞", re.sub(r"<(script|style)>.*?</\1>", "", html, flags=re.DOTALL))
    return parsed


def plain(texts: str) -> str:
    return texts.replace("\u00a0", " ")


def test_the_page_has_the_states_figures() -> None:
    state = comparison()
    parsed = outline(state)
    sections = {title: plain(content) for title, content in parsed.sections.items()}
    everything = "\n".join(sections.values())
    assert state.recommendation["title"] in everything
    for own in state.results:
        table, cost = sections["All contenders"], sections["What it cost"]
        assert f" {number(own.value)} " in table
        assert interval(*own.interval) in table
        assert byte_size(own.cost["peak_memory"]) in table
        assert byte_size(own.cost["peak_memory"]) in cost
        assert count(own.cost["trained_parameters"]) in cost
        if own.cost["training_seconds"]:
            assert duration(own.cost["training_seconds"]) in cost
        if own.difference:
            assert signed(own.difference["value"]) in table
        for forgotten in own.forgetting.values():
            assert f"{number(forgotten['before'])} → {number(forgotten['after'])}" in sections["Forgetting"]
        speed, merged = own.in_use["speed"], own.in_use["merged"] or {}
        assert f"{number(speed['texts_per_second'])} " in sections["In use"]
        assert f"{number(1000 * speed['latency'])} ms" in sections["In use"]
        if merged:
            assert f"merged {number(merged['texts_per_second'])}" in sections["In use"]
        if own.memorisation:
            assert (
                f" {number(own.memorisation['exposure']['planted'])} not trained on 1.40 " in sections["Memorisation"]
            )
            assert percent(own.memorisation["reproduced"]["trained"]) in sections["Memorisation"]
        for trial in own.search:
            assert number(trial.score) in sections["The search"]
        if len(own.by_seed) > 1:
            assert " · ".join(map(number, own.by_seed)) in sections["How the final runs were trained"]
    assert sections["What it cost"].count("estimated") == 2 * sum(
        own.cost["joules"] is not None for own in state.results
    )
    assert "energy of the whole run, not of training alone: majority class, TF-IDF" in sections["What it cost"]
    assert "445 g for a kilowatt-hour" in sections["What it cost"]
    assert state.notes[0] in sections["Remarks"]
    for fact in ("2 seeds each", "20 min 00 s, of which 18 min 50 s", "McNemar", "2 cores", state.row_counts["digest"]):
        assert fact in sections["How it was measured"]


def test_the_table_fits_a_terminal_of_80_columns_without_its_spare_columns() -> None:
    state = comparison(["majority", "tfidf-logreg", "head", "lora", "full"])
    heads = comparison_table.heads(state)
    assert set(comparison_table.SPARE) < set(heads)
    shown = io.StringIO()
    console = Console(file=shown, width=80, force_terminal=True, color_system=None)
    show.table(heads, comparison_table.table_cells(state), to=console, spare=comparison_table.SPARE)
    words = shown.getvalue().split()
    for head in set(heads) - set(comparison_table.SPARE):
        assert set(head.split()) <= set(words)
    assert max(map(len, shown.getvalue().splitlines())) <= 80


def test_why_intervals_overlap_is_said_below_the_table(tmp_path, capsys) -> None:
    state = comparison(["majority", "head", "lora", "full"])
    compare.finish(state, tmp_path)
    about = comparison_table.about_intervals(state)
    assert "paired, on the same rows" in about
    assert f"\n{about}\n" in capsys.readouterr().out
    assert about in plain(outline(state).sections["All contenders"])


def test_without_intervals_or_tests_nothing_is_said_of_them() -> None:
    assert comparison_table.about_intervals(comparison(["lora"])) == ""
    state = comparison(["majority", "lora"])
    for own in state.results:
        own.interval = None
    assert comparison_table.about_intervals(state) == ""


def test_points_carry_all_numbers_of_their_contender() -> None:
    state = comparison()
    html = comparison_page.render(state)
    titles = [title for title in re.findall(r"<title>(.*?)</title>", html, re.DOTALL) if "\n" in title]
    drawn = trade_offs(state)
    assert len(titles) == 2 * sum(len(own.points) for own in drawn)  # each chart for a desk and for a phone
    lora = next(own for own in state.results if own.name == "lora")
    title = next(plain(title) for title in titles if title.startswith("LoRA"))
    for figure in (
        number(lora.value),
        interval(*lora.interval),
        duration(lora.cost["training_seconds"]),
        byte_size(lora.cost["peak_memory"]),
        count(lora.cost["trained_parameters"]),
        byte_size(lora.cost["disk"]),
    ):
        assert figure in title
    marked = sum(point.is_recommended for own in drawn for point in own.points)
    assert html.count('class="ring"') == 2 * marked + 1 > 1  # and the legend's


def test_what_is_not_measured_for_a_contender_is_said() -> None:
    (forgetting,) = [own for own in trade_offs(comparison()) if own.cost.startswith("forgetting")]
    assert "majority class" in forgetting.missing
    assert "not measured for: " in outline(comparison()).sections["What quality costs"]


class TestFront:
    def test_none_on_it_is_beaten_in_both_and_all_others_are(self) -> None:
        for own in trade_offs(comparison()):
            sign = 1 if own.lower_is_cheaper else -1
            for point in own.points:
                beaten = [
                    other
                    for other in own.points
                    if sign * other.x <= sign * point.x
                    and other.y >= point.y
                    and (other.x, other.y) != (point.x, point.y)
                ]
                assert point.is_on_front == (not beaten)

    def test_equal_points_are_both_on_it(self) -> None:
        points = [(1.0, 2.0), (1.0, 2.0), (1.0, 1.0)]
        assert [is_on_front(point, points, True, True) for point in points] == [True, True, False]

    def test_directions(self) -> None:
        points = [(0.0, 1.0), (1.0, 2.0)]
        for higher, cheaper, expected in (
            (True, True, [True, True]),
            (False, True, [True, False]),
            (True, False, [False, True]),
            (False, False, [True, True]),
        ):
            assert [is_on_front(point, points, higher, cheaper) for point in points] == expected


class TestRows:
    def test_balance_counts_each_row_once(self) -> None:
        own = Result("a", "a", "trained", numerators=[1.0, 0.0, 1.0, 4.0], denominators=[1.0, 1.0, 1.0, 2.0])
        other = Result("b", "b", "trained", numerators=[0.0, 1.0, 1.0, 2.0], denominators=[1.0, 1.0, 1.0, 1.0])
        assert balance(own, other, True) == Balance(won=1, equal=2, lost=1)
        own.numerators[3] = 3.0
        assert balance(own, other, True) == Balance(won=1, equal=1, lost=2)
        assert balance(own, other, False) == Balance(won=2, equal=1, lost=1)

    def test_other_rows_have_none(self) -> None:
        assert (
            balance(
                Result("a", "a", "trained", numerators=[1.0]), Result("b", "b", "trained", numerators=[1.0, 0.0]), True
            )
            is None
        )

    def test_the_page_shows_it(self) -> None:
        state = comparison()
        best = max(state.done, key=lambda own: own.value or 0.0)
        shown = plain(outline(state).sections[f"Against the best: {best.title}"])
        for own in state.done:
            counted = balance(own, best, True)
            assert counted is not None
            assert counted.won + counted.equal + counted.lost == ROWS
            if own is not best:
                assert f"{counted.won} · {counted.equal} · {counted.lost}" in shown

    def test_answers_alike_stand_together(self) -> None:
        state = comparison(["lora", "full", "tfidf-nb"])
        for own, answer in zip(state.results, ("good", "good ", "bad"), strict=True):
            own.answers = [{"prompt": "a film", "reference": "good", "answer": answer, "score": 0.25}]
        html = comparison_page.render(state)
        assert html.count("<h3>a film</h3>") == 1
        assert html.count("as the reference") == 1
        assert len(re.findall(r"<p>(?:good|bad)</p>", html)) == 2
        shown = plain(outline(state).sections["Answers side by side"])
        assert shown.count("0.25") == 3
        assert all(own.title in shown for own in state.results)


def test_generating_contenders_have_a_time_to_first_token() -> None:
    state = comparison(["lora", "full"])
    for own in state.results:
        own.in_use["speed"] = {"kind": "generation", "inputs": 8, "latency": 0.25, "tokens_per_second": 31.25}
    shown = plain(outline(state).sections["In use"])
    assert "time to first token tokens/s" in shown
    assert "time to an answer" not in shown
    assert "250 ms" in shown
    assert number(31.25) in shown


class TestHoles:
    @pytest.mark.parametrize("hole", HOLES)
    def test_a_contender_without(self, hole: str) -> None:
        state = comparison()
        for own in state.results[1::2]:
            empty = getattr(Result("a", "a", "trained"), hole)
            setattr(own, hole, empty)
        outline(state)

    def test_nothing_begun(self) -> None:
        full = comparison()
        results = [Result(own.name, own.title, own.kind) for own in full.results]
        state = State(full.settings, results, row_counts={"kind": "labels", "training": 1600, "test": ROWS})
        parsed = outline(state)
        assert "The comparison is not finished." in parsed.sections[""]
        assert "What quality costs" not in parsed.sections
        assert "is still to come" in parsed.sections["Remarks"]
        assert terminal_chart(state, 100) == []

    def test_half_done(self) -> None:
        state = comparison(recommendation={})
        for own in state.results[6:]:
            fresh = Result(own.name, own.title, own.kind, trials=own.trials[:1])
            state.results[state.results.index(own)] = fresh
        state.results[-1].state, state.results[-1].reason = "left out", f"model: cannot {POISON}"
        parsed = outline(state)
        assert "What quality costs" in parsed.sections
        assert f"{state.results[-1].title} is left out: model: cannot {POISON}" in plain(parsed.sections["Remarks"])

    def test_a_single_contender(self) -> None:
        parsed = outline(comparison(["lora"], recommendation={}))
        assert "1 contender with a figure: there is nothing to choose between." in parsed.sections[""]
        assert "What quality costs" not in parsed.sections
        assert number(comparison(["lora"]).results[0].value) in parsed.sections["All contenders"]

    def test_no_forgetting(self) -> None:
        state = comparison()
        for own in state.results:
            own.forgetting = {}
        assert "Forgetting" not in outline(state).sections

    @pytest.mark.parametrize("bad", [None, math.nan, math.inf])
    def test_numbers_that_are_none(self, bad: float | None) -> None:
        state = comparison()
        for index, own in enumerate(state.results):
            holed = _with(bad, own, index)
            state.results[index] = holed
        outline(state)
        terminal_chart(state, 80)

    def test_a_state_that_is_whole_stays_as_it_is(self) -> None:
        state = comparison()
        assert finite_state(state) == state


def _with(bad: float | None, own: Result, place: int) -> Result:
    """A contender in which some numbers are none: others in each contender."""
    own = copy.deepcopy(own)
    if place % 5 == 0:
        own.value = bad
    own.interval = [bad, 0.9] if place % 3 == 0 else own.interval  # type: ignore[list-item]
    for number_, key in enumerate(sorted(own.cost)):
        if (place + number_) % 3 == 0:
            own.cost[key] = bad
    for forgotten in own.forgetting.values():
        forgotten[("before", "after", "interval")[place % 3]] = bad if place % 3 < 2 else [bad, bad]
    for number_, trial in enumerate(own.search):
        trial.score = bad if (place + number_) % 2 else trial.score
    own.numerators[::7] = [bad] * len(own.numerators[::7])  # type: ignore[list-item]
    own.by_seed[-1] = bad  # type: ignore[call-overload]
    own.memorisation = {"exposure": {"planted": bad, "control": bad}, "reproduced": None if place % 2 else {}}
    own.in_use = {"speed": {"latency": bad, "inputs": 8}, "merged": {"latency": 0.1}, "note": "cannot be merged"}
    for key in own.difference:
        own.difference[key] = bad if place % 2 and key != "differs" else own.difference[key]
    return own


def test_lower_is_better_and_far_values_are_logarithmic() -> None:
    state = comparison()
    state.measure |= {"better": "lower", "title": "perplexity"}
    for own in state.results:
        own.value = math.exp(8 * (1 - (own.value or 0.0)))
        own.interval = [own.value * 0.9, own.value * 1.1]
        own.numerators = [1 - row for row in own.numerators]
    (first, *_) = trade_offs(state)
    assert first.is_measure_log
    assert not first.higher_is_better
    assert "lower is better" in outline(state).sections["What quality costs"]


def test_what_came_from_outside_is_text() -> None:
    state = comparison(notes=[POISON], task=POISON)
    state.settings.model = state.settings.source = POISON
    state.measure["title"] = POISON
    state.machine["name"] = POISON
    state.recommendation |= {"title": POISON, "reasons": [POISON]}
    for own in state.results:
        own.title, own.notes = f"{own.name} {POISON}", [POISON]
        own.answers = [{"prompt": POISON, "reference": POISON, "answer": POISON}]
        own.in_use = {"speed": {"kind": POISON, "inputs": 1, "latency": 0.1}, "note": POISON}
        own.chosen["by"] = POISON
        own.cost["energy_how"] = own.cost["energy_note"] = POISON
        own.difference |= {"test": POISON} if own.difference else {}
        for forgotten in own.forgetting.values():
            forgotten |= {"title": POISON, "unit": POISON}
    parsed = outline(state)
    assert "alert(1)" in parsed.sections["Answers side by side"]


def test_written_whole_and_in_a_notebook(tmp_path: Path) -> None:
    state = comparison()
    comparison_page.write(tmp_path, state)
    page = (tmp_path / comparison_page.HTML).read_text(encoding="utf-8")
    assert page == comparison_page.render(state)
    assert comparison_page.notebook_html(state).startswith("<iframe ")


class TestLabels:
    def test_none_covers_another_or_a_point(self) -> None:
        points = [(40 + 7 * (n % 5), 50 + 5 * (n // 5)) for n in range(20)]
        boxes = place(points, [(60.0, 14.0)] * 20, Box(0, 0, 480, 320))
        assert all(boxes)
        for own, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[own + 1 :])
            assert not any(box.left < x < box.right and box.top < y < box.bottom for x, y in points)
            assert box.left >= 0
            assert box.right <= 480

    def test_one_alone_stands_beside_its_point(self) -> None:
        (box,) = place([(100.0, 100.0)], [(50.0, 14.0)], Box(0, 0, 300, 200))
        assert box == Box(108.0, 93.0, 158.0, 107.0)

    def test_without_room_there_is_none(self) -> None:
        assert place([(5.0, 5.0)], [(50.0, 14.0)], Box(0, 0, 40, 40)) == [None]


class TestTerminal:
    @pytest.mark.parametrize("width", [40, 60, 80, 110, 200])
    def test_it_fits_and_names_every_point(self, width: int) -> None:
        state = comparison(["majority", "tfidf-svm", "head", "lora", "full"])
        lines = terminal_chart(state, width)
        assert max(map(len, lines)) <= width
        drawing = [line.partition("|")[2] for line in lines if "|" in line]
        assert "".join(drawing).count("@") == 1
        assert "@ recommended" in "\n".join(lines)
        for own in state.done:
            assert own.title in " ".join(lines)

    def test_many_contenders_take_more_lines(self) -> None:
        state = comparison()
        lines = terminal_chart(state, 100)
        assert all(own.title[:25] in "\n".join(lines) for own in state.done)

    def test_equal_figures_stand_on_one_line(self) -> None:
        state = comparison(["tfidf-svm", "lora", "full"])
        for own in state.results:
            own.value, own.interval = 0.99, [0.975, 1.0]
        lines = terminal_chart(state, 80)
        drawing = [line.partition("|")[2] for line in lines if "|" in line]
        assert len(drawing) > 10
        assert sum(bool(line.strip()) for line in drawing) == 1

    def test_a_narrow_terminal_has_none(self) -> None:
        assert terminal_chart(comparison(), 39) == []


LABELS = """
return [...document.querySelectorAll(".trade-off:not(.sign)")].filter((e) => e.getClientRects().length).map((svg) => {
  const frame = svg.getBoundingClientRect();
  const box = (e) => {
    const r = e.getBoundingClientRect();
    return {text: e.textContent, left: r.left - frame.left, right: r.right - frame.left, top: r.top, bottom: r.bottom};
  };
  return {width: frame.width, texts: [...svg.querySelectorAll("text")].map(box),
          points: [...svg.querySelectorAll(".point")].map(box)};
});
"""
"""The texts and points of each chart that is shown."""


def touch(first: dict[str, Any], second: dict[str, Any], room: float = 1.0) -> bool:
    """Whether two boxes overlap by more than ``room`` both ways; letters fill less than the height of their box."""
    across = min(first["right"], second["right"]) - max(first["left"], second["left"])
    down = min(first["bottom"], second["bottom"]) - max(first["top"], second["top"])
    return across > room and down > 2 * room


class TestInABrowser:
    pytestmark = MARKS

    @pytest.mark.parametrize("width", [1280, 400])
    def test_no_labels_overlap_and_nothing_overflows(self, browser: Any, tmp_path: Path, width: int) -> None:
        comparison_page.write(tmp_path, comparison())
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 720}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((tmp_path / comparison_page.HTML).resolve().as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.get_log("browser") == []
        charts = browser.execute_script(LABELS)
        assert len(charts) == 4
        for chart in charts:
            for place_, own in enumerate(chart["texts"]):
                assert own["left"] >= -1
                assert own["right"] <= chart["width"] + 1
                assert [own["text"] for other in chart["texts"][place_ + 1 :] if touch(own, other)] == []
            labels = [own for own in chart["texts"] if own["text"] in {"LoRA", "full fine-tuning", "head only"}]
            assert labels
            assert [own["text"] for own in labels for point in chart["points"] if touch(own, point)] == []
        cut = browser.execute_script(
            "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
        )
        assert width < 720 or cut == 0  # a phone scrolls wide tables within themselves; a desk has room for all

    def test_a_point_shows_its_numbers(self, browser: Any, tmp_path: Path) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By

        comparison_page.write(tmp_path, comparison())
        browser.set_window_size(1280, 2200)
        browser.get((tmp_path / comparison_page.HTML).resolve().as_uri())
        point = browser.find_element(By.CSS_SELECTOR, ".trade-off.desk .point.recommended")
        ActionChains(browser).move_to_element(point).perform()
        shown = browser.find_element(By.ID, "say")
        assert shown.is_displayed()
        assert shown.text == point.get_attribute("data-say")
