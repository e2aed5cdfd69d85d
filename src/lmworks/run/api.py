"""tune, pretrain and plan as Python calls; each fills a recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lmworks.base.errors import InputError, check_type
from lmworks.run import classical, classical_recipe, ngram_recipe, ngrams, pipeline
from lmworks.run import recipe as recipes
from lmworks.run.pipeline import run_recipe
from lmworks.run.plan import Plan
from lmworks.run.recipe import Recipe
from lmworks.run.result import Run, Say
from lmworks.run.setup import set_up
from lmworks.text import python_rows

MODEL_HINT = "give a folder, a GGUF file, an alias (lmworks models), hub:owner/name or pypi:name"
DATA_HINT = 'give what the file does not say: data={"held_out": 100}'

P = ParamSpec("P")
R = TypeVar("R")


def _also_by_name(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let positional-only arguments be given by name too.

    They are positional-only because model and data are also sections of a recipe, for which keywords are settings:
    ``plan("tinygpt", data, model={"num_hidden_layers": 2})``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*arguments: Any, **settings: Any) -> R:
            for name in names[len(arguments) :]:
                if name not in settings:
                    break
                arguments += (settings.pop(name),)
            return function(*arguments, **settings)

        return call

    return decorate


@_also_by_name("model", "data")
def tune(
    model: str | Path,
    data: Any = None,
    /,
    *,
    method: str | None = None,
    out: str | Path | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Run:
    """Adapt a model to a data set, evaluating it before and after.

    Args:
        model: any source of a model; or the name of a classifier by counts of words, such as tfidf-logreg, which is
            trained from nothing (its settings are ``tfidf={...}``).
        data: a file, a named data set, ``hub:owner/name``, or rows: a list of dictionaries, a data frame or a table,
            which the run keeps in its folder; or a dict of data settings with one of these as ``source``. None where
            the settings name several tasks: ``tasks=[{"name": "spam", "data": "sms.tsv", "weight": 1.0}, ...]``.
        method: "lora" (default), "full" ...: ``lmworks recipe list`` names them.
        out: the run's folder; must be new. Default: runs/<time>-<model>-<method>.
        say: gets each line of progress; default: silent but for the progress of training.
        **settings: further groups of the recipe: ``train={"epochs": 3}``, ``task="masked"``, ``lora={...}``,
            ``evaluate={...}``, ``data={"held_out": 100}``.

    Raises:
        InputError: anything about model, data or settings that cannot be used.
    """
    check_type(model, (str, Path), "model", MODEL_HINT)
    if isinstance(data, (str, Path)) and recipes.is_recipe(str(data)):
        values, _ = _values(None, settings, method, out)
        return run_recipe(recipes.read(data, {**values, "model": str(model)}, "tune"), say)
    values, rows = _values(data, settings, method, out)
    if classical_recipe.is_classifier(str(model)):
        return classical.run_recipe(classical_recipe.resolve(str(model), values, "tune"), say, rows)
    return run_recipe(_recipe_of_opened(str(model), values, "tune"), say, rows)


def resume(folder: str | Path, say: Say | None = None) -> Run:
    """Resume a run that was killed or stopped.

    On a CPU the losses that follow are those of a run that was never stopped, bit for bit.

    Raises:
        InputError: there is no run, or its data or settings have changed.
    """
    check_type(folder, (str, Path), "run", "give the folder of a run")
    if ngrams.is_ngram_run(folder):
        return ngrams.resume(folder, say)
    return classical.resume(folder, say) if classical.is_classical(folder) else pipeline.resume(folder, say)


@_also_by_name("preset", "data")
def pretrain(
    preset: str | Path,
    data: Any,
    /,
    *,
    method: str | None = None,
    out: str | Path | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Run:
    """Train a new model, whose weights are drawn at random.

    Args:
        preset: a name (``lmworks recipe presets`` lists them), or the path of a recipe (.yaml). An n-gram model, as
            ngram-5 is, has the settings ``ngram={...}``.
        data: a file, a named data set, ``hub:owner/name``, or rows: a list of dictionaries, a data frame or a table,
            which the run keeps in its folder; or a dict of data settings with one of these as ``source``.
        method: default "full".
        out: the run's folder; must be new. Default: runs/<time>-<name>.
        say: gets each line of progress; default: silent but for the progress of training.
        **settings: groups of the recipe that differ from the preset: ``model={"num_hidden_layers": 2}``,
            ``train={"steps": 100}``, ``tokenizer={"kind": "char"}``, ``task={...}``.

    Raises:
        InputError: anything about data or settings that cannot be used.
    """
    check_type(preset, (str, Path), "preset", "give a preset (lmworks recipe presets lists them) or a recipe (.yaml)")
    preset = str(preset)
    values, rows = _values(data, settings, method, out)
    if ngram_recipe.is_ngram(preset):
        return ngrams.run_recipe(ngram_recipe.resolve(preset, values, "pretrain"), say, rows)
    if recipes.is_recipe(preset):
        recipe = recipes.read(preset, values, "pretrain")
    else:
        recipe = recipes.from_preset(preset, values, "pretrain")
    return run_recipe(recipe, say, rows)


@_also_by_name("model", "data")
def plan(model: str | Path, data: Any = None, /, *, method: str | None = None, **settings: Any) -> Plan:
    """What a run will need: parameters, FLOPs, time, memory, disk. Opens model and data; neither trains nor writes.

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
    values, rows = _values(data, settings, method)
    if recipes.is_preset(model):
        recipe = recipes.from_preset(model, values, "plan")
    elif recipes.is_recipe(model):
        recipe = recipes.read(model, values, "plan")
    elif isinstance(data, (str, Path)) and recipes.is_recipe(str(data)):
        values, rows = _values(None, settings, method)
        recipe = recipes.read(data, {**values, "model": model}, "plan")
    else:
        recipe = _recipe_of_opened(model, values, "plan")
    return set_up(recipe, rows).plan


