"""Where the labels of points stand in a chart, so that none covers another. Pure geometry, in any unit.

Each label in turn takes the nearest place to its point that is free; crossing a line of the chart costs some distance.
Several orders of the labels are tried, and the one that costs least is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Pair = tuple[float, float]
NO_PLACE = 1000.0
"""Distance that a label without a place costs."""
REACHES = (30.0, 80.0, 200.0)
"""Distances from a point within which a place is looked for, one after another; then everywhere."""
SAMPLES = 8
"""Places of a leader line at which it is looked whether it crosses a label."""


@dataclass(frozen=True)
class Box:
    """A rectangle; the vertical axis counts downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two have an inner point in common."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle that is nearest to another point."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


@dataclass(frozen=True)
class Spacing:
    """How densely places are tried.

    Attributes:
        across, down: steps from one place to the next.
        gap: between a point and its label.
        crossing: distance that crossing a line costs.
    """

    across: float = 5.0
    down: float = 4.0
    gap: float = 8.0
    crossing: float = 14.0


def place(
    points: Sequence[Pair],
    sizes: Sequence[Pair],
    area: Box,
    lines: Sequence[Box] = (),
    spacing: Spacing | None = None,
) -> list[Box | None]:
    """The rectangle of each label; None where no place is left.

    Args:
        points: (x, y) of what is labelled; no label covers one of them.
        sizes: (width, height) of each label.
        area: in which labels stand.
        lines: rectangles that labels rather do not cover.
        spacing: how densely places are tried.
    """
    return list(_place(tuple(points), tuple(sizes), area, tuple(lines), spacing or Spacing()))


@lru_cache(maxsize=64)  # a comparison draws its charts again whenever anything else has changed
def _place(
    points: tuple[Pair, ...], sizes: tuple[Pair, ...], area: Box, lines: tuple[Box, ...], spacing: Spacing
) -> tuple[Box | None, ...]:
    def neighbours(index: int) -> int:
        (x, y), (width, height) = points[index], sizes[index]
        return sum(abs(x - other) < width and abs(y - below) < 2 * height for other, below in points)

    keys: tuple[Callable[[int], float], ...] = (
        lambda index: -neighbours(index),
        lambda index: points[index][1],
        lambda index: -points[index][1],
        lambda index: -points[index][0],
    )
    placements = [_in_order(sorted(range(len(points)), key=key), points, sizes, area, lines, spacing) for key in keys]
    return min(placements, key=lambda placement: placement[1])[0]


def _in_order(
    order: Sequence[int],
    points: Sequence[Pair],
    sizes: Sequence[Pair],
    area: Box,
    lines: Sequence[Box],
    spacing: Spacing,
) -> tuple[tuple[Box | None, ...], float]:
    """The places of labels that choose one after another, and what they cost together."""
    kept = spacing.gap * 0.7
    taken = [Box(x - kept, y - kept, x + kept, y + kept) for x, y in points]
    soft, total = list(lines), 0.0
    boxes: list[Box | None] = [None] * len(points)
    for index in order:
        others = [box for box_index, box in enumerate(taken) if box_index != index]
        box, cost = _nearest_free(points[index], sizes[index], area, others, soft, spacing)
        boxes[index], total = box, total + cost
        if box is not None:
            taken.append(box)
            soft += [Box(x - 1, y - 1, x + 1, y + 1) for x, y in _leader(points[index], box)]
    return tuple(boxes), total


def _nearest_free(
    point: Pair, size: Pair, area: Box, taken: Sequence[Box], soft: Sequence[Box], spacing: Spacing
) -> tuple[Box | None, float]:
    """The best free place of a label, and what it costs."""
    places = _candidates(point, size, area, spacing)
    ends = np.stack([np.clip(point[0], places[0], places[2]), np.clip(point[1], places[1], places[3])])
    distances = np.hypot(ends[0] - point[0], ends[1] - point[1])
    for reach in (*REACHES, np.inf):
        # no place costs less than its distance: what is found within reach and costs no more is the best of all
        near = np.flatnonzero((distances >= 0.8 * spacing.gap) & (distances <= reach))
        near = near[~_covered(places[:, near], taken).any(0)]
        if not len(near):
            continue
        cost = _costs(point, places[:, near], ends[:, near], taken, soft, spacing)
        cost += np.maximum(distances[near], spacing.gap)
        best = int(np.argmin(cost))
        if cost[best] <= reach:
            return Box(*(float(side) for side in places[:, near[best]])), float(cost[best])
    return None, NO_PLACE


def _candidates(point: Pair, size: Pair, area: Box, spacing: Spacing) -> np.ndarray:
    """(4, n) left, top, right, bottom: the places beside, above and below a point, and a grid over the whole area."""
    (x, y), (width, height) = point, size
    beside = [x + spacing.gap, x - spacing.gap - width, x - width / 2]
    below = [y - height / 2, y - spacing.gap - height, y + spacing.gap]
    xs = np.concatenate([beside, np.arange(area.left, area.right - width + 1e-9, spacing.across)])
    ys = np.concatenate([below, np.arange(area.top, area.bottom - height + 1e-9, spacing.down)])
    xs = xs[(xs >= area.left) & (xs + width <= area.right + 1e-9)]
    ys = ys[(ys >= area.top) & (ys + height <= area.bottom + 1e-9)]
    left, top = (grid.ravel() for grid in np.meshgrid(xs, ys))
    return np.stack([left, top, left + width, top + height])


def _costs(
    point: Pair, places: np.ndarray, ends: np.ndarray, taken: Sequence[Box], soft: Sequence[Box], spacing: Spacing
) -> np.ndarray:
    """(n,) what each place costs besides its distance.

    Args:
        point: that is labelled.
        places: (4, n) free places.
        ends: (2, n) where the lines from the point to them end.
        taken, soft: rectangles that it rather is not near to, and that it rather does not cover.
        spacing: what a crossing costs.
    """
    x, y = point
    # a label beside its point is read more easily than one above or below it, and one on the right than on the left
    cost = 0.02 * np.abs((places[1] + places[3]) / 2 - y) + np.where(places[0] > x, 0.0, 1.0)
    cost += spacing.crossing * np.minimum(_covered(places, soft).sum(0), 3)
    # one that another point or label is near to might be taken for that point's
    cost += spacing.crossing * np.minimum(_covered(places, [_around(box, spacing.gap) for box in taken]).sum(0), 2)
    for share in np.linspace(0.0, 1.0, SAMPLES)[1:-1]:
        at = np.stack([x + share * (ends[0] - x), y + share * (ends[1] - y)] * 2)
        cost += 2 * spacing.crossing * _covered(at, taken).any(0)
    return cost


def _covered(places: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """(boxes, places): whether a place covers a box; places are (4, n): left, top, right, bottom."""
    if not boxes:
        return np.zeros((1, places.shape[1]), dtype=bool)
    left, top, right, bottom = np.array([(box.left, box.top, box.right, box.bottom) for box in boxes]).T[:, :, None]
    return (places[0] < right) & (left < places[2]) & (places[1] < bottom) & (top < places[3])


def _around(box: Box, room: float) -> Box:
    return Box(box.left - room, box.top - room / 2, box.right + room, box.bottom + room / 2)


def _leader(point: Pair, box: Box) -> list[Pair]:
    """Points of the line from a point to its label."""
    (x, y), (end, below) = point, box.nearest(*point)
    return [(x + share * (end - x), y + share * (below - y)) for share in np.linspace(0.2, 1.0, SAMPLES).tolist()]
