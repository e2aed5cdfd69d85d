"""The measure against training time in a terminal: plain characters, each point with its name. Draws no colour.

A name stands beside its point where there is room, else the point is a letter, and its name stands below the chart.
"""

from __future__ import annotations

import string
import textwrap
from dataclasses import dataclass

from lmworks.base.figures import list_names, shorten
from lmworks.comparisons.chart_scales import Scale, scale, short_number
from lmworks.comparisons.comparison_state import State
from lmworks.comparisons.finite_figures import finite_state
from lmworks.comparisons.trade_offs import TIME, Point, TradeOff, trade_offs

ROWS, NARROWEST, WIDEST = 14, 40, 110
LONGEST, BLANK = 30, "\u00a0"
RECOMMENDED, FRONT, OTHER = "@", "o", "."
"""Signs of points: the recommended one, the others on the Pareto front, the rest."""


@dataclass(frozen=True)
class _Spot:
    """The points of one cell.

    Attributes:
        column, row: of the cell.
        points: in it, at least one.
    """

    column: int
    row: int
    points: list[Point]

    @property
    def sign(self) -> str:
        """What is drawn in the cell."""
        if any(point.is_recommended for point in self.points):
            return RECOMMENDED
        return FRONT if self.is_on_front else OTHER

    @property
    def is_on_front(self) -> bool:
        """Whether one of the points is on the Pareto front."""
        return any(point.is_on_front for point in self.points)

    @property
    def name(self) -> str:
        """Titles of the points."""
        return ", ".join(shorten(point.title, LONGEST) for point in self.points)


def terminal_chart(state: State, width: int) -> list[str]:
    """The lines of a small chart of the measure against the time of training.

    Args:
        state: of the comparison.
        width: columns of the terminal.

    Returns:
        No lines where fewer than two contenders have both numbers, or the terminal is narrower than 40 columns.
    """
    trade_off = next((trade_off for trade_off in trade_offs(finite_state(state)) if trade_off.cost == TIME), None)
    if trade_off is None or width < NARROWEST:
        return []
    width = min(width, WIDEST)
    up = scale(
        [y for point in trade_off.points for y in (point.y, *(point.y_ends or []))],
        ROWS - 1,
        0,
        trade_off.is_measure_log,
    )
    levels = up.ticks(2)
    form = short_number(levels)
    numbers = {round(up(level)): form(level) for level in levels}
    left = max(map(len, numbers.values()), default=0)
    across = scale([point.x for point in trade_off.points], 0, width - left - 3, trade_off.is_log)
    grid, below = _drawn(trade_off, across, up, width - left - 2)
    better = "higher" if trade_off.higher_is_better else "lower"
    title = f"{trade_off.measure} ({better} is better) against {trade_off.cost} (logarithmic)"
    missing = f"not measured for: {list_names(trade_off.missing)}" if trade_off.missing else ""
    return [
        *textwrap.wrap(title, width),
        *(f"{numbers.get(row, ''):>{left}} |{''.join(letters)}".rstrip() for row, letters in enumerate(grid)),
        f"{'':>{left}} +{'-' * (width - left - 2)}",
        f"{'':>{left}}  {_ticks(trade_off, across, width - left - 2)}".rstrip(),
        *(line.replace(BLANK, " ") for line in textwrap.wrap(f"{_legend(trade_off)}{below}", width)),
        *textwrap.wrap(missing, width),
    ]


def _drawn(trade_off: TradeOff, across: Scale, up: Scale, columns: int) -> tuple[list[list[str]], str]:
    """The letters of the chart's area, and the names that found no room in it."""
    cells: dict[tuple[int, int], list[Point]] = {}
    for point in trade_off.points:
        cells.setdefault((round(across(point.x)), round(up(point.y))), []).append(point)
    spots = [_Spot(column, row, points) for (column, row), points in cells.items()]
    spots.sort(key=lambda spot: (spot.sign != RECOMMENDED, not spot.is_on_front))
    grid = [[" "] * columns for _ in range(ROWS)]
    for spot in spots:
        grid[spot.row][spot.column] = spot.sign
    letters, below = iter(string.ascii_lowercase), ""
    for spot in spots:
        if _write(grid[spot.row], spot):
            continue
        letter = next(letters, "?")
        sign = spot.sign if spot.sign == RECOMMENDED else letter.upper() if spot.is_on_front else letter
        grid[spot.row][spot.column] = sign
        below += f"   {sign}{BLANK}{_unbroken(spot.name)}"
    return grid, below


def _write(line: list[str], spot: _Spot) -> bool:
    """Write a name on the right or the left of its point, if there is room with a blank on both sides."""
    size = len(spot.name)
    for start in (spot.column + 2, spot.column - 1 - size):
        around = line[max(start - 1, 0) : start + size + 1]
        beside = {spot.column} & set(range(start - 1, start + size + 1))
        free = sum(letter != " " for letter in around) == len(beside)
        if start >= 0 and start + size <= len(line) and free:
            line[start : start + size] = spot.name
            return True
    return False


def _ticks(trade_off: TradeOff, across: Scale, columns: int) -> str:
    """The numbers below the chart."""
    letters = [" "] * columns
    for value in across.ticks(12, trade_off.rounds):
        name = trade_off.tick(value) if trade_off.tick else f"{value:g}"
        start = min(max(round(across(value)) - len(name) // 2, 0), columns - len(name))
        letters[start : start + len(name)] = name
    return "".join(letters)


def _legend(trade_off: TradeOff) -> str:
    """What the signs mean."""
    chosen = f"{RECOMMENDED} recommended" if any(point.is_recommended for point in trade_off.points) else ""
    return "   ".join(map(_unbroken, filter(None, [chosen, f"{FRONT} and capitals: none is better in both"])))


def _unbroken(words: str) -> str:
    """Words that stay on one line, but for those after a comma."""
    return words.replace(" ", BLANK).replace(f",{BLANK}", ", ")
