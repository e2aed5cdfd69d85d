"""Many run folders -> one line each: when, model, data, method, task, state, headline, size. Changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import folder_size
from lmworks.base.journal import JOURNAL, is_locked
from lmworks.reports import card, summary
from lmworks.tasks.figures import ANSWERS

READING_ERRORS = (InputError, OSError, AttributeError, KeyError, TypeError, ValueError)
"""What building the card of a run raises whose journal is damaged, or written by hand."""


def overview(folder: str | Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The runs in a folder, newest first, and what is wrong with those that cannot be read.

    Args:
        folder: holds run folders, at any depth.

    Returns:
        a dict for each run: name (the path from the folder), path, started (seconds since 1970 or None), model, data,
        method, task, state
        ("finished", "running", "interrupted" or "resumable": stopped, with a checkpoint to go on from), progress of
        an unfinished run ("8/10 steps"), headline (name, title, unit, before, after, verdict; or None) and bytes on
        the disk.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("there is no such folder", str(folder), "give the folder that holds your runs")
    runs, faults = [], []
    for journal in sorted(folder.rglob(JOURNAL)):
        try:
            runs.append(row(journal.parent, folder))
        except READING_ERRORS as error:
            faults.append(f"{journal.parent}: {fault(error)}")
    faults += [
        f"{recipe.parent}: has a recipe and no {JOURNAL}"
        for recipe in sorted(folder.glob("*/recipe.yaml"))
        if not (recipe.parent / JOURNAL).is_file()
    ]
    return sorted(runs, key=lambda run: run["started"] or 0.0, reverse=True), faults


def fault(error: Exception) -> str:
    """What a person is told of a run that cannot be read."""
    if isinstance(error, InputError):
        return f"{error.place}: {error.fault}" if error.place else error.fault
    return f"its journal cannot be understood ({type(error).__name__}: {error})"


def row(folder: Path, root: Path) -> dict[str, Any]:
    """A run of :func:`overview`, named by its path from ``root``.

    Raises:
        InputError: it cannot be read; others too, where its journal is damaged (READING_ERRORS).
    """
    built = card.build(folder)
    run, headline = built["run"], summary.headline(built["measures"])
    started = run["started"]
    return {
        "name": run["name"] if folder == root else str(folder.relative_to(root)),
        "path": str(folder),
        "started": started if isinstance(started, int | float) else None,
        "model": run["model"],
        "data": run["data"],
        "method": run["method"],
        "task": (run["task"] or {}).get("name"),
        "state": _state(folder, run["state"]),
        "progress": _progress(built),
        "headline": headline and _headline(headline),
        "bytes": folder_size(folder),
    }


def _headline(measure: dict[str, Any]) -> dict[str, Any]:
    before, after = (measure[side]["value"] for side in ("before", "after"))
    name = measure["title"] if measure["key"] == ANSWERS.key else measure["key"].replace("_", " ")
    return {
        "name": name,
        **{key: measure[key] for key in ("title", "unit", "verdict")},
        "before": before,
        "after": after,
    }


def _progress(built: dict[str, Any]) -> str:
    """How far an unfinished run came, such as "8/10 steps"; empty where it has finished or not begun to train."""
    done, planned = built["training"]["steps"], built["training"]["planned_steps"]
    if built["run"]["state"] == "finished" or not planned:
        return ""
    return f"{done}/{planned} steps" + (", evaluating after" if done >= planned else "")


def _state(folder: Path, state: str) -> str:
    if state == "finished":
        return "finished"
    if is_locked(folder):
        return "running"
    checkpoints = folder / "checkpoints"
    return "resumable" if checkpoints.is_dir() and any(checkpoints.iterdir()) else "interrupted"
