"""Several tasks in one run: the entries of a recipe's ``tasks``, each a data set with its task, head and weight.

Imports no torch.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lmworks.base.errors import InputError
from lmworks.base.settings import Settings, merge
from lmworks.tasks.settings import TaskSettings
from lmworks.text.rows import DataSettings

Sampling = Literal["proportional", "equal", "temperature"]
TEMPERATURE = 2.0
RESERVED = ("language", "contrastive")  # names of losses that are no task's
NAME = r"^[A-Za-z][A-Za-z0-9_-]*$"


class RecipeData(DataSettings):
    """The training data."""

    source: str = Field(description="A file, a named data set (lmworks data list) or hub:owner/name.")


class TaskEntry(Settings):
    """One of several tasks of a run."""

    name: str = Field(pattern=NAME, description="Of the task and its head: letters, digits, _ and -.")
    data: RecipeData = Field(description="Its data set, with settings of its own.")
    task: TaskSettings = Field(default_factory=TaskSettings, description="What is learned; default: by its rows.")
    weight: float = Field(1.0, gt=0, description="What its loss is multiplied by.")


def expand(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with the shorthands of its entries written out; settings of ``data`` hold for all of them.

    Args:
        values: nested plain values with a list ``tasks``.

    Raises:
        InputError: it also names a data set or a task of its own, or an entry is no group of settings.
    """
    shared = dict(values.get("data") or {})
    named = shared.pop("source", None)
    entries = [_entry(entry, number, shared) for number, entry in enumerate(values["tasks"], 1)]
    known = [entry["data"] for entry in entries if isinstance(entry.get("data"), dict)]  # else the schema refuses it
    sources = ", ".join(str(data.get("source")) for data in known)
    if named not in (None, sources):
        fault = "the recipe has a list of tasks, each with its data set, and a data set of its own"
        raise InputError(fault, f"data.source: {named}", "leave one of them out, or make it an entry of tasks")
    if any(value not in ("auto", None) for name, value in (values.get("task") or {}).items() if name == "name"):
        raise InputError("each entry of tasks has its own task", "task", "name it there: {name: ..., task: tag}")
    return {**values, "tasks": entries, "data": {**shared, "source": sources}}


def _entry(entry: Any, number: int, shared: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        hint = "write {name: spam, data: sms.tsv}"
        raise InputError(f"{entry!r} is no task", f"tasks, entry {number}", hint)
    entry = dict(entry)
    for group, inner in (("data", "source"), ("task", "name")):
        if isinstance(entry.get(group), str):
            entry[group] = {inner: entry[group]}
    if isinstance(entry.get("data"), dict):
        entry["data"] = merge(shared, entry["data"])
    return entry


def override_data(tasks: Any, data: dict[str, Any]) -> list[Any]:
    """Entries in whose data these settings take precedence."""
    listed = [_entry(entry, number, {}) for number, entry in enumerate(tasks, 1)]
    changes = {name: value for name, value in data.items() if name != "source"}
    return [
        {**entry, "data": merge(entry["data"], changes)} if isinstance(entry.get("data"), dict) else entry
        for entry in listed
    ]


def check(entries: list[TaskEntry]) -> None:
    """Refuse names that cannot stand beside one another.

    Raises:
        InputError: two entries have one name, or a name is that of something else.
    """
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries, 1):
        place = f"tasks, entry {number}: {entry.name}"
        if entry.name in seen:
            fault = f"entry {seen[entry.name]} has this name too"
            raise InputError(fault, place, "give each task a name of its own: its head and its figures have it")
        if entry.name in RESERVED:
            raise InputError("a loss has this name", place, "choose another name")
        seen[entry.name] = number
