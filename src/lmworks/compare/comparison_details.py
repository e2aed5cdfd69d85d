"""The tables of a comparison's page: contenders, costs, use, forgetting, memorisation. HTML; draws no chart.

A column in which no contender has a figure is left out, and so is a table without any column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lmworks.base.figures import (
    UNKNOWN,
    byte_size,
    count,
    duration,
    energy,
    list_names,
    number,
    percent,
    scaled,
    signed,
)
from lmworks.compare import comparison_table
from lmworks.compare.comparison_state import Result, State
from lmworks.reports.markup import prose, section, table, text

Form = Callable[[Any], str]
Column = tuple[str, Callable[[Result], str]]
"""The name of a column, and the HTML of a contender's cell; empty: it has no such figure."""
IN_USE: dict[str, tuple[str, Form]] = {
    "first_token": ("time to first token", duration),
    "latency": ("time to an answer", duration),
    "tokens_per_second": ("tokens/s", number),
    "texts_per_second": ("texts/s", number),
}
"""What is measured of a contender in use: title, and how it is printed."""
MEMORISATION: dict[str, tuple[str, Form]] = {
    "exposure": ("exposure of planted texts, bits", number),
    "reproduced": ("training answers reproduced word for word", percent),
}
"""What is measured of what a contender learned word for word."""


def overview(state: State) -> str:
    """The table of all contenders, as the terminal shows it."""
    heads = comparison_table.heads(state)
    rows = [
        _row(state, result, [prose(cell) for cell in cells[1:]])
        for result, cells in zip(comparison_table.ordered(state), comparison_table.rows(state), strict=True)
    ]
    return section("All contenders", table(heads, rows, "contenders"))


def costs(state: State) -> str:
    """What each contender's training cost."""
    columns: list[Column] = [
        ("parameters", lambda result: _figure(result.cost.get("parameters"), count)),
        ("trained", _trained),
        ("training", lambda result: _figure(result.cost.get("training_seconds"), duration)),
        ("search", lambda result: _figure(result.cost.get("search_seconds") or None, duration)),
        ("tokens/s", lambda result: _figure(result.cost.get("tokens_per_second"), number)),
        ("peak memory", lambda result: _figure(result.cost.get("peak_memory"), byte_size)),
        ("FLOPs", lambda result: _figure(result.cost.get("flops"), lambda flops: scaled(flops, digits=3))),
        ("energy", lambda result: _energy(result, result.cost.get("joules"), energy)),
        ("CO2", lambda result: _energy(result, result.cost.get("grams_co2"), _grams)),
        ("kept on disk", lambda result: _figure(result.cost.get("disk"), byte_size)),
    ]
    return _section("What it cost", contender_table(state, columns), _cost_notes(state))


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
    used = [result.cost for result in results]
    grams = {cost["grams_per_kwh"] for cost in used if cost.get("grams_per_kwh") is not None}
    notes = [f"CO2: {number(own)} g for a kilowatt-hour" for own in sorted(grams)]
    if whole:
        notes.append(f"energy of the whole run, not of training alone: {list_names(whole)}")
    return [*notes, *_different(f"energy: {cost['energy_note']}" for cost in used if cost.get("energy_note"))]


def in_use(state: State) -> str:
    """How fast each contender answers."""
    found = [(variant, key) for result in state.results for variant, key, _ in _measured_in_use(result)]
    variants = list(dict.fromkeys(variant for variant, _ in found))
    keys = [*(key for key in IN_USE if any(key == own for _, own in found)), *_different(key for _, key in found)]
    columns = []
    for key in dict.fromkeys(keys):
        title, form = IN_USE.get(key, (_words(key), number))
        for variant in variants:
            head = f"{title}, {_words(variant)}" if len(variants) > 1 and variant else title
            columns.append((head, _in_use_cell(variant, key, form)))
    notes = [
        f"{result.title}: {result.in_use['note']}"
        for result in state.results
        if isinstance(result.in_use.get("note"), str) and result.in_use["note"]
    ]
    return _section("In use", contender_table(state, columns), notes)


def _in_use_cell(variant: str, key: str, form: Form) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        own = {(variant, key): value for variant, key, value in _measured_in_use(result)}
        return _figure(own.get((variant, key)), form)

    return cell


def _measured_in_use(result: Result) -> Iterator[tuple[str, str, float]]:
    """(merged or unmerged, key, figure); the first is empty where a figure holds for the contender as it is."""
    for variant, own in result.in_use.items():
        for key, value in own.items() if isinstance(own, dict) else [(variant, own)]:
            if _is_number(value):
                yield (variant if isinstance(own, dict) else ""), key, value


def forgetting(state: State) -> str:
    """What each contender forgot: figures before and after, their change, and its interval."""
    measures = {key: own for result in state.results for key, own in result.forgetting.items()}
    columns: list[Column] = []
    for key, own in measures.items():
        unit = str(own.get("unit") or "")
        title = ", ".join(filter(None, [str(own.get("title", key)), unit]))
        columns += [(f"{title}, before → after", _before_and_after(key)), ("change", _change(key))]
    notes = [f"{own.get('title', key)}: {own.get('better', 'lower')} is better" for key, own in measures.items()]
    return _section("Forgetting", contender_table(state, columns), notes)


def _before_and_after(key: str) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        own = result.forgetting.get(key)
        return "" if own is None else prose(f"{number(own['before'])} → {number(own['after'])}")

    return cell


def _change(key: str) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        own = result.forgetting.get(key)
        if own is None:
            return ""
        return two_lines(signed(own["after"] - own["before"]), comparison_table.ends(own.get("interval"), sign=True))

    return cell


def memorisation(state: State) -> str:
    """What each contender learned word for word."""
    keys = _different(key for result in state.results for key in _flat(result.memorisation))
    columns = []
    for key in [*(key for key in MEMORISATION if key in keys), *(key for key in keys if key not in MEMORISATION)]:
        title, form = MEMORISATION.get(key, (_words(key), number))
        columns.append((title, _memorised(key, form)))
    return _section("Memorisation", contender_table(state, columns), [])


def _memorised(key: str, form: Form) -> Callable[[Result], str]:
    return lambda result: _figure(_flat(result.memorisation).get(key), form)


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
    cells = [(result, own) for result, own in cells if any(own)]
    kept = [place for place in range(len(columns)) if any(own[place] for _, own in cells)]
    heads = [columns[place][0] for place in kept]
    rows = [_row(state, result, [own[place] or UNKNOWN for place in kept]) for result, own in cells]
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


def _section(title: str, content: str, notes: Sequence[str]) -> str:
    """A section with remarks below; empty without content."""
    remarks = "".join(f'<p class="detail">{prose(note)}</p>' for note in notes)
    return section(title, content + remarks) if content else ""


def _flat(values: dict[str, Any], before: str = "") -> dict[str, float]:
    """The numbers of nested dictionaries, by the words on the way to them."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}, ")
        elif _is_number(value):
            flat[f"{before}{key}"] = value
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _different(values: Iterator[str] | Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))
