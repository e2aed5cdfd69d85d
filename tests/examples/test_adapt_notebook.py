"""The cells of the notebook run in order, as a notebook runs them; with a tiny model fast, with the real one slowly."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import save_tiny

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "adapt.ipynb"


def _cells() -> list[str]:
    return [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]


def _run(cells: list[str], changes: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The names after all cells, and the value of each cell's last expression.

    Args:
        cells: in order.
        changes: names that are set anew after the first cell, which sets them.
    """
    names: dict[str, Any] = {}
    values = []
    for number, cell in enumerate(cells):
        tree = ast.parse(cell)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)
        values.append(
            None if last is None else eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        )
        if number == 0:
            assert set(changes) <= set(names)
            names |= changes
    return names, values


def test_its_cells_run_and_show_the_card(tmp_path, capsys):
    model = str(save_tiny(tmp_path / "tiny"))
    names, values = _run(_cells(), {"MODEL": model, "FOLDER": str(tmp_path / "run"), "STEPS": 3})
    assert names["card"]["run"]["state"] == "finished"
    assert names["card"]["summary"] in capsys.readouterr().out
    assert names["card"]["training"]["steps"] == 3
    shown = next(value for value in values if value is names["run"])
    assert "Report card of run" in shown._repr_html_()


def test_it_is_saved_without_outputs():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
def test_the_real_model_learns_the_pattern(tmp_path):
    names, values = _run(_cells(), {"FOLDER": str(tmp_path / "run")})
    assert names["card"]["measures"][0]["verdict"] == "better"
    assert "Open the app" in values[-1]