def _recipe_of_opened(model: str, values: dict[str, Any], origin: str) -> Recipe:
    """The recipe of a run that opens a model.

    Raises:
        InputError: it has settings of a new model.
    """
    if "model" in values:
        hint = 'leave it out, or train a new model: lmworks.pretrain("tinygpt", data, model={...})'
        raise InputError("is a setting of new models; a model that is opened has its own", "model", hint)
    return recipes.resolve({**values, "model": model}, origin)


def _values(
    data: Any, settings: dict[str, Any], method: str | None, out: str | Path | None = None
) -> tuple[dict[str, Any], Any]:
    """The recipe's values without the model; and the rows, if they are given in Python, else None."""
    more = settings.get("data", {})
    check_type(more, dict, "data", DATA_HINT)
    if more:
        data = {**(data if isinstance(data, dict) else {} if data is None else {"source": data}), **more}
    given = {"method": method, "out": None if out is None else str(out)}
    values = {**settings, **{name: value for name, value in given.items() if value is not None}}
    rows = None
    if data is not None:
        values["data"], rows = _source_and_rows(data)
    if "tasks" not in settings:
        return values, rows
    values["tasks"], by_task = _tasks(settings["tasks"])
    return values, by_task


def _tasks(tasks: Any) -> tuple[list[Any], dict[str, list[dict[str, Any]]]]:
    """The recipe's ``tasks``; and by name the rows of those whose rows are given in Python."""
    check_type(tasks, (list, tuple), "tasks", 'give a list: [{"name": "spam", "data": "sms.tsv"}, ...]')
    entries, by_task = [], {}
    for number, entry in enumerate(tasks, 1):
        check_type(entry, dict, f"tasks, entry {number}", 'give {"name": "spam", "data": "sms.tsv"}')
        if entry.get("data") is None:
            entries.append(entry)
            continue
        source, rows = _source_and_rows(entry["data"])
        entries.append({**entry, "data": source})
        if rows is not None:
            by_task[str(entry.get("name"))] = rows
    return entries, by_task


def _source_and_rows(data: Any) -> tuple[Any, Any]:
    """The recipe's group ``data``; and the rows, if they are given in Python, else None."""
    settings = data if isinstance(data, dict) else {"source": data}
    source = settings.get("source")
    if source is None:
        return data, None
    if isinstance(source, (str, Path)):
        return {**settings, "source": str(source)}, None
    return {**settings, "source": python_rows.FILE}, python_rows.rows_of(source)
