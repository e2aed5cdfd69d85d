"""The table of methods says what the comparison measured, and leaves nothing out silently."""

from __future__ import annotations

from pathlib import Path

import method_table
import pytest
from tiny_comparisons import MODEL_PARAMETERS, comparison

from lmworks.base.errors import InputError
from lmworks.base.figures import byte_size, duration, number
from lmworks.comparisons.comparison_state import STATE


def cells_by_method(lines: list[str]) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {len(method_table.HEADS)}
    return {row[0]: row for row in rows}


def test_every_figure_is_the_comparisons() -> None:
    state = comparison()
    lines = method_table.table(state)
    table = cells_by_method(lines)
    assert "accuracy: accuracy" in table["method"]
    assert "forgetting: change of documentation of Python" in table["method"]
    assert [title for title in table if title not in ("method", "---")] == [
        result.title for result in sorted(state.done, key=lambda own: -(own.value or 0))
    ]
    own = next(result for result in state.results if result.name == "full")
    row = table[own.title]
    assert row[1].startswith(number(own.value))
    assert row[4] == byte_size(own.cost["peak_memory"])
    assert row[5] == f"{MODEL_PARAMETERS / 1e6:.2f} M (100 %)"
    assert row[6] == f"{duration(own.seconds)} ({duration(own.cost['search_seconds'])})"
    assert row[8] == f"1,600 rows, {number(own.chosen['epochs'])} epochs"
    change = own.forgetting["general.bits_per_byte"]
    assert row[3].startswith(f"+{number(change['after'] - change['before'])} (+")
    assert lines[0].startswith("minilm-l6 on movie-reviews")
    assert f"Measured on {state.machine['name']}." in lines


def test_prompting_counts_the_rows_of_its_prompt() -> None:
    state = comparison(["zero-shot", "few-shot", "majority"])
    for result, shots in zip(state.results[:2], (0, 8), strict=True):
        result.settings = {"method": "prompting", "prompting": {"shots": shots}}
    table = cells_by_method(method_table.table(state))
    assert [table[result.title][8] for result in state.results] == [
        "0 rows in the prompt", "8 rows in the prompt", "1,600 rows",
    ]  # fmt: skip
    assert table[state.results[0].title][3] == "none: nothing is trained"


def test_contenders_without_a_figure_are_named_with_their_reason() -> None:
    state = comparison(["lora", "full", "head"])
    state.results[2].value, state.results[2].state = None, "left out"
    state.results[2].reason = "it does not fit into the budget"
    lines = method_table.table(state)
    assert "head only" not in cells_by_method(lines)
    assert "Not in the table: head only (it does not fit into the budget)." in lines


def test_a_comparison_is_read_from_its_folder_or_its_file(tmp_path: Path) -> None:
    state = comparison(["lora", "full"])
    state.write(tmp_path)
    kept = tmp_path / "2026-compare.json"
    kept.write_bytes((tmp_path / STATE).read_bytes())
    assert method_table.read(tmp_path) == method_table.read(kept) == state
    with pytest.raises(InputError, match="no comparison"):
        method_table.read(tmp_path / "nowhere")
