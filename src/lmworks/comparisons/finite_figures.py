"""Replaces NaN and infinite numbers of a comparison by None: those of a training that diverged, for instance. Pure."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from lmworks.comparisons.comparison_state import State


def nonfinite_as_none(value: Any) -> Any:
    """The value with None in place of each number, however deep, that is NaN or infinite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [nonfinite_as_none(item) for item in value]
    if isinstance(value, dict):
        return {key: nonfinite_as_none(item) for key, item in value.items()}
    return value


def finite_state(state: State) -> State:
    """The state with finite numbers alone; an interval that lacks an end is none, and so is forgetting that lacks a
    figure."""
    results = []
    for result in state.results:
        plain = {
            field.name: nonfinite_as_none(getattr(result, field.name))
            for field in fields(result)
            if field.name != "trials"
        }
        plain["interval"] = both_ends(plain["interval"])
        plain["forgetting"] = {
            key: {**measure, "interval": both_ends(measure.get("interval"))}
            for key, measure in plain["forgetting"].items()
            if measure.get("before") is not None and measure.get("after") is not None
        }
        trials = [
            replace(trial, **{field.name: nonfinite_as_none(getattr(trial, field.name)) for field in fields(trial)})
            for trial in result.trials
        ]
        results.append(replace(result, **plain, trials=trials))
    return replace(state, results=results)


def both_ends(interval: list[float | None] | None) -> list[float] | None:
    """An interval, or None if an end of it is missing."""
    return [end for end in interval if end is not None] if interval and None not in interval else None
