"""How far a run or a comparison has come, from what it has written so far: its state, and its curves as they grow."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.journal import JOURNAL, is_locked
from lmworks.comparisons import comparison_table
from lmworks.comparisons.comparison_state import STATE, State, is_comparison
from lmworks.studio import processes

ENDS = 32_768
"""Bytes of a journal's end in which its last events are looked for."""
STAGES = {
    "start": "evaluating before training",
    "data": "evaluating before training",
    "session": "training",
    "step": "training",
    "checkpoint": "training",
    "session_end": "evaluating after training",
    "resume": "opening model and data",
    "prompt": "choosing a prompt",
    "finish": "writing the report",
}
"""What a run does after an event."""

Event = dict[str, Any]


class JournalReader:
    """Reads the events of a journal as they are written.

    Args:
        run: folder of a run, whose journal need not exist.
        place: bytes that were read before.
    """

    def __init__(self, run: Path, place: int = 0) -> None:
        self.path, self.place = run / JOURNAL, place

    def read(self) -> list[Event]:
        """The events since the last time; a line that is not finished comes with the next."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                self.place = 0 if size < self.place else self.place  # another run in the same folder
                file.seek(self.place)
                content = file.read()
        except OSError:
            return []
        whole, newline, _ = content.rpartition(b"\n")
        self.place += len(whole) + len(newline)
        return [event for line in whole.split(b"\n") if (event := _event(line))]


def curve_points(events: list[Event]) -> dict[str, list[list[float]]]:
    """What events add to the curves of a run, as (step, figure): ``loss``, ``held_out``, ``learning_rate``; and
    ``after``: the held-out loss of the result, whose weights may be those of an earlier step."""
    steps = [event for event in events if event["event"] == "step"]
    held_out: dict[str, list[list[float]]] = {"held_out": [], "after": []}
    for event in events:
        if event["event"] == "evaluation" and (loss := _held_out(event)) is not None:
            name = "after" if event.get("when") == "after" else "held_out"
            held_out[name].append([event.get("step") or 0, loss])
    return {
        **held_out,
        "loss": [[step["step"], step["loss"]] for step in steps if step.get("loss") is not None],
        "learning_rate": [[step["step"], step["learning_rate"]] for step in steps if step.get("learning_rate")],
    }


def _held_out(event: Event) -> float | None:
    """The held-out loss of an evaluation; what the loop evaluates during training stands under ``metrics``."""
    return (event.get("held_out") or event.get("metrics") or {}).get("loss")


def progress_of(events: list[Event]) -> dict[str, Any]:
    """How far events bring a run: ``step``, ``steps`` (planned), ``stage``; what they do not say is left out."""
    found: dict[str, Any] = {}
    for event in events:
        if event["event"] == "session":
            found["steps"] = event.get("steps")
        if event["event"] in ("step", "session"):
            found["step"] = event.get("step", event.get("from_step"))
        if event["event"] == "evaluation" and event.get("when") == "before":
            found["stage"] = STAGES["session"]
        elif event["event"] == "session_end" and event.get("reason") == "interrupted":
            found["stage"] = "stopped"
        elif event["event"] in STAGES:
            found["stage"] = STAGES[event["event"]]
    return found


@dataclass(frozen=True)
class RunState:
    """How a run stands.

    Attributes:
        kind: "run" or "comparison".
        state: "running"; "finished"; "stopped": it can be resumed; "failed": it ended before it was a run.
        is_ours: whether a process of a studio works on it, which can be stopped here.
        stops: how often that process was asked to stop.
        words: of the command that was started last; empty of a run of another place.
        started: seconds since 1970, of the process or of the run.
        about: model, data and method as far as they are known.
    """

    kind: str
    state: str
    is_ours: bool
    stops: int
    words: list[str]
    started: float | None
    about: dict[str, Any]


def state_of(run: Path) -> RunState:
    """How a run stands by its folder and its process; the folder need not exist."""
    process = processes.read(run)
    is_alive = process is not None and process.is_alive
    words = process.words if process else []
    kind = "comparison" if is_comparison(run) or words[:1] == ["compare"] else "run"
    state, about, began = _comparison(run) if kind == "comparison" else _run(run)
    if is_alive:
        state = "running"
    started = process.started if process and process.started else began
    return RunState(kind, state, is_alive, process.stops if process and is_alive else 0, words, started, about)


def _run(run: Path) -> tuple[str, dict[str, Any], float | None]:
    """State, what it is about, and when it began, of a run that no process of a studio works on."""
    events = _first_and_last(run)
    start = next((event for event in events if event["event"] == "start"), None)
    if start is None:
        return "running" if _is_locked(run) else "failed", {}, None
    about = {name: start.get(name) for name in ("model", "data", "method")} | {"task": _task(start)}
    about |= progress_of(events)
    is_finished = events[-1]["event"] == "finish"
    state = "finished" if is_finished else "running" if _is_locked(run) else "stopped"
    return state, about, start.get("time")


def _task(start: Event) -> str | None:
    task = start.get("task")
    return task.get("name") if isinstance(task, dict) else None


def _comparison(folder: Path) -> tuple[str, dict[str, Any], float | None]:
    try:
        state = State.read(folder)
    except InputError:
        return "failed", {}, None
    done, count = len([result for result in state.results if result.state != "open"]), len(state.results)
    about = {"model": state.settings.model, "data": state.settings.source, "step": done, "steps": count}
    is_done = done == count  # without a recommendation, too: there is none where no contender is right on any row
    newest = None if is_done else newest_run(folder)
    is_running = newest is not None and _is_locked(newest)
    word = "finished" if is_done else "running" if is_running else "stopped"
    return word, about, (folder / STATE).stat().st_mtime


def comparison_rows(folder: Path) -> dict[str, Any] | None:
    """The table of a comparison so far: ``heads``, ``rows`` and ``recommendation``, in words; None where it has not
    begun."""
    try:
        state = State.read(folder)
    except InputError:
        return None
    heads, rows = comparison_table.heads(state), comparison_table.table_cells(state)
    said = comparison_table.recommendation(state) if state.recommendation else []
    return {"heads": heads, "rows": rows, "recommendation": said}


def newest_run(folder: Path) -> Path | None:
    """The run of a comparison that was written to last."""
    journals = list(folder.glob(f"*/*/{JOURNAL}"))
    return max(journals, key=lambda path: path.stat().st_mtime).parent if journals else None


def _is_locked(run: Path) -> bool:
    return (run / JOURNAL).is_file() and is_locked(run)


def _first_and_last(run: Path) -> list[Event]:
    """The first events of a journal and its last ones; the middle of a long one is left out."""
    try:
        with (run / JOURNAL).open("rb") as file:
            content = file.read(ENDS)
            size = file.seek(0, os.SEEK_END)
            if size - ENDS > len(content):
                content += b"\n"
            file.seek(max(len(content), size - ENDS))
            content += file.read()
    except OSError:
        return []
    return [event for line in content.split(b"\n") if (event := _event(line))]


def _event(line: bytes) -> Event | None:
    """A line of a journal; None of a part of one."""
    try:
        event = json.loads(line)
        event["event"]
    except (ValueError, KeyError, TypeError):
        return None
    return event
