"""The tables of a comparison's page: contenders, costs, use, forgetting, memorisation. HTML; draws no chart.

A column in which no contender has a figure is left out, and so is a table without any column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lmworks.base.figures import (
    UNKNOWN,
    byte_size,
    count,
    count_of,
    duration,
    energy,
    list_names,
    number,
    percent,
    scaled,
    signed,
)
from lmworks.comparisons import comparison_table
from lmworks.comparisons.comparison_state import Result, State
from lmworks.reports.markup import prose, section, table, text

Form = Callable[[Any], str]
Column = tuple[str, Callable[[Result], str]]
"""The name of a column, and the HTML of a contender's cell; empty: it has no such figure."""


def overview(state: State) -> str:
    """The table of all contenders, as the terminal shows it."""
    heads = comparison_table.heads(state)
    rows = [
        _row(state, result, [prose(cell) for cell in cells[1:]])
        for result, cells in zip(comparison_table.ordered(state), comparison_table.table_cells(state), strict=True)
    ]
    about = comparison_table.about_intervals(state)
    note = f'<p class="detail">{prose(about)}</p>' if about else ""
    return section("All contenders", table(heads, rows, "contenders") + note)


def costs(state: State) -> str:
    """What each contender's training cost."""
    columns: list[Column] = [
        ("parameters", lambda result: _figure(result.cost.get("parameters"), count)),
        ("trained parameters", _trained),
        ("training time", lambda result: _figure(result.cost.get("training_seconds"), duration)),
        ("search time", lambda result: _figure(result.cost.get("search_seconds") or None, duration)),
        ("training tokens/s", lambda result: _figure(result.cost.get("tokens_per_second"), number)),
        ("peak memory", lambda result: _figure(result.cost.get("peak_memory"), byte_size)),
        ("FLOPs", lambda result: _figure(result.cost.get("flops"), lambda flops: scaled(flops, digits=3))),
        ("energy", lambda result: _energy(result, result.cost.get("joules"), energy)),
        ("CO2", lambda result: _energy(result, result.cost.get("grams_co2"), _grams)),
        ("kept on disk", lambda result: _figure(result.cost.get("disk"), byte_size)),
    ]
    return _section("What it cost", contender_table(state, columns), _cost_notes(state), _assumptions(state))


def _trained(result: Result) -> str:
    trained, total = result.cost.get("trained_parameters"), result.cost.get("parameters")
    share = percent(trained / total) if trained and total else ""
    return "" if trained is None else two_lines(count(trained), share)


def _energy(result: Result, value: float | None, form: Form) -> str:
    """A figure that follows from the energy, and how that is known."""
    return "" if value is None else two_lines(form(value), str(result.cost.get("energy_how") or ""))


def _grams(value: float) -> str:
    return f"{number(value, 2)} g" if value >= 0.1 else f"{number(1000 * value, 2)} mg"


def _cost_notes(state: State) -> list[str]:
    """What the figures of energy assume."""
    results = [result for result in state.results if result.cost.get("joules") is not None]
    whole = [result.title for result in results if result.cost.get("energy_covers") == "the whole run"]
    grams = sorted({result.cost["grams_per_kwh"] for result in results if result.cost.get("grams_per_kwh") is not None})
    notes = [f"CO2: {number(per_kwh)} g for a kilowatt-hour" for per_kwh in grams]
    if whole:
        notes.append(f"energy of the whole run, not of training alone: {list_names(whole)}")
    return notes


def _assumptions(state: State) -> str:
    """What the energy of each contender rests on, to be opened."""
    lines = [(result.title, result.cost["energy_note"]) for result in state.results if result.cost.get("energy_note")]
    listed = "".join(f"<li>{text(title)}: {prose(note)}</li>" for title, note in lines)
    return (
        f'<details class="detail"><summary>what the energy assumes</summary><ul>{listed}</ul></details>'
        if lines
        else ""
    )


def in_use(state: State) -> str:
    """How fast each contender answers: as it was saved, and with its adapter merged."""
    columns: list[Column] = [
        ("time to first token", lambda result: _speed(result, "latency", _brief, "generation")),
        ("time to an answer", lambda result: _speed(result, "latency", _brief, "")),
        ("tokens/s", lambda result: _speed(result, "tokens_per_second", number)),
        ("texts/s", lambda result: _speed(result, "texts_per_second", number)),
        ("on disk", lambda result: _figure(result.in_use.get("disk"), byte_size)),
        ("base besides", lambda result: _figure(result.in_use.get("base_disk"), byte_size)),
    ]
    notes = [f"{result.title}: {result.in_use['note']}" for result in state.results if result.in_use.get("note")]
    return _section("In use", contender_table(state, columns), [*_how_asked(state), *notes])


def _speed(result: Result, key: str, form: Form, kind: str | None = None) -> str:
    """A figure of speed as a contender was saved, and below it that with its adapter merged.

    Args:
        result: of the contender.
        key: of the figure.
        form: prints it.
        kind: "generation": only of contenders that generate; "": only of the others; None: of all.
    """
    speed, merged = result.in_use.get("speed") or {}, result.in_use.get("merged") or {}
    if speed.get(key) is None or (kind is not None and (speed.get("kind") == "generation") != bool(kind)):
        return ""
    return two_lines(form(speed[key]), "" if merged.get(key) is None else f"merged {form(merged[key])}")


