"""Norms of gradients by distance and by depth, as one HTML file: two drawings with logarithmic scales; no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lmworks.reports.markup import PALETTE, document, palette_variables, text

WIDTH, HEIGHT, LEFT, BOTTOM, EDGE = 760, 380, 64, 44, 14
LOWEST = 1e-12  # smaller norms are drawn at the lower edge
Place = Callable[[int, float], tuple[float, float]]
"""Number of the place and norm -> the point in the drawing."""


@dataclass(frozen=True)
class Drawing:
    """One drawing.

    Attributes:
        title: above it. about: a sentence or two below the title.
        below: what the axis is.
        curves: name -> norms at 0, 1, 2 ... of the axis.
        first: number of the first place.
    """

    title: str
    about: str
    below: str
    curves: Mapping[str, Sequence[float]]
    first: int = 0


def render(drawings: Sequence[Drawing], title: str) -> str:
    """The whole page."""
    sections = "".join(
        f'<section><h2>{text(drawing.title)}</h2><p class="soft">{text(drawing.about)}</p>{_figure(drawing)}</section>'
        for drawing in drawings
    )
    header = f'<header><p class="eyebrow">Gradients</p><h1>{text(title)}</h1></header>'
    return document(title, f"{header}\n{sections}", _style())


def _figure(drawing: Drawing) -> str:
    longest = max(map(len, drawing.curves.values()))
    low, high = _decades([max(norm, LOWEST) for norms in drawing.curves.values() for norm in norms])

    def place(index: int, norm: float) -> tuple[float, float]:
        """The point of a norm in the drawing."""
        across = index / max(1, longest - 1)
        up = (math.log10(max(norm, LOWEST)) - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - EDGE), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - EDGE)

    parts = [*_axes(drawing, longest, low, high, place)]
    for number, (name, norms) in enumerate(drawing.curves.items()):
        points = [place(index, norm) for index, norm in enumerate(norms)]
        colour = f"c{number % len(PALETTE)}"
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="{colour}" fill="none" stroke-width="2" points="{line}"/>')
        parts += [
            f'<circle class="{colour} spot" cx="{x:.1f}" cy="{y:.1f}" r="4" '
            f'data-say="{text(f"{name} · {drawing.below} {index + drawing.first}: {norm:.3g}")}"/>'
            for index, (norm, (x, y)) in enumerate(zip(norms, points, strict=True))
        ]
    legend = "".join(
        f'<li><span class="key c{number % len(PALETTE)}"></span>{text(name)}</li>'
        for number, name in enumerate(drawing.curves)
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(drawing.title)}">'
        f'{"".join(parts)}</svg><ul class="legend">{legend}</ul></figure>'
    )


def _axes(drawing: Drawing, longest: int, low: int, high: int, place: Place) -> list[str]:
    """Lines and numbers of the scales: powers of ten upwards, about eight places across."""
    parts, every = [], max(1, (high - low) // 8)
    for power in range(low, high + 1, every):
        y = place(0, 10.0**power)[1]
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - EDGE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="number" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    step = max(1, round(longest / 8))
    for index in range(0, longest, step):
        x = place(index, 1.0)[0]
        y = HEIGHT - BOTTOM + 18
        parts.append(f'<text class="number" x="{x:.1f}" y="{y}" text-anchor="middle">{index + drawing.first}</text>')
    middle = (LEFT + WIDTH - EDGE) / 2
    parts.append(
        f'<text class="number" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{text(drawing.below)}</text>'
    )
    return parts


def _decades(norms: Sequence[float]) -> tuple[int, int]:
    """The powers of ten between which all norms lie."""
    low, high = math.floor(math.log10(min(norms))), math.ceil(math.log10(max(norms)))
    return low, max(high, low + 1)


def _style() -> str:
    """The curves in the colours of the palette; more curves than colours begin again with the first."""
    rules = "".join(
        f"polyline.c{n} {{ stroke: var(--c{n}); }} .spot.c{n} {{ fill: var(--c{n}); }} "
        f".key.c{n} {{ border-color: var(--c{n}); }}\n"
        for n in range(len(PALETTE))
    )
    plain = ".rule { stroke: currentColor; opacity: 0.15; } .number { fill: currentColor; font-size: 12px; }\n"
    plain += ".spot { opacity: 0; } .spot:hover { opacity: 1; }\n"
    return f"{palette_variables('c')}{rules}{plain}"
