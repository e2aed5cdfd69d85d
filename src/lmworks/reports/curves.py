"""The card's curves as inline SVG: axes, ticks, legend, titles that a screen reader says. Draws points, knows no run.

Colours come from the page's style sheet through classes, so that light and dark need one drawing. Each point that
stands for a measurement carries its own text; the page's script shows it, and without the script it is the title.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lmworks.base import figures

LEFT, RIGHT, TOP, BOTTOM = 52, 12, 28, 42
FEW_POINTS = 2  # a line of at most this many points is drawn as points too

Points = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Canvas:
    """One of the two drawings of a chart; the style sheet shows the one that fits the screen.

    Attributes:
        kind: class of the style sheet.
        width, height: in units of the drawing, about a pixel each, so that letters have the size they are given.
        points: most points of a line; more are not seen.
        ticks: about how many steps are named.
    """

    kind: str
    width: int
    height: int
    points: int
    ticks: int


CANVASES = (Canvas("desk", 720, 300, 600, 6), Canvas("phone", 320, 240, 300, 4))


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: what the legend calls it.
        kind: class of the style sheet: "raw", "smooth" or "held".
        points: (step, figure) in order of steps.
        dots: draw each point, with its own text.
    """

    name: str
    kind: str
    points: Points
    dots: bool = False


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5, 5 times a power of ten) that span low..high in about this many steps."""
    if not high > low:
        low, high = low - (abs(low) or 1) * 0.05, high + (abs(high) or 1) * 0.05
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9)
    return [round(n * width, 12) for n in range(first, last + 1)]


def smooth(points: Points) -> tuple[list[list[float]], int]:
    """The running mean of a noisy curve, and of how many neighbours: about a twentieth of the points, an odd number."""
    reach = max(len(points) // 40, 1)
    means = []
    for place, (step, _) in enumerate(points):
        near = points[max(place - reach, 0) : place + reach + 1]
        means.append([step, sum(figure for _, figure in near) / len(near)])
    return means, 2 * reach + 1


def draw(lines: Sequence[Line], title: str, below: str, beside: str) -> str:
    """An SVG figure of the curves, once for a desk and once for a phone; the empty string where there is no point.

    Args:
        lines: the curves, the first at the back.
        title: said by screen readers.
        below, beside: what the axes are.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    drawings = "".join(_drawing(canvas, lines, title, below, beside) for canvas in CANVASES)
    legend = "".join(f'<li><span class="key {line.kind}"></span>{escape(line.name)}</li>' for line in lines)
    return f'<figure>{drawings}<ul class="legend">{legend}</ul></figure>'


def _drawing(canvas: Canvas, lines: Sequence[Line], title: str, below: str, beside: str) -> str:
    lines = [
        Line(line.name, line.kind, _thinned(line.points, canvas.points), line.dots or len(line.points) <= FEW_POINTS)
        for line in lines
    ]
    places = [(x, y) for line in lines for x, y in line.points]
    first, last = min(x for x, _ in places), max(x for x, _ in places)
    steps = [step for step in ticks(first, last, canvas.ticks) if step == int(step)] or [first]
    values = ticks(*_span([y for _, y in places]))
    frame = _Frame(canvas, min(steps[0], first), last, values[0], values[-1])
    middle = (LEFT + canvas.width - RIGHT) / 2
    parts = [
        f'<svg viewBox="0 0 {canvas.width} {canvas.height}" role="img" aria-label="{escape(title, quote=True)}" '
        f'class="curves {canvas.kind}">',
        *_grid(frame, steps, values),
        f'<text x="{middle}" y="{canvas.height - 4}" text-anchor="middle">{escape(below)}</text>',
        f'<text x="0" y="12">{escape(beside)}</text>',
        *(_line(frame, line) for line in lines),
        "</svg>",
    ]
    return "".join(parts)


def _span(values: list[float]) -> tuple[float, float]:
    """The range to show: all values, but for the single far ones that would flatten the rest."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    if len(ordered) >= 40:
        inner_low, inner_high = ordered[len(ordered) // 100], ordered[-1 - len(ordered) // 100]
        room = inner_high - inner_low
        low, high = max(low, inner_low - room), min(high, inner_high + room)
    return low, high


@dataclass(frozen=True)
class _Frame:
    """Where a point of the plane lies on the drawing; what lies outside is drawn at the border."""

    canvas: Canvas
    left: float
    right: float
    low: float
    high: float

    def x(self, step: float) -> float:
        fraction = (step - self.left) / (self.right - self.left) if self.right > self.left else 0.5
        return LEFT + min(max(fraction, 0), 1) * (self.canvas.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        fraction = (value - self.low) / ((self.high - self.low) or 1)
        return TOP + (1 - min(max(fraction, 0), 1)) * (self.canvas.height - TOP - BOTTOM)


def _grid(frame: _Frame, steps: Sequence[float], values: Sequence[float]) -> list[str]:
    parts = []
    right = frame.canvas.width - RIGHT
    places = max(0, *(len(f"{v:g}".partition(".")[2]) for v in values if "e" not in f"{v:g}"), 0)
    for value in values:
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = f"{value:.{places}f}"
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    floor = frame.canvas.height - BOTTOM
    for step in steps:
        if frame.left <= step <= frame.right:
            x = frame.x(step)
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>')
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{figures.count(step)}</text>'
            )
    parts.append(f'<line class="mark" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    return parts


def _line(frame: _Frame, line: Line) -> str:
    places = [(frame.x(x), frame.y(y)) for x, y in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f'<path class="{line.kind}" d="{path}"><title>{escape(line.name)}</title></path>']
    for (step, value), (x, y) in zip(line.points, places, strict=True):
        text = escape(f"{line.name}, step {figures.count(step)}: {figures.number(value, 4)}", quote=True)
        if line.dots:
            parts.append(
                f'<circle class="{line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="4" data-say="{text}">'
                f"<title>{text}</title></circle>"
            )
        elif line.kind == "smooth" or len(line.points) <= frame.canvas.points // 4:
            parts.append(f'<circle class="touch" cx="{x:.1f}" cy="{y:.1f}" r="7" data-say="{text}"/>')
    return "".join(parts)


def _thinned(points: Points, most: int) -> Points:
    """Every n-th point, with the first and the last, so that a long run's page stays small."""
    every = -(-len(points) // most)
    thinned = points[::every]
    return thinned if every == 1 or thinned[-1] == points[-1] else [*thinned, points[-1]]
