"""What a ladder came to, in words and cells: the same for terminal and page. Draws nothing."""

from __future__ import annotations

from lmworks.base.figures import UNKNOWN, count, count_of, duration, interval, number
from lmworks.comparisons.ladder_settings import LadderState, RungState

HEADS = {
    "language": ("rung", "bits per byte", "95 % interval", "parameters", "training", "in all"),
    "classify": ("rung", "accuracy", "95 % interval", "macro-F1", "parameters", "training", "in all"),
}


def rows(state: LadderState) -> list[list[str]]:
    """The cells of each rung."""
    return [_cells(step, state.settings.task) for step in state.steps]


def _cells(step: RungState, task: str) -> list[str]:
    if step.state != "done":
        return [step.title, "left out" if step.state == "left out" else "open", *[""] * (len(HEADS[task]) - 2)]
    ends = interval(step.interval[0], step.interval[1]) if step.interval else UNKNOWN
    middle = [number(step.macro_f1)] if task == "classify" else []
    times = [duration(step.training_seconds) if step.training_seconds else UNKNOWN, duration(step.seconds)]
    parameters = UNKNOWN if step.parameters is None else count(step.parameters)
    return [step.title, number(step.value), ends, *middle, parameters, *times]


def heading(state: LadderState) -> str:
    """What was compared, on what."""
    compared, settings = state.compared, state.settings
    if settings.task == "language":
        what = f"{count_of(sum(compared['bytes']), 'held-out byte')} in {compared['rows']:,} {compared['unit']}"
        return f"Language models on {settings.source}: bits per byte of the same {what} (less is better)"
    return f"Classifiers of {settings.source}: accuracy on the same {count_of(compared['rows'], 'held-out row')}"


def remarks(state: LadderState) -> list[str]:
    """What a reader must know: the budget, what was left out and why, notes of the rungs."""
    lines = [f"{duration(state.seconds)} of a budget of {duration(state.settings.budget)}"]
    for step in state.steps:
        if step.state == "left out":
            lines.append(f"{step.title} is left out: {step.reason}")
        elif step.state == "open":
            lines.append(f"{step.title} is still to come")
        lines += [f"{step.title}: {note}" for note in step.notes]
        if len(step.rows) < state.compared.get("rows", 0) and step.rows:
            others = [
                f"{other.title} {number(sum(other.rows[: len(step.rows)]) / len(step.rows))}"
                for other in state.steps
                if len(other.rows) > len(step.rows)
            ]
            lines.append(f"on the rows that {step.title} was asked: {', '.join(others)}")
    return lines


def best(state: LadderState) -> RungState | None:
    """The rung with the best figure."""
    done = [step for step in state.steps if step.state == "done" and step.value is not None]
    sign = 1.0 if state.settings.task == "language" else -1.0
    return min(done, key=lambda step: sign * (step.value or 0.0), default=None)
