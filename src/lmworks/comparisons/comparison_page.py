"""A comparison as one HTML file: the recommendation, the table, charts, costs, answers; no network, no other file."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path

from lmworks.base.figures import byte_size, count_of, duration, list_names, number, percent
from lmworks.base.files import atomic_write
from lmworks.comparisons import comparison_charts, comparison_details, comparison_rows, comparison_table, search_tables
from lmworks.comparisons.comparison_state import Result, State
from lmworks.comparisons.finite_figures import finite_state
from lmworks.reports.markup import document, frame, prose, section, text

HTML = "comparison.html"
STYLE = "comparison.css"
TESTS = {"mcnemar": "McNemar's exact test", "bootstrap": "paired bootstrap over rows"}


def write(folder: Path, state: State) -> None:
    """Write comparison.html into a comparison's folder, whole or not at all."""
    atomic_write(folder / HTML, render(state))


def notebook_html(state: State) -> str:
    """The page as part of another one, such as a notebook's, in a frame of its own."""
    return frame(_title(state), render(state))


def render(state: State) -> str:
    """The whole page of a comparison, which may be unfinished."""
    state = finite_state(state)
    charts = comparison_charts.render(state)
    parts = [
        f'<header><p class="eyebrow">Comparison</p><h1>{text(_title(state))}</h1>'
        f'<p class="summary">{prose(_summary(state))}</p></header>\n',
        _recommendation(state),
        _tiles(state),
        comparison_details.overview(state),
        section("What quality costs", charts) if charts else "",
        comparison_rows.differences(state),
        comparison_rows.answers(state),
        comparison_details.costs(state),
        comparison_details.in_use(state),
        comparison_details.forgetting(state),
        comparison_details.memorisation(state),
        search_tables.render(state),
        comparison_details.final_runs(state),
        _remarks(state),
        _measured(state),
    ]
    style = resources.files("lmworks.comparisons").joinpath(STYLE).read_text(encoding="utf-8")
    return document(_title(state), "".join(parts), style)


def _title(state: State) -> str:
    return f"{state.settings.model} on {state.settings.source}"


def _summary(state: State) -> str:
    """What was compared, or how far it is."""
    lines = []
    if state.measure:
        lines.append(comparison_table.heading(state).removeprefix(f"{_title(state)}: "))
    waiting = [result.title for result in state.results if result.state == "open"]
    if waiting:
        finished = len(state.results) - len(waiting)
        lines.append(f"{finished} of {count_of(len(state.results), 'contender')} done; to come: {list_names(waiting)}")
    return ". ".join(lines)


def _recommendation(state: State) -> str:
    """The contender to take and why; or why there is none."""
    choice = state.recommendation
    if choice:
        reasons = "".join(f"<li>{prose(reason)}</li>" for reason in choice.get("reasons", []))
        name = choice.get("title", choice.get("name"))
        return (
            f'<section class="recommendation"><p class="eyebrow">Recommended</p><p class="choice">{text(name)}</p>'
            f"<ul>{reasons}</ul></section>\n"
        )
    if any(result.state == "open" for result in state.results):
        why = "The comparison is not finished."
    elif len(state.done) < 2:
        why = f"{count_of(len(state.done), 'contender')} with a figure: there is nothing to choose between."
    else:
        return ""
    return f'<section class="recommendation none"><p>No recommendation. {text(why)}</p></section>\n'


def _tiles(state: State) -> str:
    """The figures of the recommended contender, beside those of the best where that is another one."""
    chosen = next((result for result in state.done if result.name == state.recommendation.get("name")), None)
    if chosen is None:
        return ""
    best = comparison_table.ordered(state)[0]
    cost = chosen.cost
    ends = f"95 % interval {comparison_table.ends(chosen.interval)}" if chosen.interval else ""
    beside = "the best" if chosen is best else f"{best.title}: {number(best.value)}"
    tiles = [
        (str(state.measure.get("title", "")), number(chosen.value), [ends, beside]),
        ("training time", _known(cost.get("training_seconds"), duration), [_share("training_seconds", chosen, best)]),
        ("peak memory", _known(cost.get("peak_memory"), byte_size), [_share("peak_memory", chosen, best)]),
        ("kept on disk", _known(cost.get("disk"), byte_size), [_share("disk", chosen, best)]),
    ]
    sections = "".join(
        f'<section><h2>{text(name)}</h2><p class="pair"><b>{prose(figure)}</b></p>'
        + "".join(f'<p class="detail">{prose(line)}</p>' for line in lines if line)
        + "</section>"
        for name, figure, lines in tiles
        if figure
    )
    return f'<div class="tiles">{sections}</div>\n'


def _known(value: float | None, form: Callable[[float | None], str]) -> str:
    return "" if value is None else form(value)


def _share(key: str, chosen: Result, best: Result) -> str:
    chosen_cost, best_cost = chosen.cost.get(key), best.cost.get(key)
    if chosen is best or not chosen_cost or not best_cost:
        return ""
    share = chosen_cost / best_cost
    return f"{percent(share)} of {best.title}" if share < 2 else f"{number(share)} times that of {best.title}"


def _remarks(state: State) -> str:
    """What was left out or cut short, and what a reader should know of the figures."""
    lines = "".join(f"<li>{prose(line)}</li>" for line in comparison_table.remarks(state))
    return f'<section class="notes"><h2>Remarks</h2><ul>{lines}</ul></section>\n'


def _measured(state: State) -> str:
    """How it was measured: rows, tests, time and machine."""
    lines = "".join(f"<dt>{text(name)}</dt><dd>{prose(value)}</dd>" for name, value in _facts(state) if value)
    return f'<section class="run"><h2>How it was measured</h2><dl>{lines}</dl></section>\n'


def _facts(state: State) -> list[tuple[str, str]]:
    settings, row_counts, machine, measure = state.settings, state.row_counts, state.machine, state.measure
    parts = [
        f"{row_counts[key]:,} {key}" for key in ("training", "validation", "test") if row_counts.get(key) is not None
    ]
    tests = {str(result.difference["test"]) for result in state.done if result.difference.get("test")}
    named = ", ".join(TESTS.get(test, test) for test in sorted(tests))
    cores = count_of(machine["cores"], "core") if machine.get("cores") else ""
    memory = byte_size(machine["memory"]) if machine.get("memory") else ""
    software = {"torch": "PyTorch", "python": "Python"}
    versions = [f"{name} {machine[key]}" for key, name in software.items() if machine.get(key)]
    return [
        ("model", settings.model),
        ("data", settings.source),
        ("task", state.task),
        ("rows", ", ".join(parts) + (" (validation is a part of training)" if row_counts.get("validation") else "")),
        ("digest of the rows", str(row_counts.get("digest") or "")),
        ("measure", f"{measure['title']} ({measure.get('better')} is better)" if measure.get("title") else ""),
        ("signature of the measure", str(measure.get("signature") or "")),
        ("intervals", "95 %, bootstrap over test rows" if any(result.interval for result in state.done) else ""),
        ("tests", f"{named}; corrected for the number of comparisons by Holm's method" if named else ""),
        ("final trainings", f"{count_of(settings.seeds, 'seed')} each"),
        ("budget", f"{duration(settings.budget)}, of which {duration(state.seconds)} spent"),
        ("processes", "one at a time, each run in a process of its own"),
        ("machine", ", ".join(filter(None, [str(machine.get("name") or ""), cores, memory]))),
        ("software", ", ".join(versions)),
    ]
