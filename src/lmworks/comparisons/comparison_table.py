"""A comparison in words and cells: the same for terminal and page. Draws nothing."""

from __future__ import annotations

from collections.abc import Sequence

from lmworks.base.figures import UNKNOWN, byte_size, count, count_of, duration, interval, list_names, number, signed
from lmworks.comparisons.comparison_state import Result, State
from lmworks.comparisons.recommendation import why_nothing

SPARE = ("training tokens/s", "on disk", "trained parameters", "memory", "95 % interval")
"""Columns that a narrow terminal leaves out, in this order."""


def heads(state: State) -> list[str]:
    """The titles of the columns."""
    measure = state.measure.get("title", "")
    forgetting = ["forgetting"] if any(result.forgetting for result in state.done) else []
    return [
        "contender",
        measure,
        "95 % interval",
        "behind the best",
        *forgetting,
        "trained parameters",
        "training time",
        "total time",
        "memory",
        "on disk",
        "training tokens/s",
    ]


def ordered(state: State) -> list[Result]:
    """The contenders with a figure, the best first; then the others."""
    sign = -1.0 if state.measure.get("better") == "higher" else 1.0
    done = sorted(state.done, key=lambda result: sign * (result.value or 0.0))
    return [*done, *(result for result in state.results if result not in done)]


def table_cells(state: State) -> list[list[str]]:
    """The cells of each contender, in their order."""
    done, width = state.done, len(heads(state))
    return [
        _cells(result, state) if result in done else [result.title, result.state, *[""] * (width - 2)]
        for result in ordered(state)
    ]


def _cells(result: Result, state: State) -> list[str]:
    cost = result.cost
    forgetting = [_forgetting(result)] if any(other.forgetting for other in state.done) else []
    trained = cost.get("trained_parameters")
    rate = cost.get("tokens_per_second")
    return [
        result.title,
        number(result.value),
        ends(result.interval) or UNKNOWN,
        behind(result, state),
        *forgetting,
        UNKNOWN if trained is None else count(trained),
        duration(cost["training_seconds"]) if cost.get("training_seconds") else UNKNOWN,
        duration(result.seconds),
        byte_size(cost["peak_memory"]) if cost.get("peak_memory") else UNKNOWN,
        byte_size(cost["disk"]) if cost.get("disk") is not None else UNKNOWN,
        number(rate) if rate else UNKNOWN,
    ]


def ends(values: Sequence[float | None] | None, sign: bool = False) -> str:
    """The ends of an interval in words; empty where there is none, or one of them is not known."""
    low, high = values or (None, None)
    return "" if low is None or high is None else interval(low, high, sign)


def behind(result: Result, state: State) -> str:
    """How far a contender is behind the best, and whether that is more than chance."""
    difference = result.difference
    if not difference:
        return "best" if result.name == state.best else ""
    return f"{signed(difference['value'])}{'' if difference['differs'] else ' (chance)'}"


def about_intervals(state: State) -> str:
    """Why the intervals of two contenders may overlap though one is behind the other beyond chance; empty where the
    table has no intervals, or no tests."""
    if not any(result.interval for result in state.done) or not any(result.difference for result in state.done):
        return ""
    return (
        "The intervals of two contenders may overlap though one is behind the other beyond chance: an interval is of "
        "one contender alone, and the test is paired, on the same rows."
    )


def _forgetting(result: Result) -> str:
    """The change of the first measure of forgetting."""
    for measure in result.forgetting.values():
        return signed(measure["after"] - measure["before"])
    return UNKNOWN


def heading(state: State) -> str:
    """What was compared, on what."""
    settings = state.settings
    row_count = max((len(result.numerators) for result in state.done), default=state.row_counts["test"])
    title = state.measure.get("title", "")
    direction = "more is better" if state.measure.get("better") == "higher" else "less is better"
    count = max((len(result.finals) for result in state.done), default=1)
    seeds = f", mean of {count} seeds" if count > 1 else ""
    return (
        f"{settings.model} on {settings.source}: {title} on the same {count_of(row_count, 'test row')} "
        f"({direction}{seeds})"
    )


def remarks(state: State) -> list[str]:
    """What a reader must know: time, parts, what was left out or cut short and why."""
    training, validation = state.row_counts["training"], state.row_counts.get("validation", 0)
    parts = f"{training:,} rows to train on"
    if any(result.searches for result in state.results):
        parts += f", {validation:,} of them to choose settings by"
    lines = [f"{duration(state.seconds)} of a budget of {duration(state.settings.budget)}{_added(state)}; {parts}"]
    for result in state.results:
        if result.state == "left out":
            lines.append(f"{result.title} is left out: {result.reason}")
        elif result.state == "open":
            lines.append(f"{result.title} is still to come")
    for note in dict.fromkeys(note for result in state.results for note in result.notes):
        titles = [result.title for result in state.results if note in result.notes]
        lines.append(f"{list_names(titles)}: {note}")
    unsearched = [result.title for result in state.done if result.kind == "trained" and not result.searches]
    if unsearched and state.settings.rates > 1:
        lines.append(f"no search of the learning rate, for which the budget is too short: {', '.join(unsearched)}")
    if reason := why_nothing(state):
        lines.append(f"nothing is recommended: {reason}")
    return [*lines, *state.notes]


def _added(state: State) -> str:
    """The time that contenders got who were added later, beyond the budget."""
    more = state.planned - state.settings.budget
    return f" and {duration(more)} for contenders that were added" if more >= 1.0 else ""


def recommendation(state: State) -> list[str]:
    """The recommendation and its reasons, a line each."""
    choice = state.recommendation
    if not choice:
        return []
    return [f"recommended: {choice['title']}", *(f"- {reason}" for reason in choice["reasons"])]
