"""A ladder as one HTML file: its table, bars with their intervals, a sample of each rung; no network, no other file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmworks.base.figures import interval, number
from lmworks.base.files import atomic_write
from lmworks.comparisons import ladder_report
from lmworks.comparisons.ladder_settings import LadderState, RungState
from lmworks.reports.markup import document, frame, prose, table, text

HTML = "ladder.html"


@dataclass(frozen=True)
class _Layout:
    """Sizes of the drawing, in units of about a pixel: its width, a rung, room for names and for figures.

    Attributes:
        kind: class of the style sheet: for wide screens, or for phones.
        left: room for names beside the bars; 0: they stand above them.
    """

    kind: str
    width: int
    row: int
    left: int
    right: int = 64


LAYOUTS = (_Layout("desk", 760, 34, 230), _Layout("phone", 340, 50, 0))
BAR = 18


def write(folder: Path, state: LadderState) -> Path:
    """Write ladder.html into a ladder's folder, whole or not at all."""
    atomic_write(folder / HTML, render(state))
    return folder / HTML


def notebook_html(state: LadderState) -> str:
    """The page as part of another one, such as a notebook's, in a frame of its own."""
    return frame(f"The ladder on {state.settings.source}", render(state))


def render(state: LadderState) -> str:
    """The whole page."""
    title = f"The ladder on {state.settings.source}"
    heading = ladder_report.heading(state) if state.compared else "Not begun"
    rows = [
        f'<tr><th scope="row">{text(cells[0])}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells[1:])}</tr>'
        for cells in ladder_report.rows(state)
    ]
    remarks = "".join(f"<li>{prose(line)}</li>" for line in [*ladder_report.remarks(state), *state.notes])
    body = (
        f'<header><p class="eyebrow">Ladder</p><h1>{text(title)}</h1>'
        f'<p class="summary">{prose(heading)}</p></header>\n'
        f"<section><h2>What each step was worth</h2>{_bars(state)}</section>\n"
        f"<section>{table(ladder_report.HEADS[state.settings.task], rows)}</section>\n"
        f'<section class="notes"><ul>{remarks}</ul></section>\n'
        f"{_samples(state)}"
    )
    return document(title, body, _STYLE)


def _bars(state: LadderState) -> str:
    """A bar for each rung that is done, from zero, with its interval as a line; drawn for wide screens and phones."""
    done = [step for step in state.steps if step.state == "done" and step.value is not None]
    if not done:
        return ""
    most = max(max(step.value or 0.0, *(step.interval or [0.0])) for step in done) or 1.0
    measure = state.compared["measure"]
    label = text(f"{measure} of each rung, with 95 % intervals")
    drawings = [
        f'<svg class="ladder {layout.kind}" viewBox="0 0 {layout.width} {layout.row * len(done)}" role="img" '
        f'aria-label="{label}">{"".join(_bar(step, place, most, measure, layout) for place, step in enumerate(done))}'
        "</svg>"
        for layout in LAYOUTS
    ]
    legend = f'<ul class="legend"><li>{text(measure)}; the line is the 95 % interval</li></ul>'
    return f"<figure>{''.join(drawings)}{legend}</figure>"


def _bar(step: RungState, place: int, most: float, measure: str, layout: _Layout) -> str:
    scale, left = (layout.width - layout.left - layout.right) / most, layout.left
    value = step.value or 0.0
    low, high = step.interval or [value, value]
    middle = layout.row * place + (layout.row / 2 if left else layout.row - BAR / 2 - 6)
    end = left + scale * max(value, high)
    name = f'x="{left - 10}" y="{middle + 4:.1f}" text-anchor="end"' if left else f'x="0" y="{middle - BAR:.1f}"'
    tooltip = text(f"{step.title} · {measure} {number(value)} ({interval(low, high)})")
    return (
        f'<text class="name" {name}>{text(step.title)}</text>'
        f'<rect class="bar spot" x="{left}" y="{middle - BAR / 2:.1f}" width="{max(0.5, scale * value):.1f}" '
        f'height="{BAR}" data-say="{tooltip}"><title>{tooltip}</title></rect>'
        f'<line class="ends" x1="{left + scale * low:.1f}" x2="{left + scale * high:.1f}" y1="{middle:.1f}" '
        f'y2="{middle:.1f}"/>'
        f'<text class="figure" x="{end + 8:.1f}" y="{middle + 4:.1f}">{text(number(value))}</text>'
    )


def _in_few_lines(sample: str) -> str:
    """A sample without empty lines and characters that cannot be printed."""
    lines = ("".join(letter for letter in line if letter.isprintable()).strip() for line in sample.splitlines())
    return "\n".join(filter(None, lines))


def _samples(state: LadderState) -> str:
    rows = [
        f'<tr><th scope="row">{text(step.title)}</th><td class="text">{text(_in_few_lines(step.sample))}</td></tr>'
        for step in state.steps
        if step.sample is not None
    ]
    if not rows:
        return ""
    prompt = f"<h3>{text(state.prompt)}</h3>{table([], rows, 'grown')}"
    return f'<section><h2>How each goes on</h2><div class="sample">{prompt}</div></section>\n'


_STYLE = (
    ".ladder { width: 100%; height: auto; display: block; } .ladder text { fill: var(--soft); font-size: 13px; }\n"
    ".ladder text.figure { fill: var(--ink); } .ladder .bar { fill: var(--accent); fill-opacity: 0.75; }\n"
    ".ladder .bar:hover { fill-opacity: 1; } .ladder .ends { stroke: var(--ink); stroke-width: 2; }\n"
    ".ladder.phone { display: none; }\n"
    "@media (max-width: 720px) { .ladder.desk { display: none; } .ladder.phone { display: block; }\n"
    "  .grown, .grown tbody, .grown tr, .grown th, .grown td { display: block; width: auto; padding-left: 0; }\n"
    "  .grown td.text { border-top: 0; padding-top: 0; } }\n"
)