def _how_asked(state: State) -> list[str]:
    """What the speeds were measured with."""
    lines = []
    for result in state.results:
        speed = result.in_use.get("speed") or {}
        if not speed.get("inputs"):
            continue
        tokens = f" of {number(speed['prompt_tokens'])} tokens" if speed.get("prompt_tokens") else ""
        new = f", {speed['new_tokens']} new tokens for each" if speed.get("new_tokens") else ""
        repeats = f", medians of {result.in_use['repeats']}" if result.in_use.get("repeats") else ""
        lines.append(f"{speed.get('kind', 'asked')}: {count_of(speed['inputs'], 'input')}{tokens}{new}{repeats}")
    return list(dict.fromkeys(lines))


def _brief(seconds: float) -> str:
    return f"{number(1000 * seconds)} ms" if seconds < 1 else duration(seconds)


def forgetting(state: State) -> str:
    """What each contender forgot: figures before and after, their change, and its interval."""
    measures = {key: measure for result in state.results for key, measure in result.forgetting.items()}
    columns: list[Column] = []
    for key, measure in measures.items():
        unit = str(measure.get("unit") or "")
        title = ", ".join(filter(None, [str(measure.get("title", key)), unit]))
        columns += [(f"{title}, before → after", _before_and_after(key)), ("change", _change(key))]
    notes = [
        f"{measure.get('title', key)}: {measure.get('better', 'lower')} is better" for key, measure in measures.items()
    ]
    return _section("Forgetting", contender_table(state, columns), notes)


def _before_and_after(key: str) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        measure = result.forgetting.get(key)
        return "" if measure is None else prose(f"{number(measure['before'])} → {number(measure['after'])}")

    return cell


def _change(key: str) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        measure = result.forgetting.get(key)
        if measure is None:
            return ""
        return two_lines(
            signed(measure["after"] - measure["before"]), comparison_table.ends(measure.get("interval"), sign=True)
        )

    return cell


def memorisation(state: State) -> str:
    """What each contender learned word for word: canaries, and training answers; beside what it was not trained on."""
    columns: list[Column] = [
        ("exposure of planted canaries, bits", lambda result: _memorised(result, "exposure", "planted", number)),
        ("training answers reproduced", lambda result: _memorised(result, "reproduced", "trained", percent)),
    ]
    notes = []
    for figures in (result.memorisation for result in state.results):
        exposure, reproduced = figures.get("exposure") or {}, figures.get("reproduced") or {}
        if exposure.get("expected") is not None:
            most = f", {number(exposure['most'])} is the most" if exposure.get("most") is not None else ""
            notes.append(f"exposure: {number(exposure['expected'])} bits are expected of what was never seen{most}")
        if reproduced.get("rows"):
            rows, tokens = count_of(reproduced["rows"], "row"), reproduced.get("tokens")
            length = f", of each at most {tokens} tokens" if tokens else ""
            notes.append(f"reproduced word for word: {rows} of training and as many held out{length}")
    return _section("Memorisation", contender_table(state, columns), list(dict.fromkeys(notes)))


def _memorised(result: Result, key: str, seen: str, form: Form) -> str:
    """A figure of what was trained on, and below it that of what was not."""
    figures = result.memorisation.get(key) or {}
    unseen = figures.get("control", figures.get("held_out"))
    beside = "" if unseen is None else f"not trained on {form(unseen)}"
    return "" if figures.get(seen) is None else two_lines(form(figures[seen]), beside)


def final_runs(state: State) -> str:
    """How each contender was trained for the test part, and the figure of each seed."""
    columns: list[Column] = [
        ("learning rate", lambda result: _figure(result.chosen.get("learning_rate"), lambda rate: f"{rate:g}")),
        ("epochs", lambda result: _figure(result.chosen.get("epochs"), number)),
        ("chosen by", lambda result: text(result.chosen["by"]) if result.chosen.get("by") else ""),
        ("by seed", lambda result: prose(" · ".join(map(number, result.by_seed))) if result.by_seed[1:] else ""),
    ]
    return _section("How the final runs were trained", contender_table(state, columns), [])


def contender_table(state: State, columns: Sequence[Column]) -> str:
    """A table of the contenders that have a figure in one of the columns, the best first; empty if none has.

    Args:
        state: of the comparison.
        columns: of the table, without that of the contenders.
    """
    cells = [(result, [cell(result) for _, cell in columns]) for result in comparison_table.ordered(state)]
    cells = [(result, row_cells) for result, row_cells in cells if any(row_cells)]
    kept = [place for place in range(len(columns)) if any(row_cells[place] for _, row_cells in cells)]
    heads = [columns[place][0] for place in kept]
    rows = [_row(state, result, [row_cells[place] or UNKNOWN for place in kept]) for result, row_cells in cells]
    return table(["contender", *heads], rows, "contenders") if rows else ""


def _row(state: State, result: Result, cells: Sequence[str]) -> str:
    """A row; the recommended contender is marked."""
    is_chosen = result.name == state.recommendation.get("name")
    mark = ' <span class="verdict better">recommended</span>' if is_chosen else ""
    inner = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{text(result.title)}{mark}</th>{inner}</tr>'


def two_lines(figure: str, below: str = "") -> str:
    """A cell: a figure, and what stands small below it."""
    return prose(figure) + (f'<span class="range">{prose(below)}</span>' if below else "")


def _figure(value: Any, form: Form) -> str:
    return "" if value is None else prose(form(value))


def _section(title: str, content: str, notes: Sequence[str], below: str = "") -> str:
    """A section with remarks and HTML below; empty without content."""
    remarks = "".join(f'<p class="detail">{prose(note)}</p>' for note in notes)
    return section(title, content + remarks + below) if content else ""
