"""The settings of a run as fields of a form, from the one schema of recipes and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from lmworks.adapt.registry import METHODS
from lmworks.base.errors import InputError
from lmworks.base.notation import write_yaml
from lmworks.base.settings import SettingRow, build, describe, nearest
from lmworks.baselines import tfidf_settings
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.contender_recipes import CHOSEN
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.run import classical_recipe, ngram_recipe
from lmworks.run import recipe as recipes
from lmworks.run.recipe import Recipe
from lmworks.tasks.settings import TaskSettings
from lmworks.text.rows import DataSettings
from lmworks.train.settings import TrainSettings

Verb = Literal["tune", "pretrain", "compare"]
ASKED_APART = {"model", "source", "data.source", "method", "methods", "task", "task.name", "out", "name", "family"}
"""Settings for which the page has places of its own, or that follow from the model."""
NOT_ASKED = ("tasks", "sampling", "temperature", "alone", "comparison", "contender", "data.validation")
"""Settings and groups that a form does not have: those of several tasks, of contenders by name, and what commands write
themselves."""
NEW_MODELS = ("model", "tokenizer")
"""Groups of new models alone."""
SOURCES = {
    "data.additional": "data",
    "evaluate.general": "data",
    "prompting.templates": "data",
    "prompting.encoder": "model",
    "tokenizer.source": "model",
}
"""Settings that name a file or a model, of which the studio's folders are the limit: setting -> what it names."""
ANY_MODEL: dict[str, Any] = {"data": {"source": "-"}}
"""What a recipe needs to be resolved where nothing but its defaults is asked for."""


def settings_of(verb: Verb, model: str) -> list[SettingRow]:
    """The settings that a form has, each with the default that holds for this model.

    Args:
        verb: of the command.
        model: the name of a preset decides which settings there are; any other model has those of networks.
    """
    if verb == "compare":
        train, evaluate = (_prefixed(*part) for part in (("train", TrainSettings), ("evaluate", EvaluateSettings)))
        chosen = {f"train.{name}" for name in CHOSEN}
        own = _with_defaults(build(CompareSettings, {"model": "-", "source": "-"}))
        rows = [row for row in own if row.name not in ("train", "evaluate")]
        return _asked([*rows, *(row for row in train if row.name not in chosen), *evaluate])
    if verb == "tune" and tfidf_settings.is_preset(model):
        return _asked(_with_defaults(classical_recipe.resolve(model, ANY_MODEL)))
    if verb == "pretrain" and ngram_recipe.is_preset(model):
        return _asked(_with_defaults(ngram_recipe.resolve(model, ANY_MODEL)))
    if verb == "pretrain":
        return _asked(_with_defaults(recipes.from_preset(model, ANY_MODEL)))
    return [row for row in _asked(describe(Recipe)) if row.name.split(".")[0] not in NEW_MODELS]


def data_settings() -> list[SettingRow]:
    """The settings of reading and showing data."""
    return _asked([*_prefixed("data", DataSettings), *_prefixed("task", TaskSettings)])


def groups(rows: list[SettingRow]) -> list[dict[str, Any]]:
    """The fields of a form in groups: ``name`` (empty of settings without a group), ``method`` (whether it is the group
    of a method) and ``fields``, each with ``name``, ``label``, ``kind``, ``default``, ``help`` and ``choices``."""
    fields: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        fields.setdefault(row.name.rpartition(".")[0], []).append(_field(row))
    return [{"name": name, "method": name in METHODS, "fields": members} for name, members in fields.items()]


def check_names(settings: Mapping[str, str], rows: list[SettingRow]) -> None:
    """Refuse settings that the form does not have.

    Raises:
        InputError: there is one; the nearest that there is is named.
    """
    names = [row.name for row in rows]
    for name in settings:
        if name not in names:
            near = nearest(name, names)
            hint = f"did you mean {near[0]}?" if near else "leave it out"
            raise InputError("is no setting of this form", name[:120], hint)


def _asked(rows: list[SettingRow]) -> list[SettingRow]:
    return [
        row
        for row in rows
        if row.name not in ASKED_APART and not any(row.name == name or _is_below(row, name) for name in NOT_ASKED)
    ]


def _is_below(row: SettingRow, group: str) -> bool:
    return row.name.startswith(f"{group}.")


def _prefixed(group: str, schema: type[BaseModel]) -> list[SettingRow]:
    return [row._replace(name=f"{group}.{row.name}") for row in describe(schema)]


def _with_defaults(recipe: BaseModel) -> list[SettingRow]:
    """The settings of a recipe, with its own values as defaults."""
    values = recipe.model_dump(mode="json", serialize_as_any=True)
    return [row._replace(default=_value(values, row)) for row in describe(type(recipe))]


def _value(values: Any, row: SettingRow) -> str | None:
    """A value as YAML; the schema's default where the recipe has no such group."""
    for part in row.name.split("."):
        if not isinstance(values, dict) or part not in values:
            return row.default
        values = values[part]
    return write_yaml(values, flow=True)


def _field(row: SettingRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": row.name.rpartition(".")[2].replace("_", " "),
        "kind": row.kind,
        "default": row.default,
        "help": row.help,
        "choices": _choices(row.kind),
    }


def _choices(kind: str) -> list[str]:
    """The words that a setting of a kind is one of; none where there are other values."""
    kind = kind.removesuffix(" or null")
    if kind == "bool":
        return ["true", "false"]
    return kind.split(" | ") if " | " in kind and " or " not in kind else []
