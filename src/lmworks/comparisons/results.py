"""What a comparison came to, read from its runs: figures on the test part, their differences, costs, forgetting."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.journal import RunFolder
from lmworks.comparisons import comparison_figure
from lmworks.comparisons.comparison_figure import FigureByRow
from lmworks.comparisons.comparison_state import Result, State
from lmworks.evaluate import metrics, significance
from lmworks.evaluate.row_figures import RowFigures
from lmworks.reports.cost import cost
from lmworks.tasks.figures import GENERAL_BITS, GENERAL_LOSS

BETTER = {"higher": 1.0, "lower": -1.0}


def read(state: State, result: Result, folder: Path) -> None:
    """Read the final runs of a contender into its result.

    Args:
        state: of the comparison; the first result gives its measure.
        result: whose final runs are done; changed.
        folder: of the comparison.

    Raises:
        InputError: its figures cannot share a table with the others'.
    """
    runs = [folder / trial.folder for trial in result.finals]
    events = [comparison_figure.final_evaluation(run) for run in runs]
    task = "classify" if result.kind == "classical" else comparison_figure.task_of(runs[0]) or state.task
    by_event = [comparison_figure.figure_of(event, task, state.row_counts["digest"]) for event in events]
    figures = [figure for figure in by_event if figure is not None]
    if len(figures) < len(runs):
        raise InputError("has no figure by row on the test part", str(runs[0]), "lmworks report shows what it has")
    _check_signature(state, figures[0], result)
    result.numerators, result.denominators = comparison_figure.average(figures)
    result.by_seed = [figure.value for figure in figures]
    # intervals and tests are of the average over seeds too
    result.value = FigureByRow(state.measure, result.numerators, result.denominators).value
    result.interval = comparison_figure.interval(result.numerators, result.denominators)
    result.cost = _cost(result, runs)
    result.forgetting |= _forgetting(comparison_figure.evaluation_before(runs[0]), events[0])
    result.answers = _answers(runs[0])
    result.notes += [note for note in _cut(runs[0], state) if note not in result.notes]


def read_before(state: State, result: Result, folder: Path) -> None:
    """Read what was evaluated before training, which every run has, into a result.

    Args:
        state: of the comparison, with a trained contender that is done.
        result: changed.
        folder: of the comparison.

    Raises:
        InputError: no trained contender is done, or nothing was evaluated before training.
    """
    trained = next((contender for contender in state.done if contender.kind == "trained"), None)
    if trained is None:
        raise InputError("no trained contender has been evaluated", result.name, "name one in --methods")
    event = comparison_figure.evaluation_before(folder / trained.finals[0].folder)
    figure = comparison_figure.figure_of(event, state.task, state.row_counts["digest"])
    if figure is None:
        raise InputError("nothing was evaluated before training", result.name, "leave it out")
    _check_signature(state, figure, result)
    result.title = str(event.get("name") or result.title)
    result.numerators, result.denominators = figure.numerators, figure.denominators
    result.by_seed, result.value = [figure.value], figure.value
    result.interval = comparison_figure.interval(result.numerators, result.denominators)


def _check_signature(state: State, figure: FigureByRow, result: Result) -> None:
    """Refuse a figure that was counted in another way than the others.

    Raises:
        InputError: it was.
    """
    if not state.measure:
        state.measure = figure.measure
    known, signature = state.measure["signature"], figure.measure["signature"]
    if signature != known:
        fault = f"{result.title} was measured as {signature}, the others as {known}: such figures share no table"
        raise InputError(fault, result.name, "measure all by one version of lmworks and the same task: begin anew")


def paired_comparison(state: State) -> significance.PairedComparison | None:
    """The contenders with a figure, paired on the test rows; None with fewer than two."""
    figures = {result.name: RowFigures.of(result.numerators, result.denominators) for result in state.done}
    lengths = {len(result.numerators) for result in state.done}
    if len(figures) < 2 or len(lengths) > 1:
        return None
    return significance.compare(figures, state.measure["better"])


def settle(state: State) -> significance.PairedComparison | None:
    """Write the difference of each contender from the best into the state."""
    compared = paired_comparison(state)
    state.best = "" if compared is None else compared.reference
    for contender in [] if compared is None else compared.contenders:
        result = next(result for result in state.results if result.name == contender.name)
        result.difference = {} if contender.name == compared.reference else _difference(contender)  # type: ignore[union-attr]
    return compared


def _difference(contender: significance.ModelFigures) -> dict[str, Any]:
    return {
        "value": contender.difference,
        "interval": contender.difference_interval,
        "test": contender.test,
        "p": contender.p_value,
        "p_holm": contender.adjusted_p_value,
        "differs": contender.differs,
        "smallest": contender.smallest_difference,
        "rows_needed": contender.rows_needed,
    }


def _cost(result: Result, runs: list[Path]) -> dict[str, Any]:
    """The cost of the first final run, and the seconds of the search and of all runs."""
    costs = asdict(cost(runs[0]))
    search = sum(trial.seconds for trial in result.search)
    return {**costs, "search_seconds": search, "all_seconds": result.seconds}


def _forgetting(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """How well the model predicts a general text before training and after it, where its run measured it."""
    for figure in (GENERAL_BITS, GENERAL_LOSS):
        old, new = before.get(figure.part) or {}, after.get(figure.part) or {}
        if old.get(figure.name) is None or new.get(figure.name) is None:  # None: NaN or infinite
            continue
        weights = new[figure.denominators]
        change = metrics.paired_difference(
            [value / figure.divisor for value in old[figure.numerators]],
            [value / figure.divisor for value in new[figure.numerators]],
            weights=weights,
        )
        return {
            figure.key: {
                "title": str(new.get("name", figure.title)),
                "unit": figure.unit,
                "better": figure.better,
                "before": old[figure.name],
                "after": new[figure.name],
                "interval": [change.low, change.high],
            }
        }
    return {}


def _cut(run: Path, state: State) -> list[str]:
    """That rows of a run were cut at the end, with their number; the runs of all seeds have the same rows."""
    data = next(iter(RunFolder(run).events("data")), {})
    parts = {"truncated": "to train on", "held_out_truncated": "of the test part"}
    counts = [f"{count_of(data[key], 'row')} {part}" for key, part in parts.items() if data.get(key)]
    most = state.settings.data.max_tokens
    limit = "the model's context" if most is None else f"data.max_tokens ({most})"
    return [f"{' and '.join(counts)} cut at the end, being longer than {limit}"] if counts else []


def _answers(run: Path) -> list[dict[str, Any]]:
    """Samples of a run's answers to test rows."""
    events = [event for event in RunFolder(run).events("samples") if event.get("when") == "after"]
    return list(events[-1]["items"]) if events else []
