"""What quality costs, as inline SVG: a chart for each cost, its points labelled, the Pareto front as a line.

Each chart is drawn twice, for a desk and for a phone; the style sheet shows the one that fits. Colours come from its
classes. Each point carries all its numbers as its title, which the page's script shows beside the pointer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap

from lmworks.base.figures import list_names, shorten
from lmworks.comparisons import label_places
from lmworks.comparisons.chart_scales import Scale, scale, short_number
from lmworks.comparisons.comparison_state import State
from lmworks.comparisons.label_places import Box
from lmworks.comparisons.trade_offs import Point, TradeOff, trade_offs
from lmworks.reports.markup import text

LEFT, RIGHT, TOP, BOTTOM = 46, 16, 30, 30
LETTER, LINE, BOLD = 12, 15, 7.4
"""Sizes of a letter, a line and about a bold letter's width, in units of the drawings, about a pixel each."""
RADIUS = 5.0
NARROW, WIDE = "iIjlftr.,:;'|!()[] -1", "mwMW@%&"


@dataclass(frozen=True)
class Canvas:
    """One of the two drawings of a chart.

    Attributes:
        kind: class of the style sheet.
        width, height: of the drawing.
        row: height that is added for each point beyond MANY.
        longest: characters of a label; what is longer is cut, and whole in the title.
    """

    kind: str
    width: int
    height: int
    row: int
    longest: int


MANY = 8
CANVASES = (Canvas("desk", 480, 320, 12, 34), Canvas("phone", 340, 330, 18, 26))


def render(state: State) -> str:
    """The charts and their legend; empty with fewer than two points in each.

    Args:
        state: with finite numbers (comparisons/finite_figures).
    """
    charts = trade_offs(state)
    if not charts:
        return ""
    points = [point for trade_off in charts for point in trade_off.points]
    keys = [
        ("front", False, "on the Pareto front: no other is at least as good in both and better in one", True),
        ("", False, "not on it", any(not point.is_on_front for point in points)),
        ("", True, "square: does not adapt the model", any(point.is_simple for point in points)),
        ("front recommended", False, "recommended", any(point.is_recommended for point in points)),
    ]
    signs = [(_mark(12, 8, is_simple, kind), name) for kind, is_simple, name, is_there in keys if is_there]
    if any(point.y_ends for point in points):
        signs.append(('<line class="ends" x1="12" x2="12" y1="1" y2="15"/>', "95 % interval"))
    legend = "".join(
        f'<li><svg class="trade-off sign" viewBox="0 0 24 16" aria-hidden="true">{sign}</svg>{text(name)}</li>'
        for sign, name in signs
    )
    return f'<div class="charts">{"".join(map(_figure, charts))}</div><ul class="legend">{legend}</ul>'


def _figure(trade_off: TradeOff) -> str:
    drawings = "".join(_drawing(trade_off, canvas) for canvas in CANVASES)
    missing = f"not measured for: {list_names(trade_off.missing)}" if trade_off.missing else ""
    left_out = f'<p class="detail">{text(missing)}</p>' if missing else ""
    return f"<figure>{drawings}{left_out}</figure>"


def _drawing(trade_off: TradeOff, canvas: Canvas) -> str:
    """One chart; as high as its labels need."""
    height = canvas.height + canvas.row * max(0, len(trade_off.points) - MANY)
    while True:
        frame = _Frame.of(trade_off, canvas, height)
        labels = frame.labels()
        if all(labels) or height > 3 * canvas.height:
            break
        height += canvas.height // 4
    said = text(f"{trade_off.measure} against {trade_off.cost}: {'; '.join(point.title for point in trade_off.points)}")
    parts = [
        f'<svg class="trade-off {canvas.kind}" viewBox="0 0 {canvas.width} {height}" role="img" aria-label="{said}">',
        *frame.axes(),
        frame.front(),
        *(frame.ends(point) for point in trade_off.points),
        *(frame.label(point, box) for point, box in zip(trade_off.points, labels, strict=True) if box),
        *(frame.point(point) for point in reversed(trade_off.points)),
        "</svg>",
    ]
    return "".join(parts)


