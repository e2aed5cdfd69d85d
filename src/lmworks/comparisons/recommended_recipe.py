"""What trains a contender of a comparison on all the data. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.settings import merge
from lmworks.comparisons.comparison_state import State
from lmworks.comparisons.contender_recipes import data_and_groups
from lmworks.comparisons.recommendation import why_nothing


def settings_of(folder: Path, state: State, name: str | None = None) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Model, group ``data`` and further groups of the recipe that trains a contender on all rows.

    Args:
        folder: of the comparison.
        state: of the comparison.
        name: of the contender; None: the recommended one.

    Raises:
        InputError: there is no such contender, it was not run, or nothing of it can be trained.
    """
    name = name or recommended_name(folder, state, "tune")
    result = next((result for result in state.done if result.name == name), None)
    if result is None:
        known = ", ".join(result.name for result in state.done)
        raise InputError(f"has no figure of {name!r}", str(folder), f"one of: {known}")
    if result.kind in ("baseline", "before"):
        fault = f"{result.title} needs no training"
        others = ", ".join(result.name for result in state.done if result.kind not in ("baseline", "before"))
        raise InputError(fault, str(folder), f"choose another: in Python Comparison.tune(name): {others}")
    data = {**state.settings.data.model_dump(mode="json", exclude_unset=True), "source": state.settings.source}
    data |= {"held_out": 0.0, "validation": 0.0}
    data, groups = data_and_groups(result.settings, data)
    groups["comparison"] = {
        "folder": str(folder),
        "contender": result.title,
        "figure": state.measure["title"],
        "value": result.value,
        "interval": result.interval,
        "rows": len(result.numerators),
    }
    model = state.settings.model
    if result.kind == "classical":
        return str(groups.pop("model")), data, groups
    train = {key: value for key, value in result.chosen.items() if key in ("learning_rate", "epochs") and value}
    return model, data, merge(groups, {"train": train}) if train else groups


def recommended_name(folder: Path, state: State, call: str) -> str:
    """The name of the recommended contender.

    Args:
        folder: of the comparison, for errors.
        state: of the comparison.
        call: method of a Comparison that takes a name instead, for the hint.

    Raises:
        InputError: none is recommended.
    """
    if state.recommendation:
        return str(state.recommendation["name"])
    if any(result.state == "open" for result in state.results):
        raise InputError("has no recommendation yet", str(folder), f"go on with it: lmworks compare --out {folder}")
    hint = f"in Python: lmworks.compare(out=FOLDER).{call}(NAME)"
    reason = why_nothing(state) or "fewer than two contenders have a figure"
    raise InputError(f"recommends nothing: {reason}", str(folder), hint)
