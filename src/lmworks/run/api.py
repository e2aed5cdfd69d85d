"""The ways into a run, tune and pretrain, and its plan, as Python calls: all fill the same recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmworks.base.errors import check_type
from lmworks.run import recipe as recipes
from lmworks.run.pipeline import Run, Say, run_recipe
from lmworks.run.plan import Plan
from lmworks.run.setup import set_up
from lmworks.text import python_rows

MODEL_HINT = "give a folder, a GGUF file, an alias (lmworks models), hub:owner/name or pypi:name"


def tune(
    model: str | Path,
    data: Any,
    *,
    method: str | None = None,
    out: str | Path | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Run:
    """Adapt a model to a data set, measuring it before and after.

    Args:
        model: any source of a model.
        data: a file, a named data set, ``hub:owner/name``, or rows: a list of dictionaries, a data frame or a table,
            which the run keeps in its folder; or a dict of data settings with one of these as ``source``.
        method: "lora" (default), "full" ...: ``lmworks recipe list`` names them.
        out: the run's folder; must be new. Default: runs/<time>-<model>-<method>.
        say: gets each line of progress; default: silent but for the progress of training.
        **settings: further groups of the recipe: ``train={"epochs": 3}``, ``task="masked"``, ``lora={...}``,
            ``evaluate={...}``.

    Raises:
        InputError: anything about model, data or settings that cannot be used.
    """
    check_type(model, (str, Path), "model", MODEL_HINT)
    source, rows = _source_and_rows(data)
    values = {**settings, "model": str(model), "data": source, **_set_values(method, out)}
    return run_recipe(recipes.resolve(values, "tune"), say, rows)


def pretrain(
    preset: str | Path,
    data: Any,
    *,
    method: str | None = None,
    out: str | Path | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Run:
    """Train a new model, whose weights are drawn at random.

    Args:
        preset: a name (``lmworks recipe presets`` lists them), or the path of a recipe (.yaml).
        data: a file, a named data set, ``hub:owner/name``, or rows: a list of dictionaries, a data frame or a table,
            which the run keeps in its folder; or a dict of data settings with one of these as ``source``.
        method: default "full".
        out: the run's folder; must be new. Default: runs/<time>-<name>.
        say: gets each line of progress; default: silent but for the progress of training.
        **settings: what is to be otherwise: ``model={"num_hidden_layers": 2}``, ``train={"steps": 100}``,
            ``tokenizer={"kind": "char"}``, ``task={...}``.

    Raises:
        InputError: anything about data or settings that cannot be used.
    """
    check_type(preset, (str, Path), "preset", "give a preset (lmworks recipe presets lists them) or a recipe (.yaml)")
    preset = str(preset)
    source, rows = _source_and_rows(data)
    values = {**settings, "data": source, **_set_values(method, out)}
    if recipes.is_recipe(preset):
        recipe = recipes.read(preset, values)
    else:
        recipe = recipes.from_preset(preset, values, "pretrain")
    return run_recipe(recipe, say, rows)


def plan(model: str | Path, data: Any, *, method: str | None = None, **settings: Any) -> Plan:
    """What a run will need: parameters, FLOPs, time, memory, disk. Opens model and data, trains and writes nothing.

    Args:
        model: any source of a model, as of :func:`tune`; or a preset, as of :func:`pretrain`.
        data: as of :func:`tune`.
        method: default "lora", of a preset "full".
        **settings: as of :func:`tune` or :func:`pretrain`.

    Raises:
        InputError: anything about model, data or settings that cannot be used, or too little memory.
    """
    check_type(model, (str, Path), "model", MODEL_HINT)
    model = str(model)
    source, rows = _source_and_rows(data)
    values = {**settings, "data": source, **_set_values(method, None)}
    if recipes.is_preset(model):
        recipe = recipes.from_preset(model, values, "plan")
    elif recipes.is_recipe(model):
        recipe = recipes.read(model, values)
    else:
        recipe = recipes.resolve({**values, "model": model}, "plan")
    return set_up(recipe, rows).plan


def _source_and_rows(data: Any) -> tuple[Any, Any]:
    """Data as the recipe has them, and the rows that are given in Python, or None."""
    source = data.get("source") if isinstance(data, dict) else data
    if source is None or isinstance(source, (str, Path)):
        return (str(data) if isinstance(data, Path) else data), None
    return {**(data if isinstance(data, dict) else {}), "source": python_rows.FILE}, python_rows.rows_of(source)


def _set_values(method: str | None, out: str | Path | None) -> dict[str, Any]:
    values = {"method": method, "out": None if out is None else str(out)}
    return {name: value for name, value in values.items() if value is not None}