@dataclass(frozen=True)
class _Frame:
    """A chart with its scales; ``floor`` is where the horizontal axis is."""

    trade_off: TradeOff
    canvas: Canvas
    height: int
    floor: int
    across: Scale
    up: Scale

    @classmethod
    def of(cls, trade_off: TradeOff, canvas: Canvas, height: int) -> _Frame:
        xs = [x for point in trade_off.points for x in (point.x, *(point.x_ends or []))]
        ys = [y for point in trade_off.points for y in (point.y, *(point.y_ends or []))]
        across = scale(xs, LEFT, canvas.width - RIGHT, trade_off.is_log)
        floor = height - BOTTOM - LINE * len(_name_of_axis(trade_off, canvas))
        return cls(trade_off, canvas, height, floor, across, scale(ys, floor, TOP, trade_off.is_measure_log))

    def place(self, point: Point) -> tuple[float, float]:
        """Where a point is drawn."""
        return self.across(point.x), self.up(point.y)

    def axes(self) -> list[str]:
        """Lines, numbers and names of both axes."""
        trade_off, right = self.trade_off, self.canvas.width - RIGHT
        parts, levels = [], self.up.ticks(28)
        form = short_number(levels)
        for value in levels:
            y = self.up(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            name = f'x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end"'
            parts.append(f'<text class="tick" {name}>{text(form(value))}</text>')
        steps = self.across.ticks(58, trade_off.rounds)
        form = trade_off.tick or short_number(steps)
        for value in steps:
            x = self.across(value)
            parts.append(
                f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{self.floor}" y2="{self.floor + 4}"/>'
                f'<text class="tick" x="{x:.1f}" y="{self.floor + 18}" text-anchor="middle">{text(form(value))}</text>'
            )
        better = f"{'higher' if trade_off.higher_is_better else 'lower'} is better"
        measure = shorten(trade_off.measure, int((self.canvas.width - 120) / BOLD))
        parts.append(f'<text class="name" x="0" y="12">{text(measure)} <tspan>({better})</tspan></text>')
        for place, line in enumerate(_name_of_axis(trade_off, self.canvas)):
            end = f'x="{right}" y="{self.floor + BOTTOM + LINE * place + 8}" text-anchor="end"'
            parts.append(f'<text class="name" {end}>{text(line)}</text>')
        pieces: list[tuple[float, float]] = [(LEFT, right)]
        if self.across.zero is not None:  # what is zero stands apart
            pieces = [(LEFT, self.across.start - 14), (self.across.start - 6, right)]
        parts += [
            f'<line class="axis" x1="{a:.1f}" x2="{b:.1f}" y1="{self.floor}" y2="{self.floor}"/>' for a, b in pieces
        ]
        return parts

    def front(self) -> str:
        """The Pareto front: what is reached at each cost."""
        corners = self._corners()
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
        return f'<path class="front" d="M{path}"/>' if len(corners) > 1 else ""

    def _corners(self) -> list[tuple[float, float]]:
        corners: list[tuple[float, float]] = []
        for point in self.trade_off.front:
            x, y = self.place(point)
            corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
        end = self.across.end if self.trade_off.lower_is_cheaper else self.across.start
        return [*corners, (end, corners[-1][1])] if corners else []

    def ends(self, point: Point) -> str:
        """The lines of a point's intervals."""
        kind = f"ends{' front' if point.is_on_front else ''}"
        return "".join(
            f'<line class="{kind}" x1="{box.left:.1f}" x2="{box.right:.1f}" y1="{box.top:.1f}" y2="{box.bottom:.1f}"/>'
            for box in self._ends(point)
        )

    def _ends(self, point: Point) -> list[Box]:
        x, y = self.place(point)
        boxes = []
        if point.y_ends:
            low, high = sorted(map(self.up, point.y_ends))
            boxes.append(Box(x, low, x, high))
        if point.x_ends:
            low, high = sorted(map(self.across, point.x_ends))
            boxes.append(Box(low, y, high, y))
        return boxes

    def point(self, point: Point) -> str:
        """The sign of a point."""
        kind = f"{'front' if point.is_on_front else ''}{' recommended' if point.is_recommended else ''}".strip()
        said = text("\n".join(point.lines))
        return _mark(*self.place(point), point.is_simple, kind, f' data-say="{said}"', f"<title>{said}</title>")

    def labels(self) -> list[Box | None]:
        """Where the labels stand."""
        sizes = [(text_width(self._label(point)) + 4, float(LINE)) for point in self.trade_off.points]
        lines = [_wider(box) for point in self.trade_off.points for box in self._ends(point)]
        corners = self._corners()
        for (x, y), (end, below) in pairwise(corners):
            lines.append(_wider(Box(min(x, end), min(y, below), max(x, end), max(y, below))))
        area = Box(LEFT + 2, TOP - 8, self.canvas.width, self.floor - 2)
        return label_places.place([self.place(point) for point in self.trade_off.points], sizes, area, lines)

    def label(self, point: Point, box: Box) -> str:
        """A label, and where it is not beside its point a line to it."""
        (x, y), (end, below) = self.place(point), box.nearest(*self.place(point))
        distance = ((x - end) ** 2 + (y - below) ** 2) ** 0.5
        start = (RADIUS + 1) / (distance or 1.0)
        leader = (
            f'<line class="leader" x1="{x + start * (end - x):.1f}" y1="{y + start * (below - y):.1f}" '
            f'x2="{end:.1f}" y2="{below:.1f}"/>'
            if distance > label_places.Spacing().gap + 5
            else ""
        )
        kind = f"label{' front' if point.is_on_front else ''}{' recommended' if point.is_recommended else ''}"
        # a label on the left of its point ends there, whatever its letters measure
        is_left = box.right <= x
        place = f'x="{box.right:.1f}" text-anchor="end"' if is_left else f'x="{box.left:.1f}"'
        return f'{leader}<text class="{kind}" {place} y="{box.top + 11.5:.1f}">{text(self._label(point))}</text>'

    def _label(self, point: Point) -> str:
        return shorten(point.title, self.canvas.longest)


def _name_of_axis(trade_off: TradeOff, canvas: Canvas) -> list[str]:
    """The lines of the horizontal axis' name."""
    return wrap(
        f"{trade_off.cost}{', logarithmic' if trade_off.is_log else ''}", int((canvas.width - LEFT - RIGHT) / BOLD)
    )


def _wider(box: Box) -> Box:
    return Box(box.left - 1, box.top - 1, box.right + 1, box.bottom + 1)


def _mark(x: float, y: float, is_simple: bool, kind: str, attributes: str = "", inner: str = "") -> str:
    """The sign of a point: a square for what does not adapt the model, a circle for the others."""
    side = 2 * RADIUS - 1
    name, shape = "circle", f'cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS:g}"'
    if is_simple:
        name, shape = "rect", f'x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:g}" height="{side:g}"'
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS + 3.5:g}"/>' if "recommended" in kind else ""
    return f'{ring}<{name} class="point {kind}" {shape}{attributes}>{inner}</{name}>'


def text_width(letters: str) -> float:
    """About how wide a text is drawn, rather more than less, since the font is the reader's."""
    return LETTER * sum(
        0.36 if letter in NARROW else 0.92 if letter in WIDE else 1.05 if ord(letter) > 0x2E80 else 0.72
        if letter.isupper() else 0.6
        for letter in letters
    )  # fmt: skip
