"""A published table in words, measured: accuracy, risk of forgetting, resources, speed to set up and examples needed of
each way to adapt a model, from comparisons that `lmworks compare` made.

Prints Markdown, a table a comparison, so that docs/comparing.md has no number that was typed by hand:

    python benchmarks/method_table.py FOLDER ...

FOLDER is that of a comparison, or a comparison.json by itself.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from lmworks.adapt.prompting import PromptingSettings
from lmworks.base.figures import UNKNOWN, byte_size, count, count_of, duration, number, percent, signed
from lmworks.comparisons import comparison_table
from lmworks.comparisons.comparison_state import STATE, Result, State

HEADS = (
    "method",
    "accuracy: {measure}",
    "behind the best",
    "forgetting: change of {forgetting}",
    "memory",
    "trained parameters",
    "time to the model (search alone)",
    "speed in use (merged)",
    "examples",
)
TRAINED, PROMPTED = "trained", "prompted"


def read(place: str | Path) -> State:
    """The comparison of a folder, or of its file by whatever name.

    Raises:
        InputError: there is none.
    """
    path = Path(place)
    if not path.is_file():
        return State.read(path)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / STATE).write_bytes(path.read_bytes())
        return State.read(Path(folder))


def table(state: State) -> list[str]:
    """A comparison as lines of Markdown: its heading, its contenders, the best first, and what was left out and why."""
    forgetting = next((_text_of(result)["title"] for result in state.done if result.forgetting), "general text")
    heads = [head.format(measure=state.measure.get("title", ""), forgetting=forgetting) for head in HEADS]
    lines = [comparison_table.heading(state), "", _row(heads), _row(["---"] * len(heads))]
    lines += [_row(cells(result, state)) for result in comparison_table.ordered(state) if result in state.done]
    missing = [
        f"{result.title} ({result.reason or result.state})" for result in state.results if result not in state.done
    ]
    machine = state.machine.get("name")
    closing = [f"Not in the table: {'; '.join(missing)}."] if missing else []
    return [*lines, "", *([f"Measured on {machine}."] if machine else []), *closing]


def _row(values: list[str]) -> str:
    return f"| {' | '.join(value.replace('|', '/') for value in values)} |"


def cells(result: Result, state: State) -> list[str]:
    """What was measured of a contender, in the order of :data:`HEADS`."""
    cost = result.cost
    ends = comparison_table.ends(result.interval)
    searching = cost.get("search_seconds")
    trained = cost.get("trained_parameters")
    spent = duration(result.seconds) + (f" ({duration(searching)})" if searching else "")
    return [
        result.title,
        number(result.value) + (f" ({ends})" if ends else ""),
        comparison_table.behind(result, state),
        forgetting_cell(result),
        byte_size(cost.get("peak_memory")),
        _share(trained, cost.get("parameters")),
        spent,
        speed_cell(result),
        examples_cell(result, state),
    ]


def _share(trained: int | None, parameters: int | None) -> str:
    """How many parameters are trained, and which share of the model that is."""
    if trained is None:
        return UNKNOWN
    return f"{count(trained)} ({percent(trained / parameters)})" if trained and parameters else count(trained)


def _text_of(result: Result) -> dict[str, Any]:
    """The first measure of forgetting."""
    own: dict[str, Any] = next(iter(result.forgetting.values()))
    return own


def forgetting_cell(result: Result) -> str:
    """The change on general text with its interval; none where no weight of the model was changed."""
    if not result.forgetting:
        return "none: nothing is trained" if result.kind == PROMPTED else UNKNOWN
    own = _text_of(result)
    ends = comparison_table.ends(own.get("interval"), sign=True)
    return signed(own["after"] - own["before"]) + (f" ({ends})" if ends else "")


def speed_cell(result: Result) -> str:
    """Tokens or texts a second in use, and of adapters the same once they are merged."""
    speeds = [own for own in (result.in_use.get("speed"), result.in_use.get("merged")) if own]
    for key, unit in (("tokens_per_second", "tokens/s"), ("texts_per_second", "texts/s")):
        values = [own[key] for own in speeds if own.get(key)]
        if values:
            first, *merged = map(number, values)
            return f"{first} {unit}" + (f" ({merged[0]})" if merged else "")
    return UNKNOWN


def examples_cell(result: Result, state: State) -> str:
    """Rows with answers that the contender used."""
    if result.kind == PROMPTED:
        asked = PromptingSettings.model_validate(result.settings.get("prompting", {}))
        return f"{count_of(asked.shots, 'row')} in the prompt"
    if result.kind == TRAINED:
        epochs = result.chosen.get("epochs")
        return count_of(state.row_counts["training"], "row") + (f", {number(epochs)} epochs" if epochs else "")
    return count_of(0 if result.kind == "before" else state.row_counts["training"], "row")


def main() -> None:
    """Print the table of each comparison that is named."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("comparisons", nargs="+", help="folders of comparisons, or files comparison.json")
    for place in options.parse_args().comparisons:
        print(*table(read(place)), "", sep="\n")


if __name__ == "__main__":
    main()
