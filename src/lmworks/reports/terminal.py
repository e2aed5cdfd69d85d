"""The card on a terminal: two small tables, the curves as one line each, sample answers side by side.

On a terminal with colours and rules; elsewhere (a file, a pipe) plain text of the same words.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lmworks.base import figures
from lmworks.reports import classification_tables, entity_tables, facts, question_tables
from lmworks.reports.measures import baseline_note
from lmworks.reports.tables import table as _table

Card = dict[str, Any]
ANSWERS = 6  # of one prompt, from the first to the last
PLAIN_WIDTH = 120  # of lines that no terminal bounds
WIDE = 100  # from so many columns on, a change and its interval stand side by side
BARS = 60  # of a curve
_HEIGHTS = "▁▂▃▄▅▆▇█"
_COLOURS = {"better": "green", "worse": "red"}


def show(card: Card, console: Console | None = None) -> None:
    """Print a card of :func:`lmworks.reports.card.build`."""
    if console is None:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    console.print(render(card, console.width))


def render(card: Card, width: int = PLAIN_WIDTH) -> RenderableType:
    """The card as something that rich prints in so many columns."""
    parts: list[RenderableType] = [Text(card["summary"], style="bold"), Text(), _title(card)]
    parts += [Text(f"! {warning}", style="yellow") for warning in card["run"]["warnings"]]
    parts += [Text(f"→ {advice}", style="yellow") for advice in card["advice"]]
    if card["measures"]:
        parts += [Text(), _measures(card, width)]
    parts += _of_kind(card)
    for part in card["tasks"]:
        parts += _of_task(part, width)
    parts += [Text(), _costs(card)]
    parts += [Text(f"· {note}", style="dim") for note in card["run"]["notes"]]
    parts += _curves(card, width)
    if card["progress"]:
        parts += [Text(), *(_grown(sample) for sample in card["progress"])]
    elif card["samples"]:
        parts += [Text(), *(_sample(sample) for sample in card["samples"])]
    if card["measures"] or card["tasks"]:
        parts += [Text(card["how"], style="dim")]
    return Group(*parts)


def _of_kind(part: Card) -> list[RenderableType]:
    """What only a classifier, a tagger or a model that answers questions has."""
    drawn = classification_tables.render(part["classification"])
    return [*drawn, *entity_tables.render(part["entities"]), *question_tables.render(part["questions"])]


def _of_task(part: Card, width: int) -> list[RenderableType]:
    """One of several tasks: its figures, and those beside the same task trained alone."""
    parts: list[RenderableType] = [Text(), Text(facts.task_title(part), style="bold")]
    for shown in (part, part["alone"]):
        if shown["measures"]:
            parts += [_measures(shown, width), Text()]
    return [*parts, *_of_kind(part)]


def _title(card: Card) -> Text:
    run = card["run"]
    title = Text()
    title.append(f"{facts.title(run['model'])} on {facts.data_title(card)}")
    about = [run["method"], run["precision"], facts.state(run)]
    return title.append(" · " + " · ".join(str(part) for part in about if part))


def _measures(card: Card, width: int) -> Table:
    """A line for each figure; where the terminal is narrow, the interval stands below its change."""
    compared = card["compared"]
    after = "after" if compared["after"] != "step" else f"step {figures.count(compared['step'])}"
    after = compared.get("after_name") or after
    changes = ["change", "95 % interval"] if width >= WIDE else ["change\n95 % interval"]
    before = card["compared"].get("before_name") or "before"
    table = _table("on rows not trained on", before, after, *changes, "rows", "")
    verdicts = table.columns[-1]
    verdicts.justify, verdicts.no_wrap, verdicts.overflow = "left", False, "fold"
    verdicts.min_width = max(len(word) for measure in card["measures"] for word in (measure["verdict"] or "-").split())
    for measure in card["measures"]:
        change = measure["change"] or {"value": None, "interval": None}
        ends = change["interval"]
        name = Text(measure["title"])
        if measure["unit"]:
            name.append(f", {measure['unit']}", style="dim")
        if measure.get("baseline"):
            name.append(f"\n{baseline_note(measure['baseline'])}", style="dim")
        cells = [
            figures.signed(change["value"]),
            figures.interval(ends[0], ends[1], True) if ends else figures.UNKNOWN,
        ]
        table.add_row(
            name,
            figures.number(measure["before"]["value"]),
            Text(figures.number(measure["after"]["value"]), style="bold"),
            *(cells if width >= WIDE else ["\n".join(cells)]),
            figures.count(measure["rows"]),
            Text(measure["verdict"] or "", style=_COLOURS.get(measure["verdict"], "")),
        )
    return table


def _costs(card: Card) -> RenderableType:
    costs = _table("cost", "planned", "happened", "ratio")
    for line in card["planned"]:
        formatter = facts.FORMATTERS[line["unit"]]
        ratio = figures.number(line["ratio"]) if line["ratio"] else ""
        costs.add_row(line["what"], formatter(line["planned"]), formatter(line["happened"]), ratio)
    list_ = Table.grid(padding=(0, 2))
    list_.add_column(style="dim")
    list_.add_column()
    for name, text in (*facts.cost_lines(card), *facts.run_lines(card)):
        list_.add_row(Text(name), Text(text))
    return Columns([costs, list_] if card["planned"] else [list_], padding=(1, 4))  # side by side where there is room


def _curves(card: Card, width: int) -> list[RenderableType]:
    lines: list[RenderableType] = []
    curves = card["curves"]
    by_task = {f"loss, {name}": points for name, points in curves["training_by_task"].items()}
    for name, curve in (by_task or {"training loss": curves["training"], "held-out loss": curves["held_out"]}).items():
        points = [value for _, value in curve]
        if len(points) > 1:
            ends = f"{figures.number(points[0])} → {figures.number(points[-1])}"
            label = f"{name:<14}"
            bars = max(1, min(BARS, width - len(label) - len(ends) - 2))
            lines.append(Text.assemble((label, "dim"), sparkline(points, bars), (f"  {ends}", "dim")))
    return [Text(), *lines] if lines else []


def sparkline(values: list[float], width: int = BARS) -> str:
    """Values as bars of eight heights; where there are more values than bars, each bar is the mean of neighbours."""
    bars = min(width, len(values))
    bounds = [index * len(values) // bars for index in range(bars + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(bounds)]
    low, high = min(means), max(means)
    room = (high - low) or 1
    return "".join(_HEIGHTS[round((mean - low) / room * (len(_HEIGHTS) - 1))] for mean in means)


def _sample(sample: Card) -> RenderableType:
    sides = [side for side in ("before", "after", "reference") if sample[side] is not None]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim", expand=True)
    for side in sides:
        table.add_column(side, ratio=1)
    table.add_row(*(Text(str(sample[side]).strip()) for side in sides))
    return Group(Text(sample["prompt"], style="bold"), Padding(table, (0, 0, 1, 0)))


def _grown(sample: Card) -> RenderableType:
    """One prompt, and the model's answers at some steps."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column()
    for step, answer in facts.spread_answers(sample["answers"], ANSWERS):
        table.add_row(f"step {figures.count(step)}", Text(str(answer).strip()))
    if sample["reference"]:
        table.add_row("the text", Text(str(sample["reference"]).strip(), style="italic"))
    return Group(Text(str(sample["prompt"]).strip(), style="bold"), Padding(table, (0, 0, 1, 0)))
