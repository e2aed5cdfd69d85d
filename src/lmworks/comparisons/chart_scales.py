"""Scales of charts: a number's place on an axis, and the round numbers beside it. Pure; pixels or columns alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmworks.reports.curves import ticks

MARGIN = 0.06
"""Of the axis, left free on both sides of what is drawn."""
ZERO_ROOM = 0.1
"""Of a logarithmic axis, for what is zero."""
SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18_000, 36_000, 86_400, 172_800, 432_000)
"""Round durations from a second on."""


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low, high: numbers at its ends; of a logarithmic axis above zero.
        start, end: where the ends are drawn.
        is_log: whether it is logarithmic.
        zero: where 0 is drawn on a logarithmic axis; None: nowhere.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False
    zero: float | None = None

    def __call__(self, value: float) -> float:
        """Where a number is drawn."""
        if self.is_log and value <= 0:
            return self.start if self.zero is None else self.zero
        low, high, value = (math.log(number) if self.is_log else number for number in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, apart: float, rounds: Sequence[float] = ()) -> list[float]:
        """Round numbers within the axis.

        Args:
            apart: least distance between two of them where they are drawn.
            rounds: numbers to choose from on a logarithmic axis, ascending; empty: 1, 2 and 5 times powers of ten.
        """
        inside = [value for value in self._rounds(rounds) if self.low <= value <= self.high]
        if self.is_log and len(inside) < 2:
            inside = [value for value in ticks(self.low, self.high, 3) if self.low <= value <= self.high]
        kept: list[float] = [0.0] if self.zero is not None else []
        for value in inside:
            if not kept or abs(self(value) - self(kept[-1])) >= apart:
                kept.append(value)
        return kept

    def _rounds(self, rounds: Sequence[float]) -> list[float]:
        if not self.is_log:
            return ticks(self.low, self.high, 5)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        tens = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
        if not rounds or self.low < rounds[0]:
            below = [value for value in tens if not rounds or value < rounds[0]]
            return sorted({*below, *rounds})
        return [float(value) for value in rounds]


def scale(values: Sequence[float], start: float, end: float, is_log: bool = False) -> Scale:
    """A scale that shows all values, with a margin.

    Args:
        values: at least one; on a logarithmic scale those that are zero stand apart, before the others.
        start, end: where the axis is drawn.
        is_log: whether it is logarithmic.
    """
    if not is_log:
        low, high = _apart(min(values), max(values))
        room = MARGIN * (high - low)
        return Scale(low - room, high + room, start, end)
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    if high < 1.2 * low:
        low, high = low / 2, high * 2
    room = (high / low) ** MARGIN
    zero = None
    if len(positive) < len(values):
        zero, start = start + ZERO_ROOM / 3 * (end - start), start + ZERO_ROOM * (end - start)
    return Scale(low / room, high * room, start, end, True, zero)


def _apart(low: float, high: float) -> tuple[float, float]:
    if high > low:
        return low, high
    return low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05


def short_duration(seconds: float) -> str:
    """A round duration in a few characters: ``20 s``, ``5 min``."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def short_size(value: float) -> str:
    """A round number of bytes in a few characters: ``500 MB``."""
    return _short(value, "B")


def short_count(value: float) -> str:
    """A round whole number in a few characters: ``20 k``, ``5 M``."""
    return _short(value, "")


def _short(value: float, unit: str) -> str:
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {prefix}{unit}"
    return f"{value:g} {unit}".rstrip()


def short_number(values: Sequence[float]) -> Callable[[float], str]:
    """Prints numbers of an axis with the decimals that the longest of them needs."""
    places = max((len(f"{value:g}".partition(".")[2]) for value in values if "e" not in f"{value:g}"), default=0)
    return lambda value: (f"{value:,.{places}f}" if abs(value) < 1e6 else f"{value:g}").replace("-", "−")
