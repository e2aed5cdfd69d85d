"""The recipe of each contender in a comparison, and what the settings of a comparison may not say. Imports no torch."""

from __future__ import annotations

from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.settings import build, merge
from lmworks.comparisons import contenders
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.contenders import Contender
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.run.recipe import USED_UNTRAINED
from lmworks.text.rows import DataSettings

MOST_ANSWERS = 100
"""Test rows whose answers are generated, if evaluate.task_rows does not say how many."""
MOST_TEXTS, EVERY = 200, 100_000
"""Test examples whose loss is measured: of texts, and of rows of which it costs less than their answers: all."""
SAMPLES = 6
"""Answers that are kept to be shown."""
WRITTEN_KINDS = ("completion", "pairs", "chat")
"""Kinds of rows with answers, whose loss is measured of those that are answered."""
CHOSEN = {
    "steps": "--train.epochs 2 is the most that is tried",
    "max_time": "--budget says how long all may take",
    "evaluate_every": "leave it out: nothing is chosen by the test part",
}
"""Settings of training that a comparison chooses itself."""


def refuse_chosen(train: dict[str, Any], place: str) -> None:
    """Refuse settings of training that a comparison chooses itself.

    Raises:
        InputError: there is one.
    """
    for name, hint in CHOSEN.items():
        if name in train:
            raise InputError("is chosen by the comparison", f"{place}.{name}", hint)


def checked(settings: CompareSettings) -> CompareSettings:
    """The settings with contenders by their own names.

    Raises:
        InputError: they name no contender, or say what a comparison chooses itself.
    """
    refuse_chosen(settings.train, "train")
    for contender, groups in settings.contender.items():
        refuse_chosen(groups.get("train", {}), f"contender.{contender}.train")
    if settings.data.validation:
        hint = f"--validation {settings.data.validation:g}, of the rows that are not held out"
        raise InputError("is chosen by the comparison", "data.validation", hint)
    build(EvaluateSettings, settings.evaluate, "evaluate")
    changes = {contenders.known_name(name, settings.contender): groups for name, groups in settings.contender.items()}
    names = [contenders.known_name(name, changes) for name in settings.methods]
    return settings.model_copy(update={"contender": changes, "methods": names}, deep=True)


def additional_files(contender: Contender, settings: CompareSettings) -> list[str]:
    """Files of rows that this contender alone trains on besides the shared ones.

    Raises:
        InputError: its data differ in something else, or it does not train.
    """
    data = settings.contender.get(contender.name, {}).get("data", {})
    additional = build(DataSettings, data, f"contender.{contender.name}.data").additional
    if others := [name for name in data if name != "additional"]:
        place = f"contender.{contender.name}.data.{others[0]}"
        hint = f"for all: --data.{others[0]}; of one contender data.additional may differ"
        raise InputError("contenders share their rows", place, hint)
    if additional and contender.kind not in ("classical", "trained"):
        raise InputError(
            f"{contender.title} does not train", f"contender.{contender.name}.data.additional", "leave it out"
        )
    return additional


def data_and_groups(groups: dict[str, Any], data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The group ``data`` of a contender's recipe, with the rows that it alone trains on, and the other groups.

    Args:
        groups: of the contender.
        data: the group of all contenders.
    """
    others = {name: group for name, group in groups.items() if name != "data"}
    additional = groups.get("data", {}).get("additional", [])
    return {**data, "additional": [*data.get("additional", []), *additional]}, others


def measured_rows(settings: CompareSettings, kind: str, test: int) -> int:
    """Rows of the test part, or of texts at most so many examples of it, by which contenders are compared.

    Args:
        settings: of the comparison.
        kind: of the rows.
        test: rows of the test part.
    """
    if kind in WRITTEN_KINDS:
        return _answered(settings, kind, test)
    most = settings.evaluate.get("measured") or (MOST_TEXTS if kind == "text" else test)
    return min(int(most), test)


def _answered(settings: CompareSettings, kind: str, test: int) -> int:
    """Test rows whose answers are generated."""
    task_rows = settings.evaluate.get("task_rows")
    return min(int(task_rows if task_rows is not None else test if kind == "labels" else MOST_ANSWERS), test)


def measured_notes(settings: CompareSettings, kind: str, test: int) -> list[str]:
    """What to say of a test part that is not measured whole; arguments as above."""
    measured_count = measured_rows(settings, kind, test)
    if kind == "text" and settings.evaluate.get("measured") is None:
        most = f"at most {MOST_TEXTS} test examples, of which a long text has several"
        return [f"losses are those of {most}; --evaluate.measured N for more"]
    if kind in WRITTEN_KINDS and measured_count < test:
        return [f"answers are written for {measured_count:,} of {test:,} test rows; --evaluate.task_rows N for more"]
    return []


def recipe_groups(contender: Contender, settings: CompareSettings, kind: str, test: int) -> dict[str, Any]:
    """The groups of a contender's recipe.

    Args:
        contender: whose.
        settings: of the comparison.
        kind: of the rows.
        test: rows of the test part.
    """
    groups = merge(contender.settings, settings.contender.get(contender.name, {}))
    groups.pop("data", None)
    if additional := additional_files(contender, settings):
        groups["data"] = {"additional": additional}
    if contender.kind in ("classical", "before"):
        return groups
    answered_count = _answered(settings, kind, test)
    most_losses = {"text": MOST_TEXTS, **dict.fromkeys(WRITTEN_KINDS, answered_count)}.get(kind, EVERY)
    evaluate = {"task_rows": answered_count, "measured": max(1, most_losses), "samples": SAMPLES}
    given = {name: value for name, value in settings.evaluate.items() if value is not None}
    evaluate |= {"general_bytes": 0, **given}  # forgetting is measured of all in one way
    if contender.kind == "baseline":
        return {"rows": evaluate["task_rows"], "samples": evaluate["samples"]}
    shared: dict[str, Any] = {"train": settings.train, "evaluate": evaluate}
    if contender.kind == "prompted":
        shared["train"] = {name: value for name, value in settings.train.items() if name in USED_UNTRAINED}
    if settings.task != "auto" and contender.kind == "trained":  # prompts are asked for in the task's own way
        shared["task"] = {"name": settings.task}
    return merge({name: group for name, group in shared.items() if group}, groups)
